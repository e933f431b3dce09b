//! Backends: attempts, limits, the PROXY header, source addresses, and the servers.

use super::arguments;
use super::balance;
use super::checks;
use super::lexer::Environment;
use super::sections::Proxy;
use super::servers::{self, Input};
use super::timeouts;
use crate::convert::draft::{Backend, Entry, Server};
use crate::convert::literal;
use crate::convert::majority::most_common;
use crate::convert::report::{Place, Report};

/// The kernel's time before the first keep-alive probe (tcp(7), `tcp_keepalive_time`).
pub(super) const KERNEL_KEEPALIVE: &str = "\"2h\"";

/// The longest queue that evenkeel has.
const QUEUE_MAX: u32 = 10_000_000;

/// Converts the part of a proxy that has servers.
pub(super) fn convert(proxy: &Proxy, environment: &Environment<'_>, report: &Report) -> Backend {
    let (inputs, srv) = servers::servers(proxy, environment, report);
    let real: Vec<Input> = inputs.iter().filter(|it| !it.name.is_empty()).cloned().collect();
    let mut entries = vec![("balance", balance::balance(proxy, report))];
    entries.extend(attempts(proxy, &inputs, report));
    entries.extend(of_servers(&inputs, report));
    entries.extend(source(proxy, &inputs, report));
    if let Some(entry) = keepalive(proxy, report) {
        entries.push(entry);
    }
    if real.iter().any(|server| server.has("backup")) {
        let backups = real.iter().filter(|server| server.has("backup")).count();
        match proxy.option("allbackups") {
            Some(_) => entries.push(("backups", literal::quoted("all"))),
            None if backups > 1 => entries.push(("backups", literal::quoted("first"))),
            None => {}
        }
    }
    if let Some(srv) = srv {
        entries.push(("srv", literal::quoted(&srv)));
    }
    let has_version = entries.iter().any(|(key, _)| *key == "send_proxy");
    Backend {
        name: literal::name(&proxy.name),
        origin: proxy.origin,
        entries,
        health: checks::health(proxy, &inputs, has_version, report),
        servers: real.iter().map(server).collect(),
    }
}

fn server(input: &Input) -> Server {
    let mut entries = Vec::new();
    let number = |name: &str| {
        let number = arguments::integer(input.value(name)?)?;
        u32::try_from(number).ok().map(|number| number.min(QUEUE_MAX))
    };
    if let Some(most) = number("maxconn").filter(|most| *most > 0) {
        entries.push(("sessions_max", most.to_string()));
    }
    if input.has("disabled") {
        entries.push(("state", literal::quoted("maint")));
    }
    Server {
        name: literal::name(&input.name),
        address: input.address.clone(),
        weight: number("weight"),
        is_backup: input.has("backup"),
        entries,
        place: input.place,
    }
}

/// Timeouts and attempts.
fn attempts(proxy: &Proxy, servers: &[Input], report: &Report) -> Vec<Entry> {
    let mut entries = Vec::new();
    let connect = timeouts::timeout(proxy, timeouts::CONNECT).filter(|(millis, _)| *millis > 0);
    match connect {
        Some((millis, _)) => entries.push(("connect_timeout", literal::duration(millis))),
        None => report.near(
            proxy.place(),
            "no timeout connect: HAProxy waits as long as the kernel does, evenkeel 3s",
        ),
    }
    entries.push(("retries", retries(proxy, servers)));
    let queue = timeouts::timeout(proxy, &["queue"]);
    // Without a timeout of its own, the queue has that of a connect.
    let has_queue = servers.iter().any(|server| server.has("maxconn"));
    match queue.or(connect).filter(|(millis, _)| *millis > 0) {
        Some((millis, _)) if has_queue || queue.is_some() => {
            entries.push(("queue_timeout", literal::duration(millis)));
        }
        None if has_queue => entries.push(("queue_timeout", timeouts::LONGEST.to_owned())),
        _ => {}
    }
    if has_queue && !servers.iter().any(|server| server.has("maxqueue")) {
        entries.push(("queue_max", format!("{QUEUE_MAX} # no limit, as in HAProxy")));
    }
    entries
}

/// Attempts after the first one. A comment says where HAProxy makes them, if it is elsewhere.
fn retries(proxy: &Proxy, servers: &[Input]) -> String {
    let line = proxy.last(&["retries"]);
    let number = line.and_then(|line| arguments::integer(line.word(1))).unwrap_or(3).clamp(0, 100);
    let moves = proxy.option("redispatch").is_some() || proxy.last(&["redispatch"]).is_some();
    if moves || number == 0 || servers.len() < 2 {
        return number.to_string();
    }
    format!("{number} # each on another server; HAProxy stays, without option redispatch")
}

/// Keys of the backend that HAProxy has on each server.
fn of_servers(servers: &[Input], report: &Report) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(server) = servers.iter().find(|server| server.has("maxqueue")) {
        let most = server.value("maxqueue").and_then(arguments::integer);
        for server in servers.iter().filter(|server| server.has("maxqueue")) {
            let reason = "backend.queue_max: the queue belongs to the backend, not to the server";
            report.near(server.place_of("maxqueue"), reason);
        }
        if let Some(most) = most.filter(|most| *most > 0) {
            entries.push(("queue_max", most.min(i64::from(QUEUE_MAX)).to_string()));
        }
    }
    let down = |server: &Input| server.value("on-marked-down") == Some("shutdown-sessions");
    // A server that is not checked is never marked down.
    let checked: Vec<Input> =
        servers.iter().filter(|server| server.has("check")).cloned().collect();
    if switch(&checked, "on-marked-down", &down, report) {
        entries.push(("on_down", literal::quoted("close")));
    }
    let slow = |server: &Input| {
        server.value("slowstart").and_then(|it| literal::millis(it, 1)).unwrap_or(0)
    };
    let values: Vec<(u64, Place)> =
        servers.iter().map(|server| (slow(server), server.place_of("slowstart"))).collect();
    if values.iter().any(|(millis, _)| *millis > 0) {
        let common = most_common(&values).unwrap_or_default();
        differing(&values, common, "slowstart", report);
        if common > 0 {
            // The range of `slow_start`.
            let near = common.clamp(1000, 3_600_000);
            for (_, place) in
                values.iter().filter(|(millis, _)| *millis == common && near != common)
            {
                report.near(*place, "slow_start is between 1s and 1h");
            }
            entries.push(("slow_start", literal::duration(near)));
        }
    }
    let version = |server: &Input| {
        if checks::sends_v2(server) { 2 } else { u8::from(server.has("send-proxy")) }
    };
    let versions: Vec<(u8, Place)> =
        servers.iter().map(|server| (version(server), server.place)).collect();
    if let Some(common) = most_common(&versions) {
        for (version, place) in &versions {
            if *version != common {
                let reason = "send-proxy: evenkeel sends one version of the PROXY header to all \
                servers of a backend, or none";
                report.urgent(*place, reason);
            }
        }
        if common > 0 {
            entries.push(("send_proxy", literal::quoted(&format!("v{common}"))));
        }
    }
    let fast = |server: &Input| server.has("tfo");
    if switch(servers, "tfo", &fast, report) {
        entries.push(("fast_open", "true".to_owned()));
    }
    entries
}

/// Whether most servers have a switch; the others are reported.
fn switch(servers: &[Input], name: &str, is_on: &dyn Fn(&Input) -> bool, report: &Report) -> bool {
    let values: Vec<(bool, Place)> =
        servers.iter().map(|server| (is_on(server), server.place_of(name))).collect();
    let common = most_common(&values).unwrap_or_default();
    differing(&values, common, name, report);
    common
}

fn differing<T: Copy + PartialEq>(values: &[(T, Place)], common: T, name: &str, report: &Report) {
    for (value, place) in values {
        if *value != common {
            report.report(
                *place,
                format!("{name}: evenkeel has one value for all servers of a backend"),
            );
        }
    }
}

/// Addresses to connect from.
fn source(proxy: &Proxy, servers: &[Input], report: &Report) -> Option<Entry> {
    let line = proxy.last(&["source"]);
    let of_backend = line.map(|line| (line.from(1).to_vec(), line.place));
    let own: Vec<(Vec<String>, Place)> = servers
        .iter()
        .filter(|server| server.has("source"))
        .map(|server| (server.values("source").to_vec(), server.place_of("source")))
        .collect();
    let (words, place) = match (own.first(), of_backend) {
        (Some(first), _) => {
            if own.len() < servers.len() || own.iter().any(|(words, _)| *words != first.0) {
                for (_, place) in &own {
                    report.report(
                        *place,
                        "source: evenkeel has one value for all servers of a backend",
                    );
                }
                return None;
            }
            first.clone()
        }
        (None, Some(found)) => found,
        (None, None) => return None,
    };
    let after =
        |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    if after("interface").is_some() {
        report.report(place, "interface: evenkeel connects from addresses, not interfaces");
    }
    match after("usesrc").map(String::as_str) {
        Some("client" | "clientip") => return Some(("source", literal::list(["client"]))),
        Some(_) => {
            report.report(
                place,
                "usesrc: evenkeel connects from its own addresses, or from the client's",
            );
            return None;
        }
        None => {}
    }
    let word = words.first().map_or("", String::as_str);
    let is_port = |port: &str| port.chars().all(|c| c.is_ascii_digit() || c == '-');
    let address =
        word.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(word, |(it, _)| it);
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_unspecified() => None,
        Ok(ip) => Some(("source", literal::list([ip.to_string()]))),
        Err(_) if matches!(bare, "" | "*") => None,
        Err(_) => {
            report.report(place, "evenkeel connects from IP addresses");
            None
        }
    }
}

/// `option tcpka` and `option srvtcpka`, with the time that the file or the kernel gives.
fn keepalive(proxy: &Proxy, report: &Report) -> Option<Entry> {
    keepalive_of(proxy, "srvtcpka", "srvtcpka-idle", report)
}

/// Keep-alive of one side.
pub(super) fn keepalive_of(
    proxy: &Proxy,
    option: &str,
    idle: &str,
    report: &Report,
) -> Option<Entry> {
    let line = proxy.option(option).or_else(|| proxy.option("tcpka"))?;
    let given = proxy.last(&[idle]).and_then(|line| literal::millis(line.word(1), 1000));
    let value = given.map_or_else(
        || {
            let reason = "keepalive: the file gives no time; evenkeel needs one (the kernel's: 2h)";
            report.near(line.place, reason);
            KERNEL_KEEPALIVE.to_owned()
        },
        literal::duration,
    );
    Some(("keepalive", value))
}

/// Whether every server of a proxy speaks TLS with HAProxy.
pub(super) fn speaks_tls(proxy: &Proxy, environment: &Environment<'_>, report: &Report) -> bool {
    let (servers, _) = servers::servers(proxy, environment, report);
    !servers.is_empty() && servers.iter().all(|server| server.has("ssl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::draft::Origin;
    use crate::convert::haproxy::sections::Role;

    #[test]
    fn a_proxy_without_servers_is_empty() {
        let origin = Origin::default();
        let proxy =
            Proxy { role: Role::Backend, name: "b".into(), origin, lines: vec![], inherited: 0 };
        let outside = |_: &str| None;
        let backend = convert(&proxy, &Environment::new(&outside), &Report::new("x", "x"));
        assert!(backend.is_empty());
        assert_eq!(backend.entries[0], ("balance", "\"roundrobin\"".to_owned()));
    }
}
