//! Frontends: one for each group of addresses with the same routes and the same access.

use std::collections::BTreeSet;

use super::access::{self, Access};
use super::arguments;
use super::backends;
use super::binds::{self, Input};
use super::lexer::Environment;
use super::limits::{self, Bound};
use super::routing::{self, Route};
use super::sections::{Proxy, Sections};
use super::timeouts;
use crate::convert::draft::{Bind, Entry, Frontend, LeftOut};
use crate::convert::literal;
use crate::convert::networks;
use crate::convert::report::{Place, Report};

/// The settings that the addresses of one frontend share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    route: Route,
    access: Access,
    has_tls: bool,
    entries: Vec<Entry>,
}

/// Converts the part of a proxy that takes clients, and adds what its rules use.
pub(super) fn convert(
    proxy: &Proxy,
    sections: &Sections,
    environment: &Environment<'_>,
    all: &mut Used,
    report: &Report,
) -> Vec<Frontend> {
    let groups = groups(proxy, sections, environment, report);
    let mut frontends = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (group, binds) in &groups {
        let mut name = proxy.name.clone();
        if !names.is_empty() {
            let port = binds.first().and_then(|bind| bind.ports).map_or(0, |(first, _)| first);
            name = format!("{name}-{port}");
            while names.contains(&name) {
                name.push('x');
            }
        }
        names.push(name.clone());
        all.lines.extend(&group.access.lines);
        if group.access.reads_payload {
            all.reads_payload.insert(proxy.place());
        }
        frontends.push(frontend(proxy, &name, group, binds, sections, environment, report));
    }
    note_bounds(proxy, &groups, &frontends, report);
    frontends
}

/// A limit of a section that becomes several frontends.
fn note_bounds(
    proxy: &Proxy,
    groups: &[(Group, Vec<Bind>)],
    frontends: &[Frontend],
    report: &Report,
) {
    let mut seen: BTreeSet<Place> = BTreeSet::new();
    let used = groups.iter().zip(frontends).filter(|(_, made)| made.left_out.is_none());
    for ((group, _), _) in used {
        let mut places: BTreeSet<Place> = own_bounds(proxy).iter().map(|it| it.place).collect();
        places.extend(group.access.bounds.iter().map(|bound| bound.place));
        for place in places.into_iter().filter(|place| !seen.insert(*place)) {
            let reason = "HAProxy counts the clients of all addresses together: evenkeel those of \
                          each frontend that the section becomes alone";
            report.near(place, reason);
        }
    }
}

/// Addresses in groups, those without TLS first.
fn groups(
    proxy: &Proxy,
    sections: &Sections,
    environment: &Environment<'_>,
    report: &Report,
) -> Vec<(Group, Vec<Bind>)> {
    let routes = routing::Rules::of(proxy, report);
    let inputs = binds::binds(proxy, environment, report);
    let mut bounds = routes.port_bounds();
    let every = used(routes.backends(), sections);
    bounds.extend(access::Rules::of(proxy, &every, false, sections, report).port_bounds());
    let mut groups: Vec<(Group, Vec<Bind>)> = Vec::new();
    let mut inputs = binds::split(inputs, &bounds);
    inputs.sort_by_key(|input| input.has_tls);
    for input in inputs {
        let route = routes.on(input.bind.ports);
        let backends = used(route.backends(), sections);
        let rules = access::Rules::of(proxy, &backends, route.is_one(), sections, report);
        let Input { bind, has_tls, accepts_proxy, entries } = input;
        let access = rules.on(bind.ports, accepts_proxy);
        let group = Group { route, access, has_tls, entries };
        match groups.iter_mut().find(|(other, _)| *other == group) {
            Some((_, binds)) => binds.push(bind),
            None => groups.push((group, vec![bind])),
        }
    }
    groups
}

/// The backends of these names, each once.
fn used<'a, 'b>(names: impl Iterator<Item = &'b str>, sections: &'a Sections) -> Vec<&'a Proxy> {
    let mut seen: BTreeSet<Place> = BTreeSet::new();
    let named = names.filter_map(|name| sections.backend(name));
    named.filter(|backend| seen.insert(backend.place())).collect()
}

fn frontend(
    proxy: &Proxy,
    name: &str,
    group: &Group,
    binds: &[Bind],
    sections: &Sections,
    environment: &Environment<'_>,
    report: &Report,
) -> Frontend {
    let Group { route, access, .. } = group;
    let backends = used(route.backends(), sections);
    let reads_hello = !route.sni.is_empty() || !route.alpn.is_empty();
    if let Some(place) = access.tls_only.filter(|_| route.backend.is_some() || !reads_hello) {
        let reason = "clients that do not begin TLS are not refused: they go to `backend`";
        report.urgent(place, reason);
    }
    let mut entries = group.entries.clone();
    entries.extend(own_entries(proxy, report));
    let mut bounds = own_bounds(proxy);
    access.bounds.iter().for_each(|bound| limits::add(&mut bounds, *bound, report));
    entries.extend(bounds.iter().map(Bound::entry));
    entries.extend(timeouts::of_frontend(proxy, &backends, report));
    if !route.sni.is_empty() || !route.alpn.is_empty() {
        entries.extend(preface(proxy));
    }
    if let Some(allow) = &access.lists.allow {
        entries.push(("allow", networks::array(allow)));
    }
    if !access.lists.deny.is_empty() {
        entries.push(("deny", networks::array(&access.lists.deny)));
    }
    if let Some(from) = &access.proxy_protocol {
        entries.push(("proxy_protocol", literal::quoted("required")));
        entries.push(("proxy_protocol_from", networks::array(from)));
    }
    let left_out = left_out(proxy, group, binds, &backends, environment, report);
    let named = |entries: &[(String, String)]| {
        entries.iter().map(|(key, backend)| (key.clone(), literal::name(backend))).collect()
    };
    Frontend {
        name: literal::name(name),
        origin: proxy.origin,
        binds: binds.to_vec(),
        backend: route.backend.as_deref().map(literal::name),
        sni: named(&route.sni),
        alpn: named(&route.alpn),
        entries,
        left_out,
    }
}

/// Keys that a line of the frontend sets.
fn own_entries(proxy: &Proxy, report: &Report) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some((backlog, _)) = number(proxy, "backlog") {
        entries.push(("backlog", backlog.min(65_535).to_string()));
    }
    if let Some(entry) = backends::keepalive_of(proxy, "clitcpka", "clitcpka-idle", report) {
        entries.push(entry);
    }
    entries
}

/// Limits that lines of the frontend set, other than rules.
fn own_bounds(proxy: &Proxy) -> Vec<Bound> {
    let mut bounds = Vec::new();
    if let Some((most, place)) = number(proxy, "maxconn") {
        let most = most.min(10_000_000);
        bounds.push(Bound { key: "sessions_max", most, period: None, place });
    }
    if let Some(line) = proxy.last(&["rate-limit", "sessions"])
        && let Ok(most @ 1..) = line.word(2).parse::<u64>()
    {
        let place = line.place;
        bounds.push(Bound { key: "rate.sessions", most, period: Some(1000), place });
    }
    bounds
}

/// The number of a line, if it is more than 0.
fn number(proxy: &Proxy, name: &str) -> Option<(u64, Place)> {
    let line = proxy.last(&[name])?;
    let number = arguments::integer(line.word(1)).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).map(|number| (number, line.place))
}

/// The time for a `ClientHello`: the inspection delay.
fn preface(proxy: &Proxy) -> Option<Entry> {
    let line = proxy.last(&["tcp-request", "inspect-delay"])?;
    let millis = literal::millis(line.word(2), 1).filter(|millis| *millis > 0)?;
    Some(("preface_timeout", literal::duration(millis)))
}

/// Why a frontend cannot be used.
fn left_out(
    proxy: &Proxy,
    group: &Group,
    binds: &[Bind],
    backends: &[&Proxy],
    environment: &Environment<'_>,
    report: &Report,
) -> Option<LeftOut> {
    if proxy.is_disabled() {
        report.near(proxy.place(), "disabled: left out");
        return Some(LeftOut::Disabled);
    }
    let mut places: Vec<Place> = binds.iter().map(|bind| bind.place).collect();
    places.dedup();
    let leads_somewhere = group.route.leads_somewhere();
    if !leads_somewhere {
        let reason = "no default_backend, and no rule that can be converted: left out";
        report.urgent(proxy.place(), reason);
    }
    if group.has_tls {
        let passes = !backends.is_empty()
            && backends.iter().all(|backend| backends::speaks_tls(backend, environment, report));
        for place in places {
            let reason = if passes {
                "TLS is not ended: the bytes of the client go to the servers, which present their \
                own certificates"
            } else {
                "TLS is not ended: forwarded as it is, the servers would get TLS that they do not \
                speak"
            };
            report.urgent(place, reason);
        }
        if !passes {
            return Some(LeftOut::Tls);
        }
    }
    (!leads_somewhere).then_some(LeftOut::Unroutable)
}

/// What the rules of all proxies use.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Lines that a limit needed, and rules on requests that became lists or are reported.
    pub(super) lines: BTreeSet<Place>,
    /// Proxies with a rule on the first bytes of the client.
    pub(super) reads_payload: BTreeSet<Place>,
}
