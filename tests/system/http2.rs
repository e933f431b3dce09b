//! HTTP/2 over TLS: nghttpd, with curl and h2load as clients; one name for each backend.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::certificate::Certificate;
use crate::common::{Balancer, Config, TestEnv};
use crate::program::{Program, run, run_text};
use crate::support::{assert_same, command, has_programs, noise};

const PROGRAMS: [&str; 3] = ["nghttpd", "h2load", "curl"];

/// A web server with a page `/name` that tells its name.
#[derive(Debug)]
struct Web {
    address: SocketAddr,
    certificate: Certificate,
    _server: Program,
}

impl Web {
    fn start(env: &TestEnv, name: &str, port: u16) -> Self {
        let address = env.port(port);
        let certificate = Certificate::new(env, &[&format!("{name}.test")]);
        let folder = env.file(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("name"), name).unwrap();
        fs::write(folder.join("large"), noise(20 << 20)).unwrap();
        let mut server = command("nghttpd");
        server.args(["-a", &address.ip().to_string(), "-d"]).arg(folder);
        server.arg(port.to_string()).args([&certificate.key_file, &certificate.file]);
        let mut server = Program::start(env, server);
        server.until_listens(address);
        Self { address, certificate, _server: server }
    }
}

/// Requests `path` of `host` over the frontend by HTTP/2; without a file, any certificate will do.
fn curl(env: &TestEnv, host: &str, path: &str, certificate: Option<&Path>) -> Command {
    let frontend = env.frontend();
    let port = frontend.port();
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "30"]);
    curl.args(["--http2", "--resolve", &format!("{host}:{port}:{}", frontend.ip())]);
    match certificate {
        Some(file) => curl.arg("--cacert").arg(file),
        None => curl.arg("--insecure"),
    };
    curl.arg(format!("https://{host}:{port}/{path}"));
    curl
}

/// Many requests for the page of a name, over few connections.
fn load(env: &TestEnv, host: &str) -> String {
    let mut h2load = command("h2load");
    h2load.args(["-n", "2000", "-c", "10", "-m", "20"]);
    h2load.arg(format!("--connect-to={}", env.frontend()));
    h2load.arg(format!("https://{host}/name"));
    run_text(env, h2load)
}

#[test]
fn many_streams_of_http_2_over_tls_share_a_session() {
    if !has_programs("many_streams_of_http_2_over_tls_share_a_session", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let web = Web::start(&env, "one", 4431);
    let balancer = Balancer::start(&env, &Config::new(&env).server("one", web.address));
    let mut page = curl(&env, "one.test", "name", Some(&web.certificate.file));
    page.args(["--write-out", " by HTTP/%{http_version}"]);
    assert_eq!(run_text(&env, page), "one by HTTP/2");
    let large = run(&env, curl(&env, "one.test", "large", Some(&web.certificate.file)));
    assert_same(&large, &noise(20 << 20));
    let report = load(&env, "one.test");
    assert!(report.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.value("evenkeel_sessions_total", &[]), 12.0);
}

#[test]
fn the_server_name_of_tls_chooses_the_backend() {
    let name = "the_server_name_of_tls_chooses_the_backend";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (one, two) = (env.port(4431), env.port(4432));
    let names = r#"sni = { "one.test" = "web", "two.test" = "two", "*.two.test" = "two" }"#;
    let second = format!(
        "[backend.two.health]\ncheck = \"off\"\n\
         [[backend.two.server]]\nname = \"two\"\naddress = \"{two}\"\n"
    );
    let config = Config::new(&env).workers(2).frontend(names).server("one", one).more(&second);
    let [one, two] =
        [("one", 4431), ("two", 4432)].map(|(name, port)| Web::start(&env, name, port));
    let balancer = Balancer::start(&env, &config);
    for _ in 0..3 {
        for (name, web) in [("one", &one), ("two", &two)] {
            let host = format!("{name}.test");
            let mut page = curl(&env, &host, "name", Some(&web.certificate.file));
            page.args(["--write-out", " by HTTP/%{http_version}"]);
            assert_eq!(run_text(&env, page), format!("{name} by HTTP/2"));
        }
    }
    assert_eq!(run_text(&env, curl(&env, "any.two.test", "name", None)), "two");
    assert_eq!(run_text(&env, curl(&env, "other.test", "name", None)), "one", "of the frontend");
    let large = run(&env, curl(&env, "two.test", "large", Some(&two.certificate.file)));
    assert_same(&large, &noise(20 << 20));
    let report = load(&env, "two.test");
    assert!(report.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
    let metrics = balancer.assert_no_leaks();
    let sessions = |server| metrics.sum("evenkeel_server_sessions_total", &[("server", server)]);
    assert_eq!((sessions("one"), sessions("two")), (4.0, 15.0));
}
