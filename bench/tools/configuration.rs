//! Configuration files of the subjects: each program's own defaults, except for what is the same
//! for all (addresses, round robin, no log, no checks) and what the subject is named after.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::features::Feature;
use crate::process::Host;

/// What a subject is set up for.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) servers: Vec<SocketAddr>,
    /// Threads, or processes.
    pub(crate) workers: usize,
    /// The cores that workers are pinned to, one each; empty: not pinned.
    pub(crate) cores: Vec<usize>,
    /// Frontends; the generator uses the last one.
    pub(crate) frontends: usize,
    pub(crate) sessions_max: usize,
    /// Time between two TCP probes of each server.
    pub(crate) probes: Option<Duration>,
    /// Address of the metrics; without one, there is no control socket either.
    pub(crate) observe: Option<SocketAddr>,
    pub(crate) feature: Feature,
    /// The `ClientHello` before each request, if there is one.
    pub(crate) hello: &'static [u8],
    /// The address to listen on; loopback otherwise.
    pub(crate) listen: Option<IpAddr>,
    pub(crate) host: Host,
    /// Its control group.
    pub(crate) group: Option<PathBuf>,
}

impl Setup {
    /// One worker and one frontend.
    pub(crate) fn plain(servers: &[SocketAddr], sessions_max: usize) -> Self {
        Self {
            servers: servers.to_vec(),
            workers: 1,
            cores: Vec::new(),
            frontends: 1,
            sessions_max,
            probes: None,
            observe: None,
            feature: Feature::RoundRobin,
            hello: &[],
            listen: None,
            host: Host::default(),
            group: None,
        }
    }

    /// A line for each server.
    fn servers(&self, line: impl Fn(usize, &SocketAddr) -> String) -> String {
        self.servers.iter().enumerate().map(|(index, server)| line(index, server)).collect()
    }
}

/// A line for each frontend.
fn frontends(addresses: &[SocketAddr], line: impl Fn(usize, &SocketAddr) -> String) -> String {
    addresses.iter().enumerate().map(|(index, address)| line(index, address)).collect()
}

/// The control socket of the subject that has one, in the folder of the bench.
pub(crate) const CONTROL: &str = "control.sock";

/// For `evenkeel run -c`; `global` are lines of its section `global`.
pub(crate) fn evenkeel(
    setup: &Setup,
    addresses: &[SocketAddr],
    folder: &Path,
    global: &str,
) -> String {
    let (workers, pin) = (setup.workers, !setup.cores.is_empty());
    let observe = setup.observe.map_or_else(
        || "bind = false\ncontrol = false".to_owned(),
        |address| format!("bind = \"{address}\"\ncontrol = {:?}", folder.join(CONTROL)),
    );
    let [balance, frontend, backend] = setup.feature.evenkeel();
    let frontends = frontends(addresses, |index, address| {
        format!("[frontend.f{index}]\nbind = [\"{address}\"]\n{frontend}")
    });
    let check = setup.probes.map_or_else(
        || "check = \"off\"".to_owned(),
        |every| format!("check = \"tcp\"\ninterval = \"{}ms\"", every.as_millis()),
    );
    let servers = setup.servers(|index, server| {
        format!("[[backend.bench.server]]\nname = \"server{index}\"\naddress = \"{server}\"\n")
    });
    format!(
        "[global]\nworkers = {workers}\npin = {pin}\n{global}[observe]\n{observe}\n\
         [observe.log]\nsessions = false\n{frontends}[backend.bench]\nbalance = \"{balance}\"\n\
         {backend}[backend.bench.health]\n{check}\n{servers}"
    )
}

/// For `haproxy -f`.
pub(crate) fn haproxy(
    setup: &Setup,
    addresses: &[SocketAddr],
    folder: &Path,
    [global, defaults]: [&str; 2],
) -> String {
    let (workers, sessions) = (setup.workers, setup.sessions_max);
    let pinned = setup.cores.iter().enumerate();
    let pinned: String =
        pinned.map(|(index, core)| format!("    cpu-map 1/{} {core}\n", index + 1)).collect();
    let [balance, frontend, server] = setup.feature.haproxy();
    let frontends = frontends(addresses, |index, address| {
        format!(
            "frontend f{index}\n    bind {address} maxconn {sessions} backlog 4096\n    \
             maxconn {sessions}\n{frontend}"
        )
    });
    let [control, metrics] = setup.observe.map_or_else(Default::default, |address| {
        [
            format!("    stats socket {}\n", folder.join(CONTROL).display()),
            format!(
                "frontend metrics\n    mode http\n    bind {address}\n    \
                 http-request use-service prometheus-exporter\n"
            ),
        ]
    });
    let check = setup.probes.map(|every| format!(" check inter {}ms", every.as_millis()));
    let check = check.unwrap_or_default();
    let servers = setup
        .servers(|index, address| format!("    server server{index} {address}{check}{server}\n"));
    format!(
        "global\n    nbthread {workers}\n    maxconn {sessions}\n{pinned}{control}{global}\
         defaults\n    mode tcp\n    timeout connect 3s\n    timeout client 5m\n    \
         timeout server 5m\n{defaults}{frontends}{metrics}backend bench\n    \
         balance {balance}\n{servers}"
    )
}

/// Where Debian keeps the module; elsewhere it is often compiled in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// For `nginx -c`. One worker needs no master process; several share the port, as the manual of
/// nginx advises.
pub(crate) fn nginx(setup: &Setup, addresses: &[SocketAddr], folder: &Path) -> String {
    let module = if Path::new(STREAM_MODULE).exists() {
        format!("load_module {STREAM_MODULE};\n")
    } else {
        String::new()
    };
    let masks: String = setup.cores.iter().map(|core| format!(" {:b}", 1_u64 << core)).collect();
    let pinned = if masks.is_empty() { masks } else { format!("worker_cpu_affinity{masks};\n") };
    let (master, shared) = if setup.workers > 1 { ("on", " reuseport") } else { ("off", "") };
    let servers = setup.servers(|_, server| format!("        server {server} max_fails=0;\n"));
    let frontends = frontends(addresses, |_, address| {
        format!(
            "    server {{\n        listen {address} backlog=4096{shared};\n        \
             proxy_pass bench;\n        proxy_connect_timeout 3s;\n        \
             proxy_timeout 5m;\n    }}\n"
        )
    });
    format!(
        "{module}daemon off;\nmaster_process {master};\nworker_processes {};\npid {};\n\
         error_log stderr crit;\n{pinned}events {{\n    worker_connections {};\n}}\n\
         stream {{\n    upstream bench {{\n{servers}    }}\n{frontends}}}\n",
        setup.workers,
        folder.join("nginx.pid").display(),
        2 * setup.sessions_max + 100,
    )
}
