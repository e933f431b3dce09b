//! Servers as the API servers of a Kubernetes cluster are: HTTPS with certificates of their own,
//! and a page that tells whether they are ready.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::certificate::Certificate;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::program::{Program, run_text};
use crate::support::{command, has_programs};

const PROGRAMS: [&str; 2] = ["nginx", "curl"];

/// The name in the certificates.
const NAME: &str = "kubernetes.test";

/// nginx keeps these folders for requests.
const FOLDERS: [&str; 5] = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// Probes that notice a change soon.
const QUICK: &str = "interval = \"100ms\"\ninterval_down = \"100ms\"\ntimeout = \"1s\"\n\
                     rise = 2\nfall = 2\ntls = { verify = false }\n";

/// An API server. Its /readyz answers 500 unless it is ready.
#[derive(Debug)]
struct ApiServer {
    ready: PathBuf,
    _server: Program,
}

impl ApiServer {
    fn start(env: &TestEnv, name: &str, address: SocketAddr, certificate: &Certificate) -> Self {
        let folder = env.file(name);
        fs::create_dir(&folder).unwrap();
        let folders =
            FOLDERS.map(|kind| format!("  {kind}_temp_path {}/{kind};\n", folder.display()));
        let text = format!(
            "daemon off;\nmaster_process off;\nerror_log stderr;\npid {folder}/pid;\n\
             events {{ worker_connections 256; }}\nhttp {{\n  access_log off;\n{}  server {{\n\
             \x20   listen {address} ssl;\n    ssl_certificate {};\n    ssl_certificate_key {};\n\
             \x20   root {folder};\n    location = /readyz {{ try_files /ready =500; }}\n\
             \x20   location / {{ return 200 \"{name}\\n\"; }}\n  }}\n}}\n",
            folders.concat(),
            certificate.file.display(),
            certificate.key_file.display(),
            folder = folder.display(),
        );
        let config = folder.join("nginx.conf");
        fs::write(&config, text).unwrap();
        let mut nginx = command("nginx");
        nginx.args(["-e", "stderr", "-c"]).arg(config);
        let mut server = Program::start(env, nginx);
        server.until_listens(address);
        Self { ready: folder.join("ready"), _server: server }
    }

    fn set_ready(&self, ready: bool) {
        if ready {
            fs::write(&self.ready, "ok").unwrap();
        } else {
            fs::remove_file(&self.ready).unwrap();
        }
    }
}

/// The name of the server that answers, whose certificate must be valid.
fn page(env: &TestEnv, certificate: &Certificate) -> String {
    let frontend = env.frontend();
    let port = frontend.port();
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "30"]);
    curl.args(["--resolve", &format!("{NAME}:{port}:{}", frontend.ip()), "--cacert"]);
    curl.arg(&certificate.file).arg(format!("https://{NAME}:{port}/api"));
    run_text(env, curl)
}

#[test]
fn a_server_that_answers_500_on_readyz_over_tls_gets_no_traffic() {
    let name = "a_server_that_answers_500_on_readyz_over_tls_gets_no_traffic";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (a, b) = (env.port(6443), env.port(6444));
    let health = format!("check = \"http\"\n{QUICK}http = {{ path = \"/readyz\" }}");
    let config = Config::new(&env).workers(2).health(&health).server("a", a).server("b", b);
    let certificate = Certificate::new(&env, &[NAME]);
    let [a, b] = [("a", a), ("b", b)]
        .map(|(name, address)| ApiServer::start(&env, name, address, &certificate));
    a.set_ready(true);
    let balancer = Balancer::start(&env, &config);
    let up = |server: &str| balancer.metrics().up(server);
    until("one of them is up", || up("a") && !up("b"));
    for _ in 0..10 {
        assert_eq!(page(&env, &certificate), "a");
    }
    b.set_ready(true);
    until("both are up", || up("a") && up("b"));
    let mut pages: Vec<_> = (0..10).map(|_| page(&env, &certificate)).collect();
    pages.sort();
    assert_eq!(pages.concat(), "aaaaabbbbb");
    a.set_ready(false);
    until("the other one is up", || !up("a") && up("b"));
    for _ in 0..10 {
        assert_eq!(page(&env, &certificate), "b");
    }
    balancer.assert_no_leaks();
}

#[test]
fn with_check_tcp_and_tls_the_handshake_is_the_check() {
    let name = "with_check_tcp_and_tls_the_handshake_is_the_check";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    // It accepts connections and does not speak TLS.
    let plain = Server::echo(env.port(6444));
    let address = env.port(6443);
    let health = format!("check = \"tcp\"\n{QUICK}");
    let config = Config::new(&env).health(&health);
    let config = config.server("api", address).server("plain", plain.address);
    let certificate = Certificate::new(&env, &[NAME]);
    let _api = ApiServer::start(&env, "api", address, &certificate);
    let balancer = Balancer::start(&env, &config);
    let up = |server: &str| balancer.metrics().up(server);
    until("only the API server is up", || up("api") && !up("plain"));
    for _ in 0..4 {
        assert_eq!(page(&env, &certificate), "api");
    }
}
