//! The limits and settings of this machine, compared with what a configuration needs.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use nix::unistd::{SysconfVar, sysconf};

use crate::config::{self, BackendSettings, Config, ServerAddress};
use crate::doctor::finding::Finding;
use crate::doctor::start;
use crate::proxy::PIPES_PER_WORKER;
use crate::run::limits;
use crate::sys::features::rings_that_fit;
use crate::sys::pipe::size_of_each;
use crate::terms::counted;

/// What the configuration needs of this machine.
#[derive(Debug)]
struct Needs {
    /// The largest backlog of the frontends.
    backlog: u64,
    /// The number of pairs of source and server address: each has its own range of local ports.
    pairs: u64,
    /// The ports of frontends, and of servers on this machine.
    local_ports: Vec<u16>,
}

/// So many pairs have ports for every session: the address of each client is a source.
const PAIRS_ENOUGH: u64 = 1 << 32;

/// A limit below this is worth a warning if nobody has chosen it.
const SESSIONS_FEW: u32 = 1000;

impl Needs {
    fn of(config: &Config) -> Self {
        let servers = config.backends.iter().flat_map(|backend| &backend.servers);
        let binds = config.frontends.iter().flat_map(|frontend| &frontend.bind);
        let addresses = binds.flat_map(|(bind, _)| bind.addresses());
        let mut local_ports: Vec<u16> = addresses.filter_map(|one| one.port()).collect();
        local_ports.extend(servers.clone().filter_map(|server| local_port(&server.address)));
        local_ports.sort_unstable();
        local_ports.dedup();
        let backlogs = config.frontends.iter().map(|frontend| u64::from(frontend.backlog));
        let pairs = config.backends.iter().map(|backend| pairs(backend)).sum();
        Self { backlog: backlogs.max().unwrap_or(0), pairs, local_ports }
    }
}

/// The pairs of source and server address of a backend. How many addresses a host name or an SRV
/// name has is not known here: one.
fn pairs(backend: &BackendSettings) -> u64 {
    let sources = |is_usable: &dyn Fn(IpAddr) -> bool| {
        let usable = backend.source.addresses().filter(|(source, _)| is_usable(source.ip()));
        (usable.count() as u64).max(1)
    };
    let servers = backend.servers.iter().map(|server| match &server.address {
        ServerAddress::Ip(address) => {
            let is_ipv4 = address.ip().to_canonical().is_ipv4();
            sources(&|source| source.is_ipv4() == is_ipv4)
        }
        ServerAddress::Name { .. } => sources(&|_| true),
        ServerAddress::Unix(_) => 0,
    });
    let srv = backend.srv.iter().map(|_| sources(&|_| true));
    let pairs = servers.chain(srv).sum();
    if backend.source.client().is_some() && pairs > 0 { PAIRS_ENOUGH } else { pairs }
}

/// What `config` needs, or, without one, what the `defaults` need. `rings`: whether a ring can be
/// made here.
pub(super) fn examine(config: Option<&Config>, defaults: &Config, rings: bool) -> Vec<Finding> {
    let needs = config.map_or_else(
        || Needs { pairs: 0, local_ports: Vec::new(), ..Needs::of(defaults) },
        Needs::of,
    );
    let config = config.unwrap_or(defaults);
    let cores = limits::cores().len();
    let wanted = config.global.workers.map(|workers| workers.get() as usize);
    let workers = wanted.unwrap_or(cores);
    let budget = start::budget(config);
    let hard = budget.descriptors;
    let sessions = budget.sessions_max(config, |_| 1);
    let fewest = config.global.sessions_max.map_or(SESSIONS_FEW, |(number, _)| number.get());
    let needed = budget.needed(config, |_| 1, fewest);
    let mut findings =
        vec![cores_finding(cores, wanted), descriptors(hard, needed, sessions.as_ref())];
    let sessions = sessions.unwrap_or(0);
    if rings {
        // As `run` does before it makes its own.
        limits::raise_locked_memory();
        let remedy = limits::locked_memory_remedy(workers, sessions);
        findings.push(memlock(workers, rings_that_fit(workers, sessions), remedy));
    }
    let read = |key: &'static str, check: &dyn Fn(&str) -> Option<Finding>| {
        let text = fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/")));
        text.ok()
            .and_then(|text| check(text.trim()))
            .unwrap_or_else(|| Finding::unknown(key, "cannot be read here"))
    };
    let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
    let reserved = reserved.unwrap_or_default();
    let each = u64::from(size_of_each(workers * usize::from(PIPES_PER_WORKER)));
    findings.extend([
        read("net.core.somaxconn", &|text| Some(somaxconn(text.parse().ok()?, needs.backlog))),
        read("net.ipv4.ip_local_port_range", &|text| {
            Some(port_range(&range(text)?, sessions.into(), needs.pairs))
        }),
        read("net.ipv4.ip_local_port_range", &|text| {
            Some(own_ports(&range(text)?, reserved.trim(), &needs.local_ports))
        }),
        read("net.ipv4.tcp_congestion_control", &|text| Some(congestion_control(text))),
        read("net.ipv4.tcp_migrate_req", &|text| Some(migrate_req(text))),
        read("fs.pipe-max-size", &|text| Some(pipe_size(text.parse().ok()?, each))),
        read("fs.pipe-user-pages-soft", &|text| {
            Some(pipe_pages(text.parse().ok()?, each / page_size()?, workers))
        }),
    ]);
    findings
}

/// Every key at its default. Its addresses are placeholders.
///
/// # Errors
/// It cannot be made.
pub(super) fn defaults() -> io::Result<Config> {
    let (bind, server) = ("127.0.0.1:80".to_owned(), "127.0.0.1:81".to_owned());
    config::from_arguments(&[bind], &[server])
        .map_err(|problems| io::Error::other(problems.to_string()))
}

fn cores_finding(cores: usize, workers: Option<usize>) -> Finding {
    let subject = "cores";
    match workers {
        Some(workers) if workers > cores => Finding::warning(
            subject,
            format!("{workers} workers share {}, and compete for CPU time", counted(cores, "core")),
            "global.workers = \"auto\"",
        ),
        Some(1) => Finding::ok(subject, format!("{cores} available, for one worker")),
        Some(workers) => {
            Finding::ok(subject, format!("{cores} available, for {}", counted(workers, "worker")))
        }
        None => Finding::ok(subject, format!("{cores} available, one worker for each")),
    }
}

/// `needed`: for the configured sessions, or for a few if the configuration sets no number.
/// `sessions`: how many sessions the hard limit allows, as `run` calculates it, or its error.
fn descriptors(hard: u64, needed: u64, sessions: Result<&u32, &String>) -> Finding {
    let subject = "file descriptors";
    let remedy = format!("ulimit -n {needed} (or LimitNOFILE={needed} in the service)");
    match sessions {
        Err(refusal) => Finding::failed(subject, refusal.clone(), remedy),
        Ok(sessions) => {
            let text = format!("the hard limit of {hard} is enough for {sessions} sessions");
            if hard < needed {
                Finding::warning(subject, text, remedy)
            } else {
                Finding::ok(subject, text)
            }
        }
    }
}

fn memlock(workers: usize, (whole, small): (usize, usize), remedy: String) -> Finding {
    let subject = "locked memory";
    if whole >= workers {
        return Finding::ok(subject, format!("enough for {workers} rings (tried as this user)"));
    }
    let text = format!(
        "RLIMIT_MEMLOCK is enough for {whole} of {workers} rings of full size (tried as this user)"
    );
    if small >= workers {
        return Finding::warning(subject, format!("{text}; workers use smaller rings"), remedy);
    }
    Finding::failed(subject, format!("{text}, and for {small} of the smallest size"), remedy)
}

fn somaxconn(somaxconn: u64, backlog: u64) -> Finding {
    let subject = "net.core.somaxconn";
    if somaxconn >= backlog {
        return Finding::ok(subject, format!("{somaxconn}, enough for a backlog of {backlog}"));
    }
    Finding::warning(
        subject,
        format!(
            "{somaxconn} limits the backlog of {backlog}: in a burst of connections, the kernel \
             drops some, and their clients try again after a second"
        ),
        format!("sysctl -w net.core.somaxconn={backlog}"),
    )
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once(|c: char| c.is_whitespace())?;
    Some(low.parse().ok()?..=high.trim().parse().ok()?)
}

/// The recommended range if there are too few ports: all but those that services listen on.
const WIDE: RangeInclusive<u16> = 10_240..=65_535;

/// A session needs a local port for its source and the address of its server. After the close, the
/// side that closed first keeps it for another minute (TIME-WAIT).
fn port_range(range: &RangeInclusive<u16>, sessions: u64, pairs: u64) -> Finding {
    let subject = "net.ipv4.ip_local_port_range";
    let ports = range.len() as u64;
    let text = format!(
        "{} to {}, enough for {ports} concurrent sessions from each source to each server address",
        range.start(),
        range.end()
    );
    if pairs > 0 && ports * pairs < sessions {
        let text = format!(
            "{text}; {pairs} pairs of source and server are too few for {sessions} sessions"
        );
        let remedy = if ports < WIDE.len() as u64 {
            format!("sysctl -w {subject}=\"{} {}\"", WIDE.start(), WIDE.end())
        } else {
            format!(
                "lower global.sessions_max to {}, or add servers, or addresses to \
                 backend.NAME.source",
                ports * pairs
            )
        };
        return Finding::warning(subject, text, remedy);
    }
    Finding::ok(subject, text)
}

/// An outgoing connection may take a port in that range while its frontend or server restarts. A
/// connection to a local server that is down may even be connected to itself.
fn own_ports(range: &RangeInclusive<u16>, reserved: &str, ports: &[u16]) -> Finding {
    let subject = "net.ipv4.ip_local_reserved_ports";
    let held = |port: u16| {
        reserved.split(',').any(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            let (low, high) = (low.trim().parse(), high.trim().parse());
            matches!((low, high), (Ok(low), Ok(high)) if (low..=high).contains(&port))
        })
    };
    let at_risk: Vec<u16> =
        ports.iter().copied().filter(|port| range.contains(port) && !held(*port)).collect();
    if at_risk.is_empty() {
        return Finding::ok(subject, "no outgoing connection can take a port of the configuration");
    }
    let list = runs(&at_risk);
    let all = if reserved.is_empty() { list.clone() } else { format!("{reserved},{list}") };
    Finding::warning(
        subject,
        format!(
            "an outgoing connection may use {list} as its local port while the frontend or server \
             with that port restarts"
        ),
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={all}"),
    )
}

/// Ports in ascending order, as the kernel reads them: `80,33000-37000`.
fn runs(ports: &[u16]) -> String {
    let runs = ports.chunk_by(|port, next| port.checked_add(1) == Some(*next));
    let runs = runs.filter_map(|run| match run {
        [] => None,
        [port] => Some(port.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    runs.collect::<Vec<_>>().join(",")
}

fn congestion_control(name: &str) -> Finding {
    Finding::ok(
        "net.ipv4.tcp_congestion_control",
        format!(
            "{name}; it controls the sending rate to clients and servers: cubic suits wired \
             networks, bbr networks that lose packets (radio)"
        ),
    )
}

/// It moves the connections that wait in a listening socket that is closed to another socket of the
/// same address. The sockets of an address are closed together, and no other program may share
/// the port: either value works.
fn migrate_req(value: &str) -> Finding {
    Finding::ok(
        "net.ipv4.tcp_migrate_req",
        format!("{value}; either value works: evenkeel closes all sockets of an address together"),
    )
}

/// `wanted`: the bytes of a pipe.
fn pipe_size(bytes: u64, wanted: u64) -> Finding {
    let subject = "fs.pipe-max-size";
    let kib = bytes / 1024;
    if bytes >= wanted {
        return Finding::ok(subject, format!("{kib} KiB, enough for the pipes of splice(2)"));
    }
    Finding::warning(
        subject,
        format!("{kib} KiB: splice(2) moves bulk data in small pieces"),
        format!("sysctl -w fs.pipe-max-size={wanted}"),
    )
}

fn page_size() -> Option<u64> {
    u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()
}

/// Beyond the limit, new pipes of a plain user cannot grow, and have one or two pages (pipe(7)); 0
/// is no limit. `each`: the pages of a pipe.
fn pipe_pages(pages: u64, each: u64, workers: usize) -> Finding {
    let subject = "fs.pipe-user-pages-soft";
    let (pipes, wanted) = (pages / each, workers as u64 * u64::from(PIPES_PER_WORKER));
    if pages == 0 {
        return Finding::ok(subject, "no limit on the pipes of an unprivileged user");
    }
    let text = format!(
        "{pages} pages: {pipes} pipes for an unprivileged user, and evenkeel uses {wanted} at most"
    );
    if pipes < wanted {
        let command = format!("sysctl -w fs.pipe-user-pages-soft={}", wanted * each);
        let text = format!("{text}; further sessions use smaller pipes, or copy");
        return Finding::warning(subject, text, command);
    }
    Finding::ok(subject, text)
}

/// The port of a server, if its address shows that it is on this machine.
fn local_port(address: &ServerAddress) -> Option<u16> {
    let port = match address {
        ServerAddress::Ip(address) => is_loopback(address).then(|| address.port()),
        ServerAddress::Name { host, port } => (host == "localhost").then_some(*port),
        ServerAddress::Unix(_) => None,
    };
    // Without a port it has those of frontends.
    port.filter(|port| *port != 0)
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn an_error_of_run_is_a_failure_with_the_same_text() {
        let refusal = "sessions_max = 20000 takes 40256".to_owned();
        let finding = descriptors(20_000, 40_256, Err(&refusal));
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.text.contains("takes 40256"), "{}", finding.text);
        let remedy = finding.remedy.unwrap();
        assert_eq!(remedy, "ulimit -n 40256 (or LimitNOFILE=40256 in the service)");
        assert_eq!(descriptors(1024, 2424, Ok(&300)).verdict, Verdict::Warning);
        assert_eq!(descriptors(20_000, 1024, Ok(&300)).verdict, Verdict::Ok, "as written");
        assert_eq!(descriptors(1 << 20, 2424, Ok(&500_000)).verdict, Verdict::Ok);
    }

    #[test]
    fn a_backlog_above_somaxconn_is_a_warning_with_its_remedy() {
        let finding = somaxconn(128, 4096);
        assert_eq!(finding.remedy.as_deref(), Some("sysctl -w net.core.somaxconn=4096"));
        assert_eq!(somaxconn(4096, 4096).verdict, Verdict::Ok);
    }

    #[test]
    fn ports_are_counted_for_each_server_address() {
        let range = range("32768\t60999").unwrap();
        assert_eq!(port_range(&range, 100_000, 4).verdict, Verdict::Ok);
        assert_eq!(port_range(&range, 100_000, 2).verdict, Verdict::Warning);
        let remedy = |range| port_range(&range, 262_000, 2).remedy.unwrap();
        assert!(remedy(range.clone()).contains("10240 65535"), "a wider range");
        assert!(remedy(10_240..=65_535).contains("sessions_max to 110592"), "it is as wide");
        assert_eq!(port_range(&range, 100_000, 0).verdict, Verdict::Ok);
    }

    #[test]
    fn sources_multiply_ports_and_unix_servers_need_none() {
        let pairs = |backend: &str| {
            let head = "[frontend.f]\nbind = [\"127.0.0.1:80\"]\nbackend = \"b\"\n[backend.b]\n";
            let config = config::parse(&format!("{head}{backend}"), "x.toml").unwrap();
            Needs::of(&config).pairs
        };
        let server = |number: u32, address: &str| {
            format!("[[backend.b.server]]\nname = \"s{number}\"\naddress = \"{address}\"\n")
        };
        let both = server(1, "192.0.2.1:80") + &server(2, "unix:/run/x.sock");
        assert_eq!(pairs(&both), 1);
        assert_eq!(pairs(&server(2, "unix:/run/x.sock")), 0);
        let sources = "source = [\"192.0.2.8\", \"192.0.2.9\", \"2001:db8::1\"]\n";
        assert_eq!(pairs(&format!("{sources}{both}")), 2, "those of its family");
        let srv = "srv = \"_web._tcp.example\"\n";
        assert_eq!(pairs(srv), 1);
        assert_eq!(pairs(&format!("{srv}{sources}")), 3);
        let client = pairs(&format!("source = \"client\"\n{both}"));
        assert_eq!(port_range(&(32768..=60999), 1 << 20, client).verdict, Verdict::Ok);
    }

    #[test]
    fn a_configured_port_that_is_ephemeral_and_not_reserved_is_a_warning() {
        let range = 32768..=60999;
        assert_eq!(own_ports(&range, "", &[80, 8080]).verdict, Verdict::Ok);
        assert_eq!(own_ports(&range, "1-2,40000-40005", &[40001]).verdict, Verdict::Ok);
        let finding = own_ports(&range, "9000", &[40001]);
        assert_eq!(
            finding.remedy.as_deref(),
            Some("sysctl -w net.ipv4.ip_local_reserved_ports=9000,40001")
        );
        let ports: Vec<u16> = [80, 33_000].into_iter().chain(40_000..=41_000).collect();
        let text = own_ports(&range, "40500", &ports).text;
        assert!(text.contains(" 33000,40000-40499,40501-41000 "), "{text}");
        assert_eq!(runs(&[1, 2, 65_534, 65_535]), "1-2,65534-65535");
    }

    #[test]
    fn more_workers_than_cores_is_a_warning() {
        assert_eq!(cores_finding(2, Some(4)).verdict, Verdict::Warning);
        assert_eq!(cores_finding(4, Some(4)).verdict, Verdict::Ok);
        assert_eq!(cores_finding(4, None).verdict, Verdict::Ok);
    }

    #[test]
    fn rings_that_fit_only_in_small_size_are_a_warning() {
        assert_eq!(memlock(4, (0, 3), String::new()).verdict, Verdict::Failed);
        assert_eq!(memlock(4, (3, 4), String::new()).verdict, Verdict::Warning);
        assert_eq!(memlock(4, (4, 4), String::new()).verdict, Verdict::Ok);
    }

    #[test]
    fn few_or_small_pipes_are_warnings() {
        assert_eq!(pipe_pages(0, 64, 4).verdict, Verdict::Ok);
        assert_eq!(pipe_pages(16_384, 64, 4).verdict, Verdict::Ok);
        let finding = pipe_pages(16_384, 64, 5);
        let remedy = "sysctl -w fs.pipe-user-pages-soft=20480";
        assert_eq!(finding.remedy.as_deref(), Some(remedy));
        let remedy = pipe_size(64 * 1024, 512 * 1024).remedy.unwrap();
        assert_eq!(remedy, "sysctl -w fs.pipe-max-size=524288");
        assert_eq!(pipe_size(512 * 1024, 512 * 1024).verdict, Verdict::Ok);
    }
}
