//! `server` blocks of `stream`: a frontend for each, and the keys of the backends behind it.

use super::backend_keys;
use super::keywords::{self, Block};
use super::lexer::Directive;
use super::listen::{self, Listen};
use super::maps::{self, Route, Variables};
use super::scope::Scope;
use crate::convert::draft::{Entry, Frontend, LeftOut, Origin};
use crate::convert::first_match::Lists;
use crate::convert::keyword::Treatment;
use crate::convert::literal;
use crate::convert::networks::{self, Clients, Network};
use crate::convert::report::{Place, Report};

/// A list of peers, since one has to be there: no peer has this address (RFC 919).
const NOBODY: &str = "[\"255.255.255.255/32\"] # no peer: write the addresses of yours";

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

/// Converts a server: a frontend for each group of addresses that are listened on alike.
pub(super) fn convert(scope: &Scope<'_>, report: &Report) -> Vec<Converted> {
    let server = scope.server;
    let lines = server.inside();
    if !lines.iter().any(|line| line.name == "listen") {
        report.refuse(server.place, "a server without listen; write an address");
    }
    let target = lines.iter().rfind(|line| line.name == "proxy_pass");
    let variables = Variables {
        lines: scope.stream.iter().copied().chain(lines.iter()).collect(),
        has_preread: scope.is_on("ssl_preread"),
    };
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
    let place = target.map_or(server.place, |target| target.place);
    let (entries, health, tries) = backend_keys::of_server(scope, report);
    let converted = |all: Listen| Converted {
        frontend: frontend(scope, all, &route, report),
        route: route.clone(),
        place,
        entries: entries.clone(),
        health: health.clone(),
        tries,
    };
    let groups = listens(scope, report);
    for line in scope.all(&["limit_conn"]) {
        let servers = scope.zones.get(line.word(0)).copied().unwrap_or_default();
        if servers.max(groups.len()) > 1 {
            let reason = "the zone counts the clients of several servers or addresses together: \
                          evenkeel counts those of each frontend alone";
            report.near(line.place, reason);
        }
    }
    groups.into_iter().map(converted).collect()
}

/// The addresses of a server, in a group for each kind: with TLS, with a PROXY header, with options
/// of sockets.
fn listens(scope: &Scope<'_>, report: &Report) -> Vec<Listen> {
    let mut groups: Vec<Listen> = Vec::new();
    let is_elsewhere =
        |line: &Directive| listen::is_tcp(line) && scope.elsewhere.contains(line.word(0));
    let lines = scope.server.inside().iter().filter(|line| line.name == "listen");
    for line in lines.filter(|line| !is_elsewhere(line)) {
        let one = listen::listen(line, report);
        let kind = |it: &Listen| (it.has_tls, it.takes_proxy, it.entries.clone());
        match groups.iter_mut().find(|group| kind(group) == kind(&one)) {
            Some(group) => group.binds.extend(one.binds),
            None => groups.push(one),
        }
    }
    // An address that cannot be had (UDP) is no frontend beside another one.
    if groups.iter().any(|group| !group.binds.is_empty()) {
        groups.retain(|group| !group.binds.is_empty());
    }
    groups
}

fn frontend(scope: &Scope<'_>, all: Listen, route: &Route, report: &Report) -> Frontend {
    let server = scope.server;
    let mut entries = all.entries.clone();
    entries.extend(frontend_entries(scope, route, all.takes_proxy, report));
    Frontend {
        name: name(&all),
        origin: Origin { first: server.place, last: server.last },
        left_out: left_out(scope, &all, route, report),
        binds: all.binds,
        entries,
        ..Frontend::default()
    }
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
    let to_server = scope.last("proxy_ssl").filter(|line| line.is("on"));
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
    let idle = literal::duration(scope.time("proxy_timeout", 600_000, report));
    let mut entries = vec![("idle_timeout", idle.clone())];
    if scope.is_on("proxy_half_close") {
        // A connection that is half closed has the time of any other.
        entries.push(("half_closed_timeout", idle));
    }
    let reads_hello = !route.sni.is_empty() || !route.alpn.is_empty();
    if reads_hello || takes_proxy {
        let name = if reads_hello { "preread_timeout" } else { "proxy_protocol_timeout" };
        let millis = scope.time(name, 30_000, report);
        entries.push(("preface_timeout", literal::duration(millis)));
    }
    let mut lists = access(scope, report);
    entries.extend(limit(scope, takes_proxy, report));
    if takes_proxy {
        let from = peers(scope, &mut lists, report);
        entries.push(("proxy_protocol", literal::quoted("required")));
        entries.push(("proxy_protocol_from", from));
    }
    if let Some(allow) = &lists.allow {
        entries.push(("allow", networks::array(allow)));
    }
    if !lists.deny.is_empty() {
        entries.push(("deny", networks::array(&lists.deny)));
    }
    entries
}

/// The peers whose PROXY header is believed. Without `set_real_ip_from`, nginx compares `allow` and
/// `deny` with the peer, and evenkeel with the address in the header.
fn peers(scope: &Scope<'_>, lists: &mut Lists, report: &Report) -> String {
    let mut from: Vec<Clients> = Vec::new();
    let lines = scope.all(&["set_real_ip_from"]);
    for line in &lines {
        match Network::parse(line.word(0)) {
            Some(network) => from.push(Clients::Network(network)),
            None if line.word(0) == "unix:" => {
                report.near(line.place, "evenkeel believes every peer of a unix socket");
            }
            None => {
                let reason = "evenkeel believes peers by their address only: write that of the \
                              host into proxy_protocol_from";
                report.urgent(line.place, reason);
            }
        }
        report.near(line.place, "a connection from another peer is refused");
    }
    if !from.is_empty() {
        return networks::array(&from);
    }
    if !lines.is_empty() {
        return NOBODY.to_owned();
    }
    let reason = "no set_real_ip_from: nginx uses the address of the peer, evenkeel that in the \
                  PROXY header";
    report.near(scope.server.place, reason);
    let everybody = Network::everybody().map(Clients::Network);
    if networks::covers(&lists.deny, &everybody) {
        return networks::array(&everybody);
    }
    if !lists.deny.is_empty() {
        let reason = "deny is for the peer, since there is no set_real_ip_from: evenkeel has a \
                      list of the peers that it admits only";
        for line in scope.all(&["deny"]).iter().filter(|line| line.word(0) != "all") {
            report.urgent(line.place, reason);
        }
        lists.deny.clear();
    }
    networks::array(&lists.allow.take().unwrap_or_else(|| everybody.to_vec()))
}

/// `allow` and `deny`.
fn access(scope: &Scope<'_>, report: &Report) -> Lists {
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
    lists
}

/// `limit_conn` by the client address; of several, the smallest.
fn limit(scope: &Scope<'_>, takes_proxy: bool, report: &Report) -> Option<Entry> {
    let mut most: Option<u64> = None;
    let counts_peers = takes_proxy && scope.all(&["set_real_ip_from"]).is_empty();
    for line in scope.all(&["limit_conn"]) {
        let zone = scope.stream.iter().find(|it| {
            let name = it.word(1).strip_prefix("zone=").and_then(|it| it.split(':').next());
            it.name == "limit_conn_zone" && name == Some(line.word(0))
        });
        let key = zone.map_or("", |zone| zone.word(0));
        let number = line.word(1).parse::<u64>().ok();
        match (key, number) {
            ("$binary_remote_addr" | "$remote_addr", Some(_)) if counts_peers => {
                let reason = "it counts the connections of the peer that sends the PROXY header, \
                              since there is no set_real_ip_from: evenkeel would count those of \
                              each client behind it";
                report.urgent(line.place, reason);
            }
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
            let (name, remedy) = (&line.name, keywords::remedy_in(Block::Stream, &line.name));
            report.refuse(line.place, format!("nginx has no {name:?} in stream; {remedy}"));
            continue;
        };
        let is_off = line.is("off") || line.word(0) == "0";
        if keyword.treatment == Treatment::Report
            && !is_off
            && !READ_ELSEWHERE.contains(&line.name.as_str())
        {
            report.report(line.place, keyword.text);
        }
    }
}
