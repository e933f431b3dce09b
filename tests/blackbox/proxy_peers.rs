//! The PROXY protocol and SNI between evenkeel and other programs: HAProxy, nginx, openssl.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use evenkeel::sys::child::die_with_parent;

use crate::common::client::{connect, exchange, read_to_end, shut_down};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, skip};

/// Another program. Dropping it kills the process.
struct Program(Child);

impl Program {
    /// Starts it, and waits until it listens on `address`.
    fn start(env: &TestEnv, command: &mut Command, address: SocketAddr) -> Self {
        let log = fs::File::create(env.file("program.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        die_with_parent(command);
        let mut program = Self(command.spawn().unwrap());
        until("the program listens", || {
            if let Some(status) = program.0.try_wait().unwrap() {
                panic!("{status}: {}", fs::read_to_string(env.file("program.log")).unwrap());
            }
            std::net::TcpStream::connect(address).is_ok()
        });
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whether a program is there; if not, the test is reported as skipped.
fn has(test: &str, program: &str, option: &str) -> bool {
    let found = Command::new(program).arg(option).output().is_ok();
    if !found {
        skip(test, &format!("not installed: {program}"));
    }
    found
}

/// HAProxy between `bind` and `server`, each with its options.
fn haproxy(env: &TestEnv, bind: SocketAddr, bind_options: &str, server: &str) -> Program {
    let text = format!(
        "global\n    maxconn 100\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 20s\n    \
         timeout server 20s\n\
         listen one\n    bind {bind} {bind_options}\n    server s {server}\n"
    );
    let file = env.file("haproxy.cfg");
    fs::write(&file, text).unwrap();
    Program::start(env, Command::new("haproxy").arg("-db").arg("-f").arg(&file), bind)
}

const REQUIRED: &str = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.0.0.0/8\"]";

#[test]
fn haproxy_in_front_tells_the_address_of_its_client() {
    if !has("haproxy_in_front_tells_the_address_of_its_client", "haproxy", "-v") {
        return;
    }
    for option in ["send-proxy", "send-proxy-v2"] {
        let env = TestEnv::new();
        let server = Server::echo(env.port(9001));
        let config = Config::new(&env).frontend(REQUIRED).backend("send_proxy = \"v1\"");
        let balancer = Balancer::start(&env, &config.server("a", server.address));
        let front = env.port(8100);
        let _haproxy = haproxy(&env, front, "", &format!("{} {option}", env.frontend()));
        let mut client = connect(front);
        client.write_all(b"x").unwrap();
        let own = client.local_addr().unwrap();
        let (ip, to) = (own.ip(), front.ip());
        let expected = format!("PROXY TCP4 {ip} {to} {} {}\r\nx", own.port(), front.port());
        let mut found = vec![0; expected.len()];
        client.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), expected, "{option}");
        assert_eq!(exchange(&client, &[7; 50_000]), [7; 50_000]);
        drop(client);
        until("every session has ended", || {
            balancer.metrics().value("evenkeel_sessions_active", &[]) == 0.0
        });
    }
}

#[test]
fn haproxy_behind_accepts_both_versions() {
    if !has("haproxy_behind_accepts_both_versions", "haproxy", "-v") {
        return;
    }
    for version in ["v1", "v2"] {
        let env = TestEnv::new();
        let server = Server::echo(env.port(9001));
        let behind = env.port(8100);
        let to = format!("{} send-proxy", server.address);
        let _haproxy = haproxy(&env, behind, "accept-proxy", &to);
        let config = Config::new(&env).backend(&format!("send_proxy = \"{version}\""));
        let balancer = Balancer::start(&env, &config.server("haproxy", behind));
        let mut client = connect(env.frontend());
        client.write_all(b"x").unwrap();
        let (own, front) = (client.local_addr().unwrap(), env.frontend());
        let (ip, to) = (own.ip(), front.ip());
        let expected = format!("PROXY TCP4 {ip} {to} {} {}\r\nx", own.port(), front.port());
        let mut found = vec![0; expected.len()];
        client.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), expected, "{version}");
        shut_down(&client);
        read_to_end(&client);
        balancer.assert_no_leaks();
    }
}

#[test]
fn nginx_behind_sees_the_address_of_the_client() {
    if !has("nginx_behind_sees_the_address_of_the_client", "nginx", "-v") {
        return;
    }
    for version in ["v1", "v2"] {
        let env = TestEnv::new();
        let behind = env.port(8100);
        let (folder, file) = (env.folder().display(), env.file("nginx.conf"));
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths = paths.map(|name| format!("{name}_temp_path {folder}/{name};")).concat();
        let answer = "$proxy_protocol_addr:$proxy_protocol_port \
                      $proxy_protocol_server_addr:$proxy_protocol_server_port";
        let text = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nevents {{ }}\n\
             http {{ access_log off; {paths}\n\
             server {{ listen {behind} proxy_protocol;\n\
             location / {{ return 200 \"{answer}\"; }} }} }}\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("nginx");
        let command =
            command.arg("-p").arg(env.folder()).arg("-c").arg(&file).args(["-e", "stderr"]);
        let _nginx = Program::start(&env, command, behind);
        let config = Config::new(&env).backend(&format!("send_proxy = \"{version}\""));
        let balancer = Balancer::start(&env, &config.server("nginx", behind));
        let mut client = connect(env.frontend());
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let (own, front) = (client.local_addr().unwrap(), env.frontend());
        let (answer, _) = read_to_end(&client);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{own} {front}")), "{version}: {answer}");
        drop(client);
        balancer.assert_no_leaks();
    }
}

fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn openssl_clients_reach_the_server_of_their_name_or_protocol() {
    if !has("openssl_clients_reach_the_server_of_their_name_or_protocol", "openssl", "version") {
        return;
    }
    let env = TestEnv::new();
    let mut servers = Vec::new();
    for (name, port) in [("one", 9001), ("two", 9002), ("three", 9003)] {
        let (key, certificate) =
            (env.file(&format!("{name}.key")), env.file(&format!("{name}.crt")));
        let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
        let subject = format!("/CN={name}");
        let made = openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            &subject,
            "-keyout",
            key,
            "-out",
            certificate,
        ]);
        assert!(made.status.success(), "{made:?}");
        let address = env.port(port);
        let mut command = Command::new("openssl");
        let accept = address.to_string();
        command.args(["s_server", "-quiet", "-accept", &accept, "-key", key, "-cert", certificate]);
        command.args(["-alpn", "h2,http/1.1", "-www"]);
        command.current_dir(env.folder());
        servers.push(Program::start(&env, &mut command, address));
    }
    let one = |name: &str, port: u16| {
        format!(
            "[backend.{name}]\nhealth.check = \"off\"\n\
             server = [{{ name = \"{name}\", address = \"{}\" }}]\n",
            env.port(port)
        )
    };
    let lines =
        "sni = { \"one.test\" = \"one\", \"*.two.test\" = \"two\" }\nalpn = { h2 = \"two\" }";
    let config = Config::new(&env).frontend(lines).server("three", env.port(9003));
    let balancer = Balancer::start(&env, &config.more(&(one("one", 9001) + &one("two", 9002))));
    for (options, expected) in [
        (["-servername", "one.test"].as_slice(), "one"),
        (&["-servername", "ONE.test", "-tls1_2"], "one"),
        (&["-servername", "x.two.test", "-alpn", "http/1.1"], "two"),
        (&["-servername", "other.test", "-alpn", "h2"], "two"),
        (&["-servername", "other.test", "-alpn", "http/1.1"], "three"),
        (&["-noservername"], "three"),
    ] {
        let connect = env.frontend().to_string();
        let arguments = [["s_client", "-connect", &connect].as_slice(), options].concat();
        let shown = openssl(&arguments);
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(text.contains(&format!("CN = {expected}")), "{options:?}: {text}");
    }
    until("every session has ended", || {
        balancer.metrics().value("evenkeel_sessions_active", &[]) == 0.0
    });
    balancer.assert_no_leaks();
}
