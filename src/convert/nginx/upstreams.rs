//! `upstream` blocks.

use super::keywords::{self, Block};
use super::lexer::Directive;
use super::maps::CLIENT_PORT;
use crate::config;
use crate::convert::draft::{Address, Backend, Entry, Origin, Server};
use crate::convert::keyword::Treatment;
use crate::convert::literal;
use crate::convert::majority::most_common;
use crate::convert::report::{Place, Report};

/// nginx's defaults of `max_fails` and `fail_timeout`.
const FAILS: (u64, u64) = (1, 10_000);

/// Converts an upstream, without the keys that nginx has in `server`.
pub(super) fn convert(upstream: &Directive, report: &Report) -> Backend {
    let origin = Origin { first: upstream.place, last: upstream.last };
    let mut backend =
        Backend { name: literal::name(upstream.word(0)), origin, ..Backend::default() };
    let mut balance = "roundrobin";
    let mut failures: Vec<((u64, u64), Place, bool)> = Vec::new();
    for line in upstream.inside() {
        let Some(keyword) = keywords::upstream(&line.name) else {
            let (name, remedy) = (&line.name, keywords::remedy_in(Block::Upstream, &line.name));
            report.refuse(line.place, format!("nginx has no {name:?} in upstream; {remedy}"));
            continue;
        };
        match line.name.as_str() {
            "server" => server(line, &mut backend, &mut failures, report),
            "least_conn" => balance = "leastconn",
            "random" => balance = "random",
            "hash" => balance = hash(line, report),
            "queue" => backend.entries.push(("queue_max", line.word(0).to_owned())),
            _ if keyword.treatment == Treatment::Report => report.report(line.place, keyword.text),
            _ => {}
        }
    }
    if upstream
        .inside()
        .iter()
        .all(|line| !matches!(line.name.as_str(), "server" | "state" | "include"))
    {
        report.refuse(upstream.place, "an upstream without a server; write one");
    }
    backend.entries.insert(0, ("balance", literal::quoted(balance)));
    backend.health = vec![("check", literal::quoted("off"))];
    backend.health.extend(errors(&failures, report));
    backend
}

/// A backend with one server, for a `proxy_pass` to an address.
pub(super) fn single(target: &str, place: Place, origin: Origin, report: &Report) -> Backend {
    let server = Server {
        name: "server1".to_owned(),
        address: address(target, place, report),
        place,
        ..Server::default()
    };
    Backend {
        name: literal::name(target.trim_end_matches(CLIENT_PORT)),
        origin,
        entries: vec![("balance", literal::quoted("roundrobin"))],
        health: vec![("check", literal::quoted("off"))],
        servers: vec![server],
    }
}

/// Keys that name the client's address keep a client on its server.
fn hash(line: &Directive, report: &Report) -> &'static str {
    let key = line.word(0);
    let is_client =
        ["$remote_addr", "$binary_remote_addr", "${remote_addr}", "$proxy_protocol_addr"];
    if is_client.contains(&key) {
        report.near(line.place, "\"source\": another hash, so clients move once");
        return "source";
    }
    if key.starts_with("$remote_addr") || key.starts_with("$binary_remote_addr") {
        report.near(line.place, "\"source\": the address of the client alone decides");
        return "source";
    }
    report.report(
        line.place,
        "a choice by something else than the client address: servers take turns",
    );
    "roundrobin"
}

fn server(
    line: &Directive,
    backend: &mut Backend,
    failures: &mut Vec<((u64, u64), Place, bool)>,
    report: &Report,
) {
    let place = line.place;
    let mut server = Server { place, ..Server::default() };
    let mut failure = FAILS;
    let mut is_explicit = false;
    let mut service = None;
    for parameter in line.arguments.iter().skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let Some(keyword) = keywords::server(name) else {
            let remedy = keywords::remedy_in(Block::Server, name);
            report.refuse(place, format!("nginx has no {parameter:?} for a server; {remedy}"));
            continue;
        };
        let number = value.parse::<u32>();
        let time = literal::millis(value, 1000);
        match (name, number, time) {
            ("weight", Ok(weight @ 1..), _) => server.weight = Some(weight),
            ("max_conns", Ok(0), _) | ("resolve", ..) => {}
            ("max_conns", Ok(most), _) => server.entries.push(("sessions_max", most.to_string())),
            ("max_fails", Ok(fails), _) => (failure.0, is_explicit) = (u64::from(fails), true),
            ("fail_timeout", _, Some(time)) => (failure.1, is_explicit) = (time, true),
            ("slow_start", _, Some(time)) => {
                set(&mut backend.entries, ("slow_start", literal::duration(time)));
            }
            ("backup", ..) => server.is_backup = true,
            ("down", ..) => server.entries.push(("state", literal::quoted("maint"))),
            ("drain", ..) => server.entries.push(("state", literal::quoted("drain"))),
            ("service", ..) => service = Some(value),
            _ if keyword.treatment == Treatment::Report => report.report(place, keyword.text),
            _ => report.refuse(place, format!("{parameter:?} is no value; correct it")),
        }
    }
    if let Some(service) = service {
        let host = line.word(0).split(':').next().unwrap_or_default();
        let name = if service.contains('.') || service.starts_with('_') {
            format!("{service}.{host}")
        } else {
            format!("_{service}._tcp.{host}")
        };
        if config::srv_name(&name).is_ok() {
            set(&mut backend.entries, ("srv", literal::quoted(&name)));
        } else {
            report.urgent(place, "a name that is no DNS SRV name: left out");
        }
        return;
    }
    server.name = format!("server{}", backend.servers.len() + 1);
    server.address = address(line.word(0), place, report);
    failures.push((failure, place, is_explicit));
    backend.servers.push(server);
}

fn set(entries: &mut Vec<Entry>, entry: Entry) {
    if !entries.iter().any(|(key, _)| *key == entry.0) {
        entries.push(entry);
    }
}

/// `host:port`, `[v6]:port` or `unix:path`.
fn address(word: &str, place: Place, report: &Report) -> Address {
    if let Some(path) = word.strip_prefix("unix:") {
        let path = path.split(':').next().unwrap_or_default();
        if config::server_address(&format!("unix:{path}")).is_err() {
            report.urgent(place, literal::UNIX_PATH);
            return Address::Unknown(path.to_owned(), None);
        }
        return Address::Path(path.to_owned());
    }
    if let Some(host) = word.strip_suffix(CLIENT_PORT) {
        return Address::ClientPort(host.to_owned());
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (word, ""),
    };
    let number = port.parse::<u16>().ok().filter(|port| *port > 0);
    let is_ip = host.starts_with('[') && host.ends_with(']');
    if !is_ip && !host.is_empty() && !literal::is_host(host) || word.contains(['$', '{', '<', '%'])
    {
        let reason = "a placeholder of a template, not an address: fill it in and convert again";
        report.urgent(place, reason);
        return Address::Unknown(host.to_owned(), number);
    }
    number.map_or_else(
        || {
            let problem = format!("{word:?} is no upstream and has no port; correct it");
            report.refuse(place, problem);
            Address::default()
        },
        |number| {
            if config::server_address(&format!("{host}:{number}")).is_ok() {
                return Address::Port(host.to_owned(), number);
            }
            report.urgent(place, "no address of a server: correct it and convert again");
            Address::Unknown(host.to_owned(), Some(number))
        },
    )
}

/// `health.errors`: failures of sessions take a server down, as nginx has it.
fn errors(failures: &[((u64, u64), Place, bool)], report: &Report) -> Option<Entry> {
    if failures.len() < 2 {
        for (_, place, _) in
            failures.iter().filter(|(failure, _, is_explicit)| *is_explicit && failure.0 > 0)
        {
            report.near(
                *place,
                "nginx ignores max_fails and fail_timeout where an upstream has \
            one server; so does this",
            );
        }
        return None;
    }
    let values: Vec<((u64, u64), Place)> =
        failures.iter().map(|(value, place, _)| (*value, *place)).collect();
    let common = most_common(&values)?;
    for (value, place, _) in failures {
        if *value != common {
            report.report(
                *place,
                "max_fails, fail_timeout: evenkeel has one value for all servers of a backend",
            );
        }
    }
    let (fails, within) = common;
    if fails == 0 {
        return None;
    }
    for (_, place, _) in failures.iter().filter(|(_, _, is_explicit)| *is_explicit) {
        report.near(
            *place,
            "health.errors: failed connects are counted, not failures of other kinds",
        );
    }
    // evenkeel counts up to 1000 of them.
    let fails = fails.min(1000);
    let within = literal::duration(within);
    Some(("errors", format!("{{ count = {fails}, within = {within}, down = {within} }}")))
}
