//! Timeouts of a frontend and of the backends behind it.

use super::lexer;
use super::sections::Proxy;
use crate::convert::draft::Entry;
use crate::convert::literal;
use crate::convert::report::{Place, Report};

/// The timeout that acts, in ms, under any of its names; 0: none.
pub(super) fn timeout(proxy: &Proxy, names: &[&str]) -> Option<(u64, Place)> {
    // `server` alone begins another line; the old spelling is one word.
    let is = |first: &str, second: &str| {
        let name = if first == "timeout" { second } else { first };
        first.ends_with("timeout") && names.contains(&name)
    };
    let line = proxy.lines.iter().rfind(|line| is(line.word(0), line.word(1)))?;
    let value = if line.word(0) == "timeout" { line.word(2) } else { line.word(1) };
    let millis = if lexer::unset(value).is_some() { None } else { literal::millis(value, 1) };
    millis.filter(|_| !line.is_no).map(|millis| (millis, line.place))
}

pub(super) const CLIENT: &[&str] = &["client", "clitimeout"];
pub(super) const SERVER: &[&str] = &["server", "srvtimeout"];
pub(super) const CONNECT: &[&str] = &["connect", "contimeout"];

/// The longest timeout that evenkeel has, where HAProxy has none.
pub(super) const LONGEST: &str = "\"24d\"";

/// `idle_timeout` and `half_closed_timeout` of a frontend that uses these backends. Without a
/// timeout of its own, HAProxy lets a half-closed connection be silent for as long as any other.
pub(super) fn of_frontend(frontend: &Proxy, backends: &[&Proxy], report: &Report) -> Vec<Entry> {
    let idle = idle(frontend, backends, report);
    let mut entries = vec![idle.clone()];
    let client = timeout(frontend, &["client-fin"]);
    let server = backends.iter().filter_map(|backend| timeout(backend, &["server-fin"])).min();
    let both: Vec<(u64, Place)> = client.into_iter().chain(server).collect();
    for (_, place) in &both {
        report.near(*place, "half_closed_timeout: one value for both sides, the shorter one");
    }
    let half_closed = match both.iter().min().filter(|(millis, _)| *millis > 0) {
        Some((millis, _)) => literal::duration(*millis),
        None if idle.1 == literal::quoted("off") => LONGEST.to_owned(),
        None => idle.1,
    };
    entries.push(("half_closed_timeout", half_closed));
    entries
}

fn idle(frontend: &Proxy, backends: &[&Proxy], report: &Report) -> Entry {
    let key = "idle_timeout";
    let off = || (key, literal::quoted("off"));
    // In mode http, a tunnel begins with an upgrade; in mode tcp, every session is one.
    let tunnels: Vec<Option<(u64, Place)>> = if backends.is_empty() {
        vec![timeout(frontend, &["tunnel"])]
    } else {
        backends.iter().map(|backend| timeout(backend, &["tunnel"])).collect()
    };
    if frontend.is_http() {
        for (_, place) in tunnels.iter().flatten() {
            let reason = "mode http: a session that becomes a tunnel (WebSocket) has the \
                          idle_timeout of all others, that of client and server";
            report.near(*place, reason);
        }
    } else if let Some(first) = tunnels.first().copied().flatten()
        && tunnels.iter().all(Option::is_some)
    {
        let least = tunnels.iter().flatten().map(|(millis, _)| *millis).min().unwrap_or(first.0);
        for (millis, place) in tunnels.iter().flatten() {
            if *millis != least {
                report.near(*place, "backends differ: the shortest timeout acts for all of them");
            }
        }
        return if least == 0 { off() } else { (key, long(least, first.1, report)) };
    }
    for (_, place) in tunnels.iter().flatten().filter(|_| !frontend.is_http()) {
        let reason = "lost: another backend of the frontend has no timeout tunnel, and \
                      idle_timeout, which is for all of them, is that of client and server";
        report.report(*place, reason);
    }
    let client = timeout(frontend, CLIENT).filter(|(millis, _)| *millis > 0);
    let servers: Vec<(u64, Place)> = backends
        .iter()
        .filter_map(|backend| timeout(backend, SERVER))
        .filter(|(millis, _)| *millis > 0)
        .collect();
    let all: Vec<(u64, Place)> = client.into_iter().chain(servers).collect();
    let Some((least, place)) = all.iter().min().copied() else { return off() };
    if all.iter().any(|(millis, _)| *millis != least) {
        for (_, place) in &all {
            report.near(*place, "client and server differ: the shorter timeout acts first");
        }
    }
    (key, long(least, place, report))
}

/// A timeout within evenkeel's range.
fn long(millis: u64, place: Place, report: &Report) -> String {
    const DAY: u64 = 86_400_000;
    if millis > 24 * DAY {
        report.near(place, "24d, the longest timeout that evenkeel has");
    }
    literal::duration(millis)
}
