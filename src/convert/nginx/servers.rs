//! `server` blocks of `stream`: a frontend for each, and the keys of the backends behind it.

use super::keywords;
use super::lexer::Directive;
use super::listen::{self, Listen};
use super::maps::{self, Route};
use crate::convert::draft::{Entry, Frontend, LeftOut, Origin};
use crate::convert::first_match::Lists;
use crate::convert::keyword::Treatment;
use crate::convert::literal;
use crate::convert::networks::{self, Clients, Network};
use crate::convert::report::{Place, Report};

/// A server, converted except for its backends.
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) frontend: Frontend,
    pub(super) route: Route,
    /// Its `proxy_pass`.
    pub(super) place: Place,
    /// Keys of every backend that it uses.
    pub(super) entries: Vec<Entry>,
    pub(super) health: Vec<Entry>,
    /// Attempts in all; none: every server once.
    pub(super) tries: Option<u64>,
}

/// The directives that hold for a server: its own, or those of `stream`.
pub(super) struct Scope<'a> {
    pub(super) server: &'a Directive,
    pub(super) stream: &'a [&'a Directive],
}

impl<'a> Scope<'a> {
    fn last(&self, name: &str) -> Option<&'a Directive> {
        let own = self.server.inside().iter().rfind(|line| line.name == name);
        own.or_else(|| self.stream.iter().rfind(|line| line.name == name).copied())
    }

    /// All lines of some names: the server's own, or else those of `stream`.
    fn all(&self, names: &[&str]) -> Vec<&'a Directive> {
        let is = |line: &Directive| names.contains(&line.name.as_str());
        let own: Vec<&Directive> = self.server.inside().iter().filter(|it| is(it)).collect();
        if own.is_empty() { self.stream.iter().copied().filter(|it| is(it)).collect() } else { own }
    }

    fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|line| line.word(0) == "on")
    }

    fn time(&self, name: &str, default: u64, report: &Report) -> u64 {
        let Some(line) = self.last(name) else { return default };
        literal::millis(line.word(0), 1000).unwrap_or_else(|| {
            report
                .refuse(line.place, format!("{:?} is no time; write one such as 5s", line.word(0)));
            default
        })
    }
}

/// Converts a server.
pub(super) fn convert(scope: &Scope<'_>, report: &Report) -> Converted {
    let server = scope.server;
    let lines = server.inside();
    let mut all = Listen::default();
    for line in lines.iter().filter(|line| line.name == "listen") {
        let one = listen::listen(line, report);
        all.binds.extend(one.binds);
        all.has_tls |= one.has_tls;
        all.takes_proxy |= one.takes_proxy;
        for entry in one.entries {
            if !all.entries.iter().any(|(key, _)| *key == entry.0) {
                all.entries.push(entry);
            }
        }
    }
    if !lines.iter().any(|line| line.name == "listen") {
        report.refuse(server.place, "a server without listen; write an address");
    }
    let target = lines.iter().rfind(|line| line.name == "proxy_pass");
    let variables: Vec<&Directive> = scope.stream.iter().copied().chain(lines.iter()).collect();
    let route = target.and_then(|target| maps::route(target, &variables, report));
    let is_else = lines.iter().any(|line| {
        let reports =
            keywords::stream(&line.name).is_some_and(|it| it.treatment == Treatment::Report);
        reports
            && (line.name == "return"
                || line.name == "pass"
                || line.block.is_some()
                || line.name.starts_with("content_by"))
    });
    if target.is_none() && !is_else && !lines.iter().any(|line| line.name == "include") {
        report.refuse(server.place, "a server without proxy_pass; write where it leads");
    }
    notes(lines, report);
    let route = route.unwrap_or_default();
    let mut entries = std::mem::take(&mut all.entries);
    entries.extend(frontend_entries(scope, &route, all.takes_proxy, report));
    let frontend = Frontend {
        name: name(&all),
        origin: Origin { first: server.place, last: server.last },
        left_out: left_out(scope, &all, &route, report),
        binds: all.binds,
        entries,
        ..Frontend::default()
    };
    let (backend, health, tries) = backend_entries(scope, report);
    let place = target.map_or(server.place, |target| target.place);
    Converted { frontend, route, place, entries: backend, health, tries }
}

/// nginx has no names for servers: the first address makes one.
fn name(listen: &Listen) -> String {
    match listen.binds.first() {
        Some(bind) => match bind.ports {
            Some((first, last)) if first == last => format!("server-{first}"),
            Some((first, last)) => format!("server-{first}-{last}"),
            None => {
                let file = bind.host.rsplit('/').next().unwrap_or_default();
                literal::name(&format!("server-{file}"))
            }
        },
        None => "server".to_owned(),
    }
}

fn left_out(scope: &Scope<'_>, listen: &Listen, route: &Route, report: &Report) -> Option<LeftOut> {
    let server = scope.server;
    let to_server = scope.last("proxy_ssl").filter(|line| line.word(0) == "on");
    if let Some(line) = to_server {
        report.urgent(line.place, "TLS to the server: evenkeel forwards bytes as they are");
    }
    if listen.has_tls {
        let lines = server.inside().iter().filter(|line| line.name == "listen");
        for line in lines.filter(|line| line.arguments.iter().any(|it| it == "ssl")) {
            let reason = if to_server.is_some() {
                "TLS is not ended: the bytes of the client go to the servers, which present their \
                own certificates"
            } else {
                "TLS is not ended: forwarded as it is, the servers would get TLS that they do not \
                speak"
            };
            report.urgent(line.place, reason);
        }
        if to_server.is_none() {
            return Some(LeftOut::Tls);
        }
    }
    (!route.leads_somewhere()).then_some(LeftOut::Unroutable)
}

fn frontend_entries(
    scope: &Scope<'_>,
    route: &Route,
    takes_proxy: bool,
    report: &Report,
) -> Vec<Entry> {
    let mut entries =
        vec![("idle_timeout", literal::duration(scope.time("proxy_timeout", 600_000, report)))];
    let reads = !route.sni.is_empty() || !route.alpn.is_empty() || takes_proxy;
    if reads && scope.last("preread_timeout").is_some() {
        let millis = scope.time("preread_timeout", 30_000, report);
        entries.push(("preface_timeout", literal::duration(millis)));
    }
    entries.extend(access(scope, report));
    entries.extend(limit(scope, report));
    if takes_proxy {
        entries.push(("proxy_protocol", literal::quoted("required")));
        let trusted = scope.all(&["set_real_ip_from"]);
        let mut from: Vec<Clients> = Vec::new();
        for line in trusted {
            match Network::parse(line.word(0)) {
                Some(network) => from.push(Clients::Network(network)),
                None => report.report(line.place, "a peer that is no network"),
            }
        }
        if from.is_empty() {
            from = Network::everybody().map(Clients::Network).to_vec();
        }
        entries.push(("proxy_protocol_from", networks::array(&from)));
    }
    entries
}

/// `allow` and `deny`.
fn access(scope: &Scope<'_>, report: &Report) -> Vec<Entry> {
    let mut lists = Lists::default();
    for line in scope.all(&["allow", "deny"]) {
        if lists.is_settled {
            break;
        }
        let is_allow = line.name == "allow";
        if line.word(0) == "all" {
            if is_allow {
                lists.is_settled = true;
            } else if let Err(reason) = lists.refuse(&[]) {
                report.urgent(line.place, reason);
            }
            continue;
        }
        let Some(network) = Network::parse(line.word(0)) else {
            report.urgent(line.place, "evenkeel allows and denies IP networks");
            continue;
        };
        let clients = vec![Clients::Network(network)];
        if is_allow {
            lists.accept(&clients);
        } else if let Err(reason) = lists.refuse(&[(false, clients)]) {
            report.urgent(line.place, reason);
        }
    }
    let mut entries = Vec::new();
    if let Some(allow) = &lists.allow {
        entries.push(("allow", networks::array(allow)));
    }
    if !lists.deny.is_empty() {
        entries.push(("deny", networks::array(&lists.deny)));
    }
    entries
}

/// `limit_conn` by the client address; of several, the smallest.
fn limit(scope: &Scope<'_>, report: &Report) -> Option<Entry> {
    let mut most: Option<u64> = None;
    for line in scope.all(&["limit_conn"]) {
        let zone = scope.stream.iter().find(|it| {
            let name = it.word(1).strip_prefix("zone=").and_then(|it| it.split(':').next());
            it.name == "limit_conn_zone" && name == Some(line.word(0))
        });
        let key = zone.map_or("", |zone| zone.word(0));
        let number = line.word(1).parse::<u64>().ok();
        match (key, number) {
            ("$binary_remote_addr" | "$remote_addr", Some(number)) => {
                most = Some(most.map_or(number, |most| most.min(number)));
            }
            ("", _) => {
                report
                    .refuse(line.place, format!("there is no zone {:?}; define it", line.word(0)));
            }
            (_, None) => report.refuse(line.place, "limit_conn without a number; write one"),
            _ => report.report(line.place, "a limit of something else than a client address"),
        }
    }
    most.map(|most| ("clients_max", most.to_string()))
}

/// Keys of the backends: `entries`, `health`, and the number of attempts.
fn backend_entries(scope: &Scope<'_>, report: &Report) -> (Vec<Entry>, Vec<Entry>, Option<u64>) {
    let connect = scope.time("proxy_connect_timeout", 60_000, report);
    let mut entries = vec![("connect_timeout", literal::duration(connect))];
    if scope.is_on("proxy_protocol") {
        let version = scope.last("proxy_protocol_version").map_or("", |line| line.word(0));
        entries.push(("send_proxy", literal::quoted(if version == "2" { "v2" } else { "v1" })));
    }
    if let Some(line) = scope.last("proxy_bind") {
        let word = line.word(0);
        if word.starts_with("$remote_addr") && line.word(1) == "transparent" {
            entries.push(("source", literal::list(["client"])));
        } else if let Ok(ip) = word.parse::<std::net::IpAddr>() {
            entries.push(("source", literal::list([ip.to_string()])));
        } else if word != "off" {
            report.report(
                line.place,
                "evenkeel connects from its own addresses, or from the client's",
            );
        }
    }
    if scope.is_on("proxy_socket_keepalive") {
        if let Some(line) = scope.last("proxy_socket_keepalive") {
            report.near(
                line.place,
                "keepalive: the file gives no time; evenkeel needs one (the kernel's: 2h)",
            );
        }
        entries.push(("keepalive", "\"2h\"".to_owned()));
    }
    for name in [
        "proxy_upload_rate",
        "proxy_download_rate",
        "proxy_limit_rate",
        "proxy_next_upstream_timeout",
    ] {
        if let Some(line) = scope.last(name).filter(|line| !matches!(line.word(0), "0" | "0s"))
            && let Some(keyword) = keywords::stream(name)
        {
            report.report(line.place, keyword.text);
        }
    }
    let is_off = scope.last("proxy_next_upstream").is_some_and(|line| line.word(0) == "off");
    let tries = scope.last("proxy_next_upstream_tries").and_then(|line| line.word(0).parse().ok());
    let tries = if is_off { Some(1) } else { tries.filter(|tries: &u64| *tries > 0) };
    (entries, health(scope, report), tries)
}

/// `health_check` of the commercial version.
fn health(scope: &Scope<'_>, report: &Report) -> Vec<Entry> {
    let Some(line) = scope.last("health_check") else { return Vec::new() };
    let value =
        |name: &str| line.arguments.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    let interval = value("interval").and_then(|it| literal::millis(it, 1000)).unwrap_or(5000);
    let timeout = scope.time("health_check_timeout", 5000, report).min(60_000);
    let mut entries = vec![
        ("check", literal::quoted("tcp")),
        ("interval", literal::duration(interval)),
        ("interval_down", literal::duration(interval)),
        ("timeout", literal::duration(timeout)),
        ("rise", value("passes").unwrap_or("1").to_owned()),
        ("fall", value("fails").unwrap_or("1").to_owned()),
    ];
    if let Some(port) = value("port") {
        entries.push(("port", port.to_owned()));
    }
    if value("match").is_some() || line.arguments.iter().any(|it| it == "udp") {
        report.urgent(line.place, "the probe only connects: write health.exchange by hand");
    }
    entries
}

/// Notes for lines that a table settles, and unknown lines.
pub(super) fn notes(lines: &[Directive], report: &Report) {
    const READ_ELSEWHERE: &[&str] = &[
        "proxy_ssl",
        "proxy_upload_rate",
        "proxy_download_rate",
        "proxy_limit_rate",
        "proxy_next_upstream_timeout",
        "geo",
        "split_clients",
    ];
    for line in lines {
        let Some(keyword) = keywords::stream(&line.name) else {
            report
                .refuse(line.place, format!("nginx has no {:?} in stream; correct it", line.name));
            continue;
        };
        let is_off = matches!(line.word(0), "off" | "0");
        if keyword.treatment == Treatment::Report
            && !is_off
            && !READ_ELSEWHERE.contains(&line.name.as_str())
        {
            report.report(line.place, keyword.text);
        }
    }
}
