//! Health checks over TLS: `health.tls`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use evenkeel::sys::child::die_with_parent;

use crate::common::balancer::{PROGRAM, printed, run_command};
use crate::common::client::reset;
use crate::common::metrics::Metrics;
use crate::common::wait::holds_for;
use crate::common::{Balancer, Config, Server, TestEnv, skip, until};
use crate::health_exchange::{MASTER, until_logged};
use crate::tls_server::{Authority, Identity, TlsStream};

/// Probes ten times a second; each decides.
fn health(check: &str, tls: &str) -> String {
    format!(
        "check = \"{check}\"\ninterval = \"100ms\"\ninterval_down = \"100ms\"\ntimeout = \"1s\"\n\
         rise = 1\nfall = 1\ntls = {tls}"
    )
}

/// Answers an HTTP request.
fn ok(mut stream: TlsStream) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => request.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    drop(stream.flush());
}

/// Completes the handshake, and waits for the end.
fn hang(mut stream: TlsStream) {
    while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
}

/// evenkeel that knows the root certificates of a file.
fn start_with_roots<'a>(env: &'a TestEnv, config: &Config, file: &Path) -> Balancer<'a> {
    let mut command = run_command(env, &config.text());
    command.env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
    Balancer::start_command(env, command)
}

#[test]
fn without_verification_every_certificate_is_accepted() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let servers = [
        authority.issue(&["web.test"]).serve(env.port(9001), ok),
        authority.issue_expired(&["web.test"]).serve(env.port(9002), ok),
        Identity::self_signed(&["web.test"]).serve(env.port(9003), ok),
        Identity::self_signed(&["other.test"]).serve(env.port(9004), ok),
    ];
    let mut config = Config::new(&env).health(&health("http", "{ name = \"web.test\" }"));
    for (index, server) in servers.iter().enumerate() {
        config = config.server(&format!("s{index}"), server.address);
    }
    let balancer = Balancer::start(&env, &config);
    for index in 0..servers.len() {
        let name = format!("s{index}");
        let passed = [("server", name.as_str()), ("result", "passed")];
        balancer.metrics_until("it passes probes", |metrics| {
            metrics.sum("evenkeel_probes_total", &passed) >= 2.0
        });
    }
    let log = balancer.application_log();
    assert!(!log.contains("is down"), "{log}");
}

#[test]
fn with_verification_only_a_valid_certificate_of_that_name_is_accepted() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let good = authority.issue(&["web.test"]).serve(env.port(9001), ok);
    let expired = authority.issue_expired(&["web.test"]).serve(env.port(9002), ok);
    let unknown = Identity::self_signed(&["web.test"]).serve(env.port(9003), ok);
    let other = authority.issue(&["other.test"]).serve(env.port(9004), ok);
    let tls = "{ verify = true, name = \"web.test\" }";
    let config = Config::new(&env).health(&health("http", tls)).server("good", good.address);
    let config = config.server("expired", expired.address).server("unknown", unknown.address);
    let config = config.server("other", other.address);
    let balancer = start_with_roots(&env, &config, &authority.file(&env));
    let handshake = "TLS handshake: invalid peer certificate: ";
    for (server, why) in [
        ("expired", "certificate expired: verification time "),
        ("unknown", "UnknownIssuer (no root certificate of this machine has issued it)"),
        ("other", "certificate not valid for name \"web.test\"; certificate is only valid for "),
    ] {
        until_logged(&balancer, &format!("server web/{server} is down: {handshake}{why}"));
    }
    let metrics = balancer.metrics();
    assert!(metrics.up("good") && !metrics.up("other"));
    let failed = [("server", "other"), ("result", "bad_answer")];
    assert!(metrics.value("evenkeel_probes_total", &failed) >= 1.0);
}

#[test]
fn without_a_name_the_certificate_must_have_the_ip_address() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let ip = env.port(9001).ip().to_string();
    let by_ip = authority.issue(&[&ip]).serve(env.port(9001), ok);
    let by_name = authority.issue(&["web.test"]).serve(env.port(9002), ok);
    let config = Config::new(&env).health(&health("tcp", "{ verify = true }"));
    let config = config.server("ip", by_ip.address).server("name", by_name.address);
    let balancer = start_with_roots(&env, &config, &authority.file(&env));
    until_logged(&balancer, "server web/name is down: TLS handshake: invalid peer certificate: ");
    assert!(balancer.metrics().up("ip"));
}

#[test]
fn the_server_name_is_sent_and_an_ip_address_is_not() {
    let env = TestEnv::new();
    let (sender, names) = mpsc::channel();
    let identity = Identity::self_signed(&["web.test"]);
    let server = identity.serve(env.port(9001), move |mut stream| {
        drop(stream.read(&mut [0; 1]));
        drop(sender.send(stream.conn.server_name().map(str::to_owned)));
    });
    let config = Config::new(&env).server("a", server.address);
    let balancer = Balancer::start(&env, &config.clone().health(&health("tcp", "{}")));
    assert_eq!(names.recv().unwrap(), None);
    balancer.reload(&config.health(&health("tcp", "{ name = \"Web.Test.\" }")));
    until("the name is sent", || names.recv().unwrap().as_deref() == Some("web.test"));
}

#[test]
fn the_host_name_of_the_server_is_the_name_of_its_certificate() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    // The port is free on IPv4; without a listener on ::1, that endpoint is down.
    let server = identity.serve("127.0.0.1:0".parse().unwrap(), ok);
    let more = format!(
        "[[backend.web.server]]\nname = \"a\"\naddress = \"localhost:{}\"\n",
        server.address.port()
    );
    let config = Config::new(&env).health(&health("http", "{ verify = true }")).more(&more);
    let balancer = start_with_roots(&env, &config, &authority.file(&env));
    balancer.metrics_until("a probe has passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
    });
    assert!(balancer.metrics().up("a"));
}

#[test]
fn what_fails_in_the_handshake_or_after_it_is_in_the_log() {
    let env = TestEnv::new();
    let garbage = Server::start(env.port(9001), |mut stream| {
        drop(stream.write_all(b"220 mail.test ESMTP\r\n"));
        drop(stream.read(&mut [0; 1024]));
    });
    let closing = Server::start(env.port(9002), |mut stream| {
        drop(stream.read(&mut [0; 1024]));
    });
    let silent =
        Server::start(
            env.port(9003),
            |mut stream| {
                while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
            },
        );
    let resetting = Server::start(env.port(9004), |mut stream| {
        drop(stream.read(&mut [0; 1024]));
        reset(stream);
    });
    let hanging = Identity::self_signed(&["web.test"]).serve(env.port(9005), hang);
    let plain = Config::new(&env).server("garbage", garbage.address);
    let plain = plain.server("closing", closing.address).server("silent", silent.address);
    let plain = plain.server("resetting", resetting.address).server("hanging", hanging.address);
    let plain = plain.server("dead", env.port(9006));
    let balancer = Balancer::start(&env, &plain);
    balancer.reload(&plain.clone().health(&health("http", "{}")));
    for (server, why) in [
        (
            "garbage",
            "TLS handshake: received corrupt message of type InvalidContentType (does the server \
             speak TLS on this port?)",
        ),
        ("closing", "TLS handshake: closed by the server"),
        ("silent", "no TLS handshake within 1s"),
        ("resetting", "TLS handshake: connection reset by peer"),
        ("hanging", "no answer within 1s"),
        ("dead", "connection refused"),
    ] {
        until_logged(&balancer, &format!("server web/{server} is down: {why} (first probe)"));
    }
    balancer.reload(&plain);
    balancer.assert_no_leaks();
}

#[test]
fn with_a_tcp_check_the_handshake_is_the_check() {
    let env = TestEnv::new();
    let identity = Identity::self_signed(&["web.test"]);
    let mut server = identity.serve(env.port(9001), hang);
    let config = Config::new(&env).health(&health("tcp", "{}")).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    until("the probe is shown", || {
        balancer.control_ok(&["status"]).contains("TLS handshake completed")
    });
    assert!(balancer.metrics().up("a"));
    server.kill();
    let _plain = Server::http("a", env.port(9001));
    until_logged(&balancer, "server web/a is down: ");
    // The first failed probe may have been one that the old server reset when it ended.
    until("a probe has reached the new server", || {
        balancer.control_ok(&["status"]).contains("does the server speak TLS")
    });
}

#[test]
fn without_root_certificates_verification_is_refused() {
    let env = TestEnv::new();
    let server = Identity::self_signed(&["web.test"]).serve(env.port(9001), ok);
    let plain = Config::new(&env).server("a", server.address);
    let verifying = plain.clone().health(&health("http", "{ verify = true }"));
    let said = "health.tls: verify = true: this machine has no root certificates (";
    let without = |arguments: &[&str], text: &str| {
        let mut command = run_command(&env, text);
        if !arguments.is_empty() {
            command = Command::new(PROGRAM);
            command.args(arguments).arg("-c").arg(env.file("evenkeel.toml"));
        }
        command.env("SSL_CERT_FILE", env.file("missing.pem")).env_remove("SSL_CERT_DIR");
        command
    };
    let output = without(&[], &verifying.text()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains(said), "{}", printed(&output));
    let output = without(&["check"], &verifying.text()).output().unwrap();
    assert!(output.status.success() && printed(&output).contains(said), "{}", printed(&output));
    // A reload changes nothing.
    let balancer = Balancer::start_command(&env, without(&[], &plain.text()));
    balancer.rewrite(&verifying.text());
    let output = balancer.control(&["reload"]);
    assert!(!output.status.success() && printed(&output).contains(said), "{}", printed(&output));
    // The file is read again at each reload.
    let authority = Authority::new();
    fs::rename(authority.file(&env), env.file("missing.pem")).unwrap();
    balancer.reload(&verifying);
    until_logged(&balancer, "server web/a is down: TLS handshake: invalid peer certificate");
}

#[test]
fn a_dry_run_or_a_rejected_reload_does_not_change_the_root_certificates() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let server = authority.issue(&["web.test"]).serve(env.port(9001), ok);
    let taken = Server::echo(env.port(8002));
    let tls = "{ verify = true, name = \"web.test\" }";
    let config = Config::new(&env).health(&health("http", tls)).server("a", server.address);
    let balancer = start_with_roots(&env, &config, &authority.file(&env));
    let passes = |what: &str| {
        let passed = |metrics: &Metrics| {
            metrics.sum("evenkeel_probes_total", &[("server", "a"), ("result", "passed")])
        };
        // One probe may be under way.
        let before = passed(&balancer.metrics());
        balancer.metrics_until(what, |metrics| passed(metrics) >= before + 3.0);
        assert!(!balancer.application_log().contains("is down"), "{}", balancer.application_log());
    };
    passes("it is up");
    Authority::new().file(&env);
    balancer.control_ok(&["reload", "--dry-run"]);
    passes("it is up after the dry run");
    let more = format!("[frontend.taken]\nbind = [\"{}\"]\nbackend = \"web\"\n", taken.address);
    balancer.rewrite(&config.clone().more(&more).text());
    let output = balancer.control(&["reload"]);
    assert!(!output.status.success(), "{}", printed(&output));
    passes("it is up after the rejected reload");
    balancer.reload(&config);
    until_logged(&balancer, "server web/a is down: TLS handshake: invalid peer certificate");
}

/// A program that is ended with the test.
struct Program(Child);

impl Program {
    /// None: it is not installed.
    fn start(mut command: Command, env: &TestEnv, port: u16) -> Option<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        die_with_parent(&mut command);
        let program = Self(command.spawn().ok()?);
        until("it listens", || TcpStream::connect(env.port(port)).is_ok());
        Some(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_redis_master_with_tls_and_auth_is_up() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["redis.test"]).files(env.folder());
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--tls-port", "9001", "--tls-auth-clients", "no", "--save", ""]);
    command.args(["--bind", &env.port(9001).ip().to_string(), "--requirepass", "secret"]);
    command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
    command.arg("--tls-ca-cert-file").arg(authority.file(&env)).arg("--dir").arg(env.folder());
    let Some(_redis) = Program::start(command, &env, 9001) else {
        return skip("a_redis_master_with_tls_and_auth_is_up", "no redis-server");
    };
    let tls = "{ verify = true, name = \"redis.test\" }";
    let health = format!("{}\nexchange = {MASTER}", health("exchange", tls));
    let config = Config::new(&env).health(&health).server("a", env.port(9001));
    let balancer = start_with_roots(&env, &config, &authority.file(&env));
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 3.0
    });
    assert!(holds_for(Duration::from_millis(300), || balancer.metrics().up("a")));
    assert!(!balancer.application_log().contains("is down"), "{}", balancer.application_log());
}

#[test]
fn an_api_behind_nginx_is_up_while_readyz_says_so() {
    let env = TestEnv::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["kubernetes"]).files(env.folder());
    let configuration = format!(
        "daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path \
         {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; \
         scgi_temp_path {folder}/scgi;\n\
         server {{ listen {address} ssl; ssl_certificate {certificate};\n\
         ssl_certificate_key {key}; location /readyz {{ root {folder}/web; }} }} }}\n",
        folder = env.folder().display(),
        address = env.port(9001),
        certificate = certificate.display(),
        key = key.display(),
    );
    fs::create_dir(env.file("web")).unwrap();
    fs::write(env.file("web/readyz"), "ok").unwrap();
    fs::write(env.file("nginx.conf"), configuration).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(env.file("nginx.conf")).arg("-e").arg(env.file("error.log"));
    let Some(_nginx) = Program::start(command, &env, 9001) else {
        return skip("an_api_behind_nginx_is_up_while_readyz_says_so", "no nginx");
    };
    let health = health("http", "{ verify = true, name = \"kubernetes\" }");
    let health = format!("{health}\nhttp = {{ path = \"/readyz\", status = \"200\" }}");
    let config = Config::new(&env).health(&health).server("a", env.port(9001));
    let balancer = start_with_roots(&env, &config, &authority.file(&env));
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
    });
    fs::remove_file(env.file("web/readyz")).unwrap();
    until_logged(&balancer, "server web/a is down: status 404, expected 200 (1 of 1 probes)");
    fs::write(env.file("web/readyz"), "ok").unwrap();
    until_logged(&balancer, "server web/a is up: status 200 (1 in a row)");
}

#[test]
fn a_certificate_of_version_1_is_accepted_without_verification() {
    let env = TestEnv::new();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(env.folder()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let request = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=web.test"];
    if !run(&[&request[..], &["-keyout", "v1.key", "-out", "v1.csr"]].concat()) {
        let test = "a_certificate_of_version_1_is_accepted_without_verification";
        return skip(test, "no openssl");
    }
    // Without extensions it is one of version 1.
    assert!(run(&["x509", "-req", "-in", "v1.csr", "-signkey", "v1.key", "-out", "v1.pem"]));
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &env.port(9001).to_string()]);
    command.args(["-cert", "v1.pem", "-key", "v1.key"]).current_dir(env.folder());
    let _server = Program::start(command, &env, 9001).unwrap();
    let config = Config::new(&env).health(&health("http", "{}")).server("a", env.port(9001));
    let balancer = Balancer::start(&env, &config);
    balancer.metrics_until("probes have passed", |metrics| {
        metrics.sum("evenkeel_probes_total", &[("result", "passed")]) >= 2.0
    });
    assert!(!balancer.application_log().contains("is down"), "{}", balancer.application_log());
}
