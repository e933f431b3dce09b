//! `listen` lines.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::keywords::{self, Block};
use super::lexer::Directive;
use crate::config;
use crate::convert::draft::{Bind, Entry};
use crate::convert::keyword::Treatment;
use crate::convert::literal;
use crate::convert::report::Report;

/// The addresses of a line, and their parameters.
#[derive(Debug, Clone, Default)]
pub(super) struct Listen {
    pub(super) binds: Vec<Bind>,
    pub(super) has_tls: bool,
    pub(super) takes_proxy: bool,
    pub(super) entries: Vec<Entry>,
}

/// Whether a line of a server says where it listens for TCP.
pub(super) fn is_tcp(line: &Directive) -> bool {
    line.name == "listen" && !line.arguments.iter().any(|it| it == "udp" || it == "quic")
}

/// For each server, the addresses of its `listen` lines for TCP that another server serves: the one
/// that says `default_server`, or the first one.
pub(super) fn elsewhere<'a>(stream: &[&'a Directive], report: &Report) -> Vec<HashSet<&'a str>> {
    let servers: Vec<&Directive> =
        stream.iter().copied().filter(|line| line.name == "server").collect();
    let mut serving: HashMap<&str, usize> = HashMap::new();
    for (at, server) in servers.iter().enumerate() {
        for line in server.inside().iter().filter(|line| is_tcp(line)) {
            let first = *serving.entry(line.address()).or_insert(at);
            let is_default = line.arguments.iter().any(|it| it == "default_server");
            serving.insert(line.address(), if is_default { at } else { first });
        }
    }
    let mut elsewhere = Vec::new();
    for (at, server) in servers.into_iter().enumerate() {
        let mut addresses = HashSet::new();
        for line in server.inside().iter().filter(|line| is_tcp(line)) {
            let other = serving.get(line.address()).copied();
            if other != Some(at) && !line.has_placeholder() {
                let reason = if server.inside().iter().any(|it| it.name == "server_name") {
                    "server_name tells the servers of this address apart: evenkeel has the one \
                     that serves all other clients"
                } else {
                    "another server has this address: only one of them serves (nginx before \
                     1.25.5 refuses the file)"
                };
                report.urgent(line.place, reason);
                addresses.insert(line.word(0));
            }
        }
        elsewhere.push(addresses);
    }
    elsewhere
}

/// Reads a line; parts without an equivalent are reported.
pub(super) fn listen(line: &Directive, report: &Report) -> Listen {
    let mut listen = Listen::default();
    let place = line.place;
    let mut both = false;
    let mut is_other = false;
    for parameter in line.arguments.iter().skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let Some(keyword) = keywords::listen(name) else {
            let remedy = keywords::remedy_in(Block::Listen, name);
            let problem = format!("nginx has no {parameter:?} on a listen line; {remedy}");
            report.refuse(place, problem);
            continue;
        };
        match name {
            "ssl" => listen.has_tls = true,
            "proxy_protocol" => listen.takes_proxy = true,
            "backlog" => listen.entries.push(("backlog", value.to_owned())),
            "fastopen" => listen.entries.push(("fast_open", "true".to_owned())),
            "deferred" => listen.entries.push(("defer_accept", "true".to_owned())),
            "so_keepalive" => listen.entries.extend(keepalive(value, line, report)),
            "ipv6only" => both = value == "off",
            "udp" | "quic" => {
                is_other = true;
                report.urgent(place, keyword.text);
            }
            _ if keyword.treatment == Treatment::Report => report.report(place, keyword.text),
            _ => {}
        }
    }
    if !is_other {
        listen.binds = binds(line, both, report);
    }
    listen
}

/// `on`, `off`, or `idle:interval:count`.
fn keepalive(value: &str, line: &Directive, report: &Report) -> Option<Entry> {
    if value == "off" {
        return None;
    }
    let idle = value.split(':').next().and_then(|idle| literal::millis(idle, 1000));
    let value = idle.map_or_else(
        || {
            let reason = "keepalive: the file gives no time; evenkeel needs one (the kernel's: 2h)";
            report.near(line.place, reason);
            "\"2h\"".to_owned()
        },
        literal::duration,
    );
    Some(("keepalive", value))
}

fn binds(line: &Directive, both: bool, report: &Report) -> Vec<Bind> {
    let place = line.place;
    let word = line.word(0);
    if let Some(path) = word.strip_prefix("unix:") {
        if config::server_address(word).is_err() {
            report.urgent(place, literal::UNIX_PATH);
            return Vec::new();
        }
        return vec![Bind { host: format!("unix:{path}"), ports: None, place }];
    }
    if word.contains('$') {
        report.urgent(
            place,
            "a placeholder of a template, not an address: fill it in and convert again",
        );
        return Vec::new();
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => ("*", word),
    };
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
        report.refuse(place, format!("{word:?} is no address with a port; write one"));
        return Vec::new();
    };
    if first == 0 || first > last {
        report.refuse(place, format!("{port:?} is no port; write 1 to 65535"));
        return Vec::new();
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let hosts: Vec<String> = match (bare, bare.parse::<IpAddr>()) {
        ("*", _) => vec!["0.0.0.0".into()],
        ("localhost", _) => vec!["127.0.0.1".into()],
        ("::", _) if both => vec!["0.0.0.0".into(), "[::]".into()],
        (_, Ok(IpAddr::V6(ip))) => vec![format!("[{ip}]")],
        (_, Ok(ip)) => vec![ip.to_string()],
        _ => {
            report.urgent(place, "evenkeel listens on IP addresses: write the address of the name");
            Vec::new()
        }
    };
    hosts.into_iter().map(|host| Bind { host, ports: Some((first, last)), place }).collect()
}
