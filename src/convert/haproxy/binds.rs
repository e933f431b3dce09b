//! `bind` lines: addresses and their parameters.

use super::address::{self, Host, Port};
use super::arguments;
use super::keywords::{self, Treatment};
use super::lexer::{Environment, Line};
use super::sections::Proxy;
use crate::convert::draft::{Bind, Entry};
use crate::convert::report::Report;

/// An address with the parameters of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) bind: Bind,
    pub(super) has_tls: bool,
    pub(super) accepts_proxy: bool,
    pub(super) entries: Vec<Entry>,
}

/// The addresses of a proxy; those that evenkeel cannot have are reported.
pub(super) fn binds(proxy: &Proxy, environment: &Environment<'_>, report: &Report) -> Vec<Input> {
    let mut inputs = Vec::new();
    for line in proxy.all("bind") {
        let parameters = parameters(line, report);
        let has = |name: &str| parameters.iter().any(|(it, _)| *it == name);
        let mut entries = Vec::new();
        if let Some((_, value)) = parameters.iter().find(|(name, _)| *name == "backlog") {
            let backlog = arguments::integer(value);
            if let Some(backlog) = backlog.filter(|backlog| *backlog > 0) {
                entries.push(("backlog", backlog.min(65_535).to_string()));
            }
        }
        if has("defer-accept") {
            entries.push(("defer_accept", "true".to_owned()));
        }
        if has("tfo") {
            entries.push(("fast_open", "true".to_owned()));
        }
        // HAProxy ignores a comma at the end.
        let word = line.word(1);
        for word in word.strip_suffix(',').unwrap_or(word).split(',') {
            for bind in one(word, line, has("v4v6"), environment, report) {
                inputs.push(Input {
                    bind,
                    has_tls: has("ssl"),
                    accepts_proxy: has("accept-proxy"),
                    entries: entries.clone(),
                });
            }
        }
    }
    note_ipv4(&inputs, proxy, report);
    inputs
}

/// The parameters of a line with their first value; those without an equivalent are reported.
fn parameters<'a>(line: &'a Line, report: &Report) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    let mut at = 2;
    while at < line.words.len() {
        let name = line.word(at);
        let Some(keyword) = keywords::bind(name) else { break };
        found.push((name, line.word(at + 1)));
        if keyword.treatment == Treatment::Report && name != "ssl" {
            report.report(line.place, format!("{name}: {}", keyword.text));
        }
        at += 1 + keyword.arguments;
    }
    found
}

/// The addresses that a word stands for.
fn one(
    word: &str,
    line: &Line,
    both: bool,
    environment: &Environment<'_>,
    report: &Report,
) -> Vec<Bind> {
    let place = line.place;
    if word.starts_with("mptcp") {
        report.near(place, "evenkeel listens with TCP; clients with MPTCP fall back to it");
    }
    let (host, port) = match address::parse(word, environment) {
        Ok(parsed) => parsed,
        Err(problem) => {
            report.refuse(place, problem);
            return Vec::new();
        }
    };
    let hosts: Vec<String> = match host {
        Host::Path(path) => {
            report.near(
                place,
                "evenkeel creates the socket with mode 0666: restrict who may connect by the \
                 permissions of its directory",
            );
            return vec![Bind { host: format!("unix:{path}"), ports: None, place }];
        }
        Host::AnyV4 if both => vec!["0.0.0.0".into(), "[::]".into()],
        Host::AnyV6 if both => vec!["0.0.0.0".into(), "[::]".into()],
        Host::AnyV4 => vec!["0.0.0.0".into()],
        Host::AnyV6 => vec!["[::]".into()],
        Host::Ip(ip) => vec![address::ip_text(ip)],
        Host::Name(name) if name == "localhost" => vec!["127.0.0.1".into()],
        Host::Name(_) => {
            report.urgent(place, "evenkeel listens on IP addresses: write the address of the name");
            return Vec::new();
        }
        Host::Unsupported(reason) => {
            report.urgent(place, reason);
            return Vec::new();
        }
        Host::Unset(name) => {
            let reason = format!(
                "the environment variable {name} has no value here; set it and convert again"
            );
            report.urgent(place, reason);
            return Vec::new();
        }
    };
    let Port::Range(first, last) = port else {
        report.refuse(place, "an address to listen on has no port; write one");
        return Vec::new();
    };
    hosts.into_iter().map(|host| Bind { host, ports: Some((first, last)), place }).collect()
}

/// An IPv6 wildcard of HAProxy takes IPv4 as well, unless the system or `v6only` says otherwise.
fn note_ipv4(inputs: &[Input], proxy: &Proxy, report: &Report) {
    for input in inputs.iter().filter(|input| input.bind.host == "[::]") {
        let same =
            |other: &&Input| other.bind.ports == input.bind.ports && other.bind.host == "0.0.0.0";
        let is_on = |line: &Line| {
            line.place == input.bind.place && line.words.iter().any(|it| it == "v6only")
        };
        let says = proxy.all("bind").any(|line| is_on(line));
        if inputs.iter().find(same).is_none() && !says {
            report.near(
                input.bind.place,
                "\"[::]\" is IPv6 only here; where net.ipv6.bindv6only is 0, HAProxy takes IPv4 \
                as well: add \"0.0.0.0\"",
            );
        }
    }
}

/// Splits ranges of ports at the ports where rules may differ.
pub(super) fn split(inputs: Vec<Input>, bounds: &[u16]) -> Vec<Input> {
    let mut bounds = bounds.to_vec();
    bounds.sort_unstable();
    bounds.dedup();
    let mut pieces = Vec::new();
    for input in inputs {
        let Some((first, last)) = input.bind.ports else {
            pieces.push(input);
            continue;
        };
        let mut start = first;
        for bound in bounds.iter().filter(|bound| first < **bound && **bound <= last) {
            let mut piece = input.clone();
            piece.bind.ports = Some((start, bound - 1));
            pieces.push(piece);
            start = *bound;
        }
        let mut piece = input;
        piece.bind.ports = Some((start, last));
        pieces.push(piece);
    }
    pieces
}
