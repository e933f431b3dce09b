//! Rules for every input: parts that `evenkeel check` refuses are merged, left out or replaced.

use std::collections::{BTreeSet, HashMap};

use super::binding;
use super::draft::{Address, Backend, Draft, Frontend, LeftOut, Server};
use super::networks::{self, Clients, Network};
use super::report::Report;

/// Applies the rules.
pub(super) fn finish(draft: &mut Draft, report: &Report) {
    drop_empty_backends(draft, report);
    for backend in &mut draft.backends {
        servers(backend, report);
    }
    binding::merge(draft, report);
    keep_one(draft);
    client_ports(draft, report);
    binding::page(draft, report);
}

/// A backend without servers refuses its clients: so does a frontend without one.
fn drop_empty_backends(draft: &mut Draft, report: &Report) {
    let empty: BTreeSet<String> = draft
        .backends
        .iter()
        .filter(|backend| backend.is_empty())
        .map(|backend| backend.name.clone())
        .collect();
    let mut routed: BTreeSet<&str> = BTreeSet::new();
    for frontend in &mut draft.frontends {
        if frontend.backend.as_ref().is_some_and(|backend| empty.contains(backend)) {
            frontend.backend = None;
            let is_routed = !frontend.sni.is_empty() || !frontend.alpn.is_empty();
            if !is_routed && frontend.left_out.is_none() {
                let reason = "its backend has no servers, so it refuses every client: left out";
                report.urgent(frontend.origin.first, reason);
                frontend.left_out = Some(LeftOut::Unroutable);
            }
        }
        let routes = frontend.sni.iter().chain(&frontend.alpn);
        routed.extend(routes.filter_map(|(_, name)| empty.get(name)).map(String::as_str));
    }
    draft
        .backends
        .retain(|backend| !empty.contains(&backend.name) || routed.contains(backend.name.as_str()));
    // A name that leads to refusal is a name that leads to a server that is down.
    for backend in draft.backends.iter_mut().filter(|backend| backend.is_empty()) {
        backend.servers.push(placeholder(backend));
    }
}

fn placeholder(backend: &Backend) -> Server {
    Server {
        name: "none".to_owned(),
        address: Address::Unknown(backend.name.clone(), None),
        place: backend.origin.first,
        ..Server::default()
    }
}

fn servers(backend: &mut Backend, report: &Report) {
    keep_known(backend);
    let is_weighted = backend.servers.iter().any(|server| server.weight.is_some());
    let mut merged: Vec<(Server, u32)> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    for server in backend.servers.drain(..) {
        let weight = server.weight.unwrap_or(1);
        let at = *positions.entry(server.address.text()).or_insert(merged.len());
        match merged.get_mut(at) {
            // Of two, the one that gets sessions.
            Some((first, sum)) if first.is_out() || server.is_out() => {
                let out = if server.is_out() { &server.name } else { &first.name };
                let reason =
                    format!("the address of server {out}, which gets no session: left out");
                report.near(server.place, reason);
                if !server.is_out() {
                    (*first, *sum) = (server, weight);
                }
            }
            Some((first, sum)) if first.is_backup == server.is_backup => {
                *sum = sum.saturating_add(weight);
                let reason = format!(
                    "the address of server {}: one server with the weight and the limit of both",
                    first.name
                );
                report.near(server.place, reason);
                add_limit(first, &server);
            }
            Some((first, _)) => {
                let reason =
                    format!("the address of server {}, which is no backup: left out", first.name);
                report.report(server.place, reason);
            }
            None => merged.push((server, weight)),
        }
    }
    let is_merged = merged.iter().any(|(server, sum)| *sum != server.weight.unwrap_or(1));
    let needs_weights = is_weighted || (is_merged && merged.len() > 1);
    backend.servers = merged
        .into_iter()
        .map(|(server, sum)| Server { weight: needs_weights.then_some(sum), ..server })
        .collect();
    scale(backend, report);
    names(backend);
}

/// Weights beyond the highest of evenkeel become smaller ones with the same proportion.
fn scale(backend: &mut Backend, report: &Report) {
    const WEIGHT_MAX: u32 = 1000;
    let Some(most) = backend.servers.iter().filter_map(|server| server.weight).max() else {
        return;
    };
    if most <= WEIGHT_MAX {
        return;
    }
    for server in &mut backend.servers {
        let Some(weight) = server.weight.filter(|weight| *weight > 0) else { continue };
        let share = u64::from(weight) * u64::from(WEIGHT_MAX);
        // Half of the divisor rounds to the nearest.
        let scaled = (share + u64::from(most) / 2) / u64::from(most);
        let scaled = u32::try_from(scaled).unwrap_or(WEIGHT_MAX).max(1);
        let reason = format!(
            "weight {weight} becomes {scaled}: a weight of evenkeel is at most {WEIGHT_MAX}, and \
             those of a backend keep their proportion"
        );
        report.near(server.place, reason);
        server.weight = Some(scaled);
    }
}

/// Adds the limit of a second server with the same address; none has no limit.
fn add_limit(first: &mut Server, second: &Server) {
    let limit = |server: &Server| -> Option<u64> {
        let (_, value) = server.entries.iter().find(|(key, _)| *key == "sessions_max")?;
        value.parse().ok()
    };
    let both = limit(first).zip(limit(second));
    first.entries.retain(|(key, _)| *key != "sessions_max");
    if let Some((a, b)) = both {
        first.entries.push(("sessions_max", (a + b).to_string()));
    }
}

/// Each name is there once.
fn names(backend: &mut Backend) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for server in &mut backend.servers {
        let count = seen.entry(server.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            server.name = format!("{}-{count}", server.name);
        }
    }
}

/// `evenkeel check` wants a frontend: if every one is left out, they refuse every client.
fn keep_one(draft: &mut Draft) {
    if draft.frontends.iter().any(|frontend| frontend.left_out.is_none()) {
        return;
    }
    binding::bind_once(&mut draft.frontends);
    let backends: BTreeSet<String> = draft.backends.iter().map(|it| it.name.clone()).collect();
    let mut missing: Vec<Backend> = Vec::new();
    for frontend in &mut draft.frontends {
        frontend.left_out = None;
        frontend.entries.retain(|(key, _)| *key != "deny" && *key != "allow");
        let all = Network::everybody().map(Clients::Network);
        frontend
            .entries
            .push(("deny", format!("{} # every client is refused", networks::array(&all))));
        let exists = frontend.backend.as_ref().is_some_and(|name| backends.contains(name));
        if !exists && frontend.sni.is_empty() && frontend.alpn.is_empty() {
            frontend.backend = Some(frontend.name.clone());
            if !backends.contains(&frontend.name) {
                missing.push(unreachable(frontend));
            }
        }
    }
    draft.backends.extend(missing);
}

fn unreachable(frontend: &Frontend) -> Backend {
    let mut backend = Backend {
        name: frontend.name.clone(),
        origin: frontend.origin,
        health: vec![("check", "\"off\"".to_owned())],
        ..Backend::default()
    };
    backend.servers.push(placeholder(&backend));
    backend
}

/// A server without a port has that of its frontends, if they have one port together. One behind a
/// unix socket has none, and is left out.
fn client_ports(draft: &mut Draft, report: &Report) {
    let mut asked: HashMap<&str, BTreeSet<Option<(u16, u16)>>> = HashMap::new();
    let mut without: BTreeSet<&str> = BTreeSet::new();
    for frontend in &draft.frontends {
        let routes = frontend.sni.iter().chain(&frontend.alpn).map(|(_, name)| name);
        for name in routes.chain(&frontend.backend) {
            let ports = frontend.binds.iter().map(|bind| bind.ports);
            asked.entry(name).or_default().extend(ports);
            let has_unix = frontend.binds.iter().any(|bind| bind.ports.is_none());
            if has_unix && frontend.left_out.is_none() {
                without.insert(name);
            }
        }
    }
    for backend in &mut draft.backends {
        let has_none = without.contains(backend.name.as_str());
        let mut ports = asked.get(backend.name.as_str()).into_iter().flatten();
        let port = match (ports.next(), ports.next()) {
            (Some(&Some((first, last))), None) if first == last => Some(first),
            _ => None,
        };
        for server in &mut backend.servers {
            let Address::ClientPort(host) = &server.address else { continue };
            if let Some(port) = port {
                server.address = Address::Port(host.clone(), port);
            } else if has_none {
                let reason = "no port, and neither has a client of a unix socket: write the port";
                report.urgent(server.place, reason);
                server.address = Address::Unknown(host.clone(), None);
            }
        }
        keep_known(backend);
    }
}

/// A server that evenkeel cannot reach is left out, unless it is the only one.
fn keep_known(backend: &mut Backend) {
    if backend.servers.iter().any(|server| server.address.is_known()) {
        backend.servers.retain(|server| server.address.is_known());
    }
}
