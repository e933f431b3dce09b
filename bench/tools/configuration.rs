//! The configurations of the subjects: each program's own defaults, but for what is the same for
//! all (one address, the servers in turn, no log, no checks) and what the subject is named after.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a subject is set up for.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Behind it, in turn.
    pub(crate) servers: Vec<SocketAddr>,
    /// Threads or processes that work.
    pub(crate) workers: usize,
    /// The cores that workers are pinned to, one each; none: not pinned.
    pub(crate) cores: Vec<usize>,
    /// Frontends; clients use the last.
    pub(crate) frontends: usize,
    /// Sessions that it is told to have room for.
    pub(crate) sessions_max: usize,
    /// Probe each server every so many seconds, by connecting.
    pub(crate) probes: Option<u32>,
    /// evenkeel's control socket and scrapes, at this address.
    pub(crate) observe: Option<SocketAddr>,
    /// Where it listens, if it matters; a free port of loopback otherwise.
    pub(crate) listen: Option<SocketAddr>,
    /// The process whose network namespace it runs in; this one's otherwise.
    pub(crate) enter: Option<u32>,
    /// The control group that it is put into.
    pub(crate) group: Option<PathBuf>,
}

impl Setup {
    /// One worker, one frontend, nothing else.
    pub(crate) fn plain(servers: &[SocketAddr], sessions_max: usize) -> Self {
        Self {
            servers: servers.to_vec(),
            workers: 1,
            cores: Vec::new(),
            frontends: 1,
            sessions_max,
            probes: None,
            observe: None,
            listen: None,
            enter: None,
            group: None,
        }
    }
}

/// For `evenkeel run -c`. The last of `addresses` is what clients use.
pub(crate) fn evenkeel(setup: &Setup, addresses: &[SocketAddr], folder: &Path) -> String {
    let mut text = format!("[global]\nworkers = {}\n", setup.workers);
    if !setup.cores.is_empty() {
        // The process has those cores and no others.
        text.push_str("pin = true\n");
    }
    text.push_str("[observe]\n");
    match setup.observe {
        Some(address) => {
            let control = folder.join("control.sock");
            put(&mut text, format_args!("bind = \"{address}\"\ncontrol = {control:?}\n"));
        }
        None => text.push_str("bind = false\ncontrol = false\n"),
    }
    text.push_str("[observe.log]\nsessions = false\n");
    for (index, address) in addresses.iter().enumerate() {
        put(
            &mut text,
            format_args!("[frontend.f{index}]\nbind = [\"{address}\"]\nbackend = \"bench\"\n"),
        );
    }
    text.push_str("[backend.bench]\nbalance = \"roundrobin\"\n[backend.bench.health]\n");
    match setup.probes {
        Some(seconds) => {
            put(&mut text, format_args!("check = \"tcp\"\ninterval = \"{seconds}s\"\n"));
        }
        None => text.push_str("check = \"off\"\n"),
    }
    for (index, server) in setup.servers.iter().enumerate() {
        put(
            &mut text,
            format_args!(
                "[[backend.bench.server]]\nname = \"server{index}\"\naddress = \"{server}\"\n"
            ),
        );
    }
    text
}

/// For `haproxy -db -f`; with lines for `global` and for `defaults`.
pub(crate) fn haproxy(
    setup: &Setup,
    addresses: &[SocketAddr],
    global: &str,
    defaults: &str,
) -> String {
    let most = setup.sessions_max;
    let mut pinned = String::new();
    for (index, core) in setup.cores.iter().enumerate() {
        put(&mut pinned, format_args!("    cpu-map 1/{} {core}\n", index + 1));
    }
    let mut text = format!(
        "global\n    nbthread {}\n    maxconn {most}\n{pinned}{global}\
         defaults\n    mode tcp\n    timeout connect 3s\n    timeout client 5m\n    \
         timeout server 5m\n{defaults}",
        setup.workers
    );
    for (index, address) in addresses.iter().enumerate() {
        put(
            &mut text,
            format_args!(
                "frontend f{index}\n    bind {address} maxconn {most} backlog 4096\n    \
                 maxconn {most}\n    default_backend bench\n"
            ),
        );
    }
    text.push_str("backend bench\n    balance roundrobin\n");
    let check = setup.probes.map(|seconds| format!(" check inter {seconds}s")).unwrap_or_default();
    for (index, server) in setup.servers.iter().enumerate() {
        put(&mut text, format_args!("    server server{index} {server}{check}\n"));
    }
    text
}

/// Where Debian keeps the module; elsewhere it is often compiled in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// For `nginx -c`.
pub(crate) fn nginx(setup: &Setup, addresses: &[SocketAddr], folder: &Path) -> String {
    let mut text = String::new();
    if Path::new(STREAM_MODULE).exists() {
        put(&mut text, format_args!("load_module {STREAM_MODULE};\n"));
    }
    let pid = folder.join("nginx.pid");
    // One worker needs no master; with several they share the port, as its manual advises.
    let masks = setup.cores.iter().map(|core| format!(" {:b}", 1_u64 << core));
    let pinned = match masks.collect::<String>() {
        none if none.is_empty() => none,
        masks => format!("worker_cpu_affinity{masks};\n"),
    };
    let (master, shared) = if setup.workers > 1 { ("on", " reuseport") } else { ("off", "") };
    put(
        &mut text,
        format_args!(
            "daemon off;\nmaster_process {master};\nworker_processes {};\npid {};\n\
             error_log stderr crit;\n{pinned}events {{\n    worker_connections {};\n}}\n\
             stream {{\n    upstream bench {{\n",
            setup.workers,
            pid.display(),
            2 * setup.sessions_max + 100
        ),
    );
    for server in &setup.servers {
        put(&mut text, format_args!("        server {server} max_fails=0;\n"));
    }
    text.push_str("    }\n");
    for address in addresses {
        put(
            &mut text,
            format_args!(
                "    server {{\n        listen {address} backlog=4096{shared};\n        \
                 proxy_pass bench;\n        proxy_connect_timeout 3s;\n        \
                 proxy_timeout 5m;\n    }}\n"
            ),
        );
    }
    text.push_str("}\n");
    text
}

/// Arguments of `pen`: in the foreground, servers in turn, epoll.
pub(crate) fn pen(setup: &Setup, address: SocketAddr) -> Vec<String> {
    let most = setup.sessions_max.to_string();
    let fixed = ["-f", "-r", "-O", "epoll", "-c", &most, "-x", &most];
    let mut arguments: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
    arguments.push(address.to_string());
    arguments.extend(setup.servers.iter().map(ToString::to_string));
    arguments
}

/// To a `String`, which takes everything.
fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).ok();
}
