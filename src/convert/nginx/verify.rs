//! Lines that nginx refuses: a directive that is there twice, or in another block, or whose
//! arguments are too many, too few or wrong.

use std::collections::HashSet;

use super::lexer::Directive;
use super::values;
use crate::convert::report::Report;

/// Directives with one argument that a block has once.
const ONE: &[&str] = &[
    "daemon",
    "master_process",
    "pid",
    "preread_timeout",
    "proxy_buffer_size",
    "proxy_connect_timeout",
    "proxy_download_rate",
    "proxy_next_upstream_timeout",
    "proxy_next_upstream_tries",
    "proxy_pass",
    "proxy_protocol_timeout",
    "proxy_timeout",
    "proxy_upload_rate",
    "resolver_timeout",
    "worker_connections",
    "worker_processes",
    "worker_shutdown_timeout",
];

/// The same, with `on` or `off`.
const SWITCH: &[&str] = &[
    "proxy_half_close",
    "proxy_next_upstream",
    "proxy_protocol",
    "proxy_socket_keepalive",
    "proxy_ssl",
    "ssl_preread",
    "tcp_nodelay",
];

/// Directives that a block has once, with any arguments.
const ONCE: &[&str] = &["events", "proxy_bind", "resolver", "stream", "user"];

/// Directives that a block may have more than once, with that many arguments.
const EXACT: &[(&str, usize)] =
    &[("allow", 1), ("deny", 1), ("set_real_ip_from", 1), ("least_conn", 0), ("map", 2)];

/// Directives of `stream` that none of its servers may have.
const OUTER: &[&str] = &["server", "upstream", "map", "geo", "split_clients", "limit_conn_zone"];

/// Directives of `server` that `stream` may not have.
const INNER: &[&str] = &["listen", "proxy_pass"];

/// Refuses the lines of a whole file.
pub(super) fn verify(directives: &[Directive], report: &Report) {
    block(directives, report);
    let mut servers: Vec<&Directive> = Vec::new();
    for directive in directives {
        match directive.name.as_str() {
            "events" => block(directive.inside(), report),
            "stream" => {
                block(directive.inside(), report);
                misplaced(directive.inside(), INNER, report);
                servers.extend(directive.inside());
            }
            "server" | "upstream" | "map" => servers.push(directive),
            _ => {}
        }
    }
    for directive in &servers {
        match directive.name.as_str() {
            "server" => {
                block(directive.inside(), report);
                misplaced(directive.inside(), OUTER, report);
                addresses(directive, report);
            }
            "upstream" => upstream(directive, report),
            "map" => map(directive, report),
            _ => {}
        }
    }
}

/// The directives of one block.
fn block(lines: &[Directive], report: &Report) {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut zones: HashSet<&str> = HashSet::new();
    for line in lines {
        values::of_line(line, report);
        let name = line.name.as_str();
        if name == "limit_conn" && !zones.insert(line.word(0)) {
            report
                .refuse(line.place, format!("{name} {} is there twice; remove one", line.word(0)));
        }
        let is_switch = SWITCH.contains(&name);
        let is_one = is_switch || ONE.contains(&name);
        if (is_one || ONCE.contains(&name)) && !seen.insert(name) {
            report.refuse(line.place, format!("{name} is there twice; remove one"));
        }
        let exact = EXACT.iter().find(|(other, _)| *other == name).map(|(_, count)| *count);
        let wanted = if is_one { Some(1) } else { exact };
        let count = line.arguments.len();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != count) {
            let problem = format!("{name} has {count} arguments instead of {wanted}; correct it");
            report.refuse(line.place, problem);
        } else if is_switch && !line.is("on") && !line.is("off") && !line.has_placeholder() {
            report.refuse(line.place, format!("{name} is on or off; write one of them"));
        }
    }
}

fn misplaced(lines: &[Directive], names: &[&str], report: &Report) {
    for line in lines.iter().filter(|line| names.contains(&line.name.as_str())) {
        report.refuse(line.place, format!("{} is not allowed in this block; move it", line.name));
    }
}

fn upstream(upstream: &Directive, report: &Report) {
    block(upstream.inside(), report);
    let lines = upstream.inside();
    let has = |line: &Directive, word: &str| line.arguments.iter().any(|it| it == word);
    let servers: Vec<&Directive> = lines.iter().filter(|line| line.name == "server").collect();
    if !servers.is_empty()
        && servers.iter().all(|line| has(line, "backup"))
        && !lines.iter().any(|line| line.name == "include")
    {
        report.refuse(upstream.place, "an upstream of backups only; write a server without backup");
    }
    // nginx compares a server with the method before it.
    let mut method = "";
    for line in lines {
        match line.name.as_str() {
            name @ ("hash" | "random" | "least_conn") => method = name,
            "server" if has(line, "backup") && matches!(method, "hash" | "random") => {
                report.refuse(line.place, format!("{method} has no backups; remove backup"));
            }
            _ => {}
        }
    }
    for line in servers.iter().filter(|line| has(line, "backup")) {
        if lines.iter().any(|it| matches!(it.name.as_str(), "hash" | "random")) {
            let reason = "nginx has no backups beside hash or random, unless the method stands \
                          after the server: it is used when all others are down";
            report.near(line.place, reason);
        }
    }
}

fn map(map: &Directive, report: &Report) {
    let mut seen: HashSet<String> = HashSet::new();
    for line in map.inside() {
        let key = line.name.to_ascii_lowercase();
        let is_parameter = matches!(line.name.as_str(), "include" | "hostnames" | "volatile");
        // nginx does not compare expressions.
        if !is_parameter && !key.starts_with('~') && !seen.insert(key.clone()) {
            report.refuse(line.place, format!("{key} is there twice; remove one"));
        }
    }
    let variable = map.word(1);
    if !variable.is_empty() && !variable.starts_with('$') {
        report.refuse(map.place, format!("{variable:?} is no variable; write $ before it"));
    }
}

/// A server listens on each of its addresses once. (Two servers: see `listen::elsewhere`.)
fn addresses(server: &Directive, report: &Report) {
    let mut seen: HashSet<(&str, bool)> = HashSet::new();
    for line in server.inside().iter().filter(|line| line.name == "listen") {
        let is_udp = line.arguments.iter().any(|it| it == "udp");
        let address = line.word(0);
        if !seen.insert((line.address(), is_udp)) && !line.has_placeholder() {
            report.refuse(line.place, format!("{address} is listened on twice; remove one"));
        }
    }
}
