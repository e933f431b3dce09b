//! What only the whole configuration shows: references, duplicates, and servers that are the
//! balancer itself.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;

use super::addresses::ServerAddress;
use super::backend_settings::{BackendSettings, Server};
use super::bind_address::BindAddress;
use super::chains::{Chains, Reached};
use super::client_ports;
use super::enums::ProxyProtocol;
use super::frontend_settings::FrontendSettings;
use super::health_rules;
use super::problems::{Problems, Sink, Span, nearest, shown};
use super::settings::{Config, Observe};
use crate::sys::address::Address;
use crate::sys::local_addresses::LocalAddresses;
use crate::sys::zone::Shown;

/// Addresses to listen on, over all frontends: each is a descriptor in every worker.
const ADDRESSES_MAX: usize = 4096;

/// DNS servers: a name that none of them knows is asked for at each.
const RESOLVERS_MAX: usize = 8;

/// Backends that are compared with a name that none of them has.
const NAMES_MAX: usize = 1000;

/// Reports what is wrong between sections that may each be right. The answer is the same on every
/// machine; [`on_this_machine`] has the rest.
pub(super) fn check(config: &Config, sink: &Sink<'_>) {
    backend_references(config, sink);
    for frontend in &config.frontends {
        believed_peers(frontend, sink);
    }
    for backend in &config.backends {
        servers(backend, sink);
        health_rules::check(backend, sink);
        let is_unix = |server: &Server| matches!(server.address, ServerAddress::Unix(_));
        // The targets of an SRV name have ports.
        let all_unix = backend.srv.is_none()
            && !backend.servers.is_empty()
            && backend.servers.iter().all(is_unix);
        if backend.health.port.is_some() && all_unix {
            let name = shown(&backend.name);
            let text = format!("health.port of backend {name}, whose servers are unix sockets");
            sink.push_at(backend.span, text + ", which have no port; remove it");
        }
    }
    let (resolvers, span) = &config.global.resolver;
    if resolvers.len() > RESOLVERS_MAX {
        let count = resolvers.len();
        let text = format!("{count} DNS servers, more than {RESOLVERS_MAX}; write fewer");
        sink.push_at(*span, text);
    }
    let listened = config.frontends.iter().flat_map(|frontend| &frontend.bind);
    let count: usize = listened.map(|(bind, _)| bind.count()).sum();
    if let Some(last) = config.frontends.last().filter(|_| count > ADDRESSES_MAX) {
        let text =
            format!("{count} addresses to listen on, more than {ADDRESSES_MAX}; listen on fewer");
        sink.push_at(last.span, text);
        return;
    }
    binds(config, sink);
    client_ports::check(config, sink);
    // Loopback is this machine everywhere.
    cycles(config, &LocalAddresses::default(), sink);
}

/// What is wrong with a configuration on the machine whose addresses are `here`: servers that are
/// the balancer itself, reached through an address of the machine.
///
/// # Errors
/// Every such server.
pub fn on_this_machine(config: &Config, here: &LocalAddresses) -> Result<(), Problems> {
    let name = config.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let sink = Sink::new(&name, "");
    cycles(config, here, &sink);
    sink.finish()
}

/// Whether the kernel allows only one of two addresses to be bound: they are equal, or have the
/// same port and one is the wildcard of their family. An IPv6 socket of evenkeel takes no IPv4
/// connection (`IPV6_V6ONLY`), so "[::]:80" and "0.0.0.0:80" are two.
#[must_use]
pub fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let wildcard = a.ip().is_unspecified() || b.ip().is_unspecified();
    a == b || (a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && wildcard)
}

/// Somebody must be believed where a PROXY header is required, and only there. Clients of a unix
/// socket always are.
fn believed_peers(frontend: &FrontendSettings, sink: &Sink<'_>) {
    let name = shown(&frontend.name);
    let is_unix = |(bind, _): &(BindAddress, Span)| matches!(bind, BindAddress::Unix(_));
    let all_unix = !frontend.bind.is_empty() && frontend.bind.iter().all(is_unix);
    match (frontend.proxy_protocol, frontend.proxy_protocol_from.is_listed()) {
        (ProxyProtocol::Required, false) if !all_unix => {
            let text = format!(
                "frontend {name} requires a PROXY header and believes nobody; add \
                 proxy_protocol_from = [\"192.0.2.1\"] with the addresses of the balancers in front"
            );
            sink.push_at(frontend.span, text);
        }
        (ProxyProtocol::Off, true) => {
            let text = format!(
                "frontend {name} has proxy_protocol_from, which is only used with proxy_protocol = \
                 \"required\"; write that, or remove this"
            );
            sink.push_at(frontend.span, text);
        }
        _ => {}
    }
}

fn backend_references(config: &Config, sink: &Sink<'_>) {
    let names: BTreeSet<&str> = config.backends.iter().map(|backend| &*backend.name).collect();
    for frontend in &config.frontends {
        let own = frontend.backend.iter().map(|(name, span)| ("backend".to_owned(), name, *span));
        let routes = [("sni", &frontend.sni), ("alpn", &frontend.alpn)];
        let routes = routes.into_iter().flat_map(|(key, routes)| {
            routes.iter().map(move |route| {
                (format!("{key} {}", shown(&route.name)), &route.backend, route.span)
            })
        });
        for (key, name, span) in own.chain(routes) {
            if names.contains(name.as_str()) {
                continue;
            }
            let near = if sink.is_full() {
                None
            } else {
                nearest(name, names.iter().copied().take(NAMES_MAX))
            };
            let remedy = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add one of that name".to_owned(),
            };
            sink.push_at(span, format!("{key} = {}: no such backend; {remedy}", shown(name)));
        }
    }
}

/// Each name and each address is in a backend once.
fn servers(backend: &BackendSettings, sink: &Sink<'_>) {
    let mut names: HashMap<&str, Span> = HashMap::new();
    let mut addresses: HashMap<String, &Server> = HashMap::new();
    let none = ServerAddress::default();
    for server in &backend.servers {
        let name = names.insert(&server.name, server.span).filter(|_| !server.name.is_empty());
        if let Some(first) = name {
            let (name, owner) = (shown(&server.name), shown(&backend.name));
            let owner = with_line(format!("backend {owner}"), first);
            let text = format!("server {name} is already in {owner}");
            sink.push_at(server.span, text + "; give it another name");
        }
        if let ServerAddress::Ip(address) = server.address
            && backend.source.lacks_family_of(address)
        {
            let family = if address.ip().to_canonical().is_ipv4() { "IPv4" } else { "IPv6" };
            let text = format!("server {} needs a source of its family", shown(&server.name));
            sink.push_at(server.span, format!("{text}; add an {family} address to `source`"));
        }
        // As text, a host name with a dot at its end equals one without.
        let first = addresses.insert(server.address.to_string(), server);
        if let Some(first) = first.filter(|_| server.address != none) {
            let name = shown(&server.name);
            let other = with_line(format!("server {}", shown(&first.name)), first.span);
            let text = format!("server {name} has the address of {other}");
            sink.push_at(server.span, text + "; remove one of them, and use weight for its share");
        }
    }
}

/// Every address is bound once.
fn binds(config: &Config, sink: &Sink<'_>) {
    let mut taken: HashMap<u16, Vec<(SocketAddr, Span, &str)>> = HashMap::new();
    let mut paths: HashMap<&Path, (Span, &str)> = HashMap::new();
    let owners: Vec<String> =
        config.frontends.iter().map(|one| format!("frontend {}", shown(&one.name))).collect();
    let Observe { bind, control, .. } = &config.observe;
    let observe = bind.iter().map(|(address, span)| ((*address).into(), *span, "observe.bind"));
    let control = control
        .iter()
        .map(|(path, span)| (BindAddress::Unix(path.as_path().into()), *span, "observe.control"));
    let frontends = config.frontends.iter().zip(&owners).flat_map(|(frontend, owner)| {
        frontend.bind.iter().map(|(bind, span)| (bind.clone(), *span, owner.as_str()))
    });
    let mut all: Vec<_> = observe.chain(control).chain(frontends).collect();
    // The second one is reported; a default, which has no line, comes first.
    all.sort_by_key(|(_, span, _)| (span.line, span.column));
    for (bind, span, owner) in &all {
        if let BindAddress::Unix(path) = bind {
            if let Some((first, by)) = paths.insert(path, (*span, owner)) {
                let text = format!("{bind} is already bound by {}", bound_by(by, first));
                sink.push_at(*span, text + "; give one of them another path");
            }
            continue;
        }
        let addresses = bind.addresses().filter_map(|address| match address {
            Address::Ip(address) => Some(address),
            Address::Unix(_) => None,
        });
        let mut reported = false;
        for address in addresses {
            let others = taken.entry(address.port()).or_default();
            let other = others.iter().find(|(other, ..)| overlap(*other, address));
            if let Some((other, first, by)) = other.filter(|_| !reported) {
                let by = bound_by(by, *first);
                let (address, other) = (Shown(address), Shown(*other));
                let text = format!("{address} is already bound by {by}, as {other}");
                sink.push_at(*span, text + "; give one of them another port or address");
                // One problem for a range.
                reported = true;
            }
            others.push((address, *span, owner));
        }
    }
}

/// `what` with its line, for an error about another line. What the command line names has none.
fn with_line(what: String, span: Span) -> String {
    match span.line {
        0 => what,
        line => format!("{what}, in line {line}"),
    }
}

/// The owner of an address. Of those without a line, a key of `observe` has its default.
fn bound_by(owner: &str, span: Span) -> String {
    if span.line == 0 && owner.starts_with("observe.") {
        return format!("{owner}, by default");
    }
    with_line(owner.to_owned(), span)
}

/// Servers through which a connection comes back to the backend that it came from.
fn cycles(config: &Config, here: &LocalAddresses, sink: &Sink<'_>) {
    let chains = Chains::new(&config.frontends, &config.backends, here);
    let servers = config
        .backends
        .iter()
        .flat_map(|backend| backend.servers.iter().map(move |server| (&*backend.name, server)));
    for (backend, server) in servers {
        let Some(address) = server.address.fixed() else { continue };
        let Some(Reached { frontend, bind }) = chains.cycle(backend, &address) else { continue };
        let (server_name, name) = (shown(&server.name), shown(&frontend.name));
        let text = if server.address.lacks_port() {
            format!(
                "server {server_name} has no port, so its port is the one that the client \
                 connected to, and at {bind} that is frontend {name}; write the port of the server"
            )
        } else if frontend.backends().any(|(name, _)| name == backend) {
            format!(
                "server {server_name} at {address} is frontend {name} itself, which listens on \
                 {bind}; write the address of the server"
            )
        } else {
            format!(
                "server {server_name} at {address} is frontend {name}, which listens on {bind} and \
                 leads back to backend {}; write the address of a server that is no frontend",
                shown(backend)
            )
        };
        sink.push_at(server.span, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn cycles_of(bind: &str, server: &str) -> String {
        let text = format!(
            "[frontend.f]\nbind = [\"{bind}\"]\nbackend = \"b\"\n\
             [[backend.b.server]]\nname = \"s\"\naddress = \"{server}\"\n"
        );
        let mut config = config::parse(&text, "x.toml").unwrap();
        config.file = Some("x.toml".into());
        let here = LocalAddresses::of(["198.51.100.7".parse().unwrap()]);
        let outcome = on_this_machine(&config, &here);
        outcome.err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_server_at_an_address_of_this_machine_is_the_frontend_behind_a_wildcard() {
        let text = cycles_of("0.0.0.0:80", "198.51.100.7:80");
        assert!(
            text.starts_with("x.toml:4:1: ") && text.contains("is frontend \"f\" itself"),
            "{text}"
        );
        for (bind, server) in [
            ("0.0.0.0:80", "198.51.100.8:80"),
            ("0.0.0.0:80", "198.51.100.7:81"),
            ("198.51.100.9:80", "198.51.100.7:80"),
        ] {
            assert_eq!(cycles_of(bind, server), "", "{bind} {server}");
        }
    }

    #[test]
    fn frontends_that_lead_to_each_other_are_refused_and_a_chain_is_not() {
        let text = |last: &str| {
            format!(
                "[frontend.f1]\nbind = [\"127.0.0.1:81\"]\nbackend = \"b1\"\n\
                 [frontend.f2]\nbind = [\"127.0.0.1:82\"]\nbackend = \"b2\"\n\
                 [frontend.f3]\nbind = [\"0.0.0.0:83\"]\nbackend = \"b1\"\n\
                 [[backend.b1.server]]\nname = \"s1\"\naddress = \"127.0.0.1:82\"\n\
                 [[backend.b2.server]]\nname = \"s2\"\naddress = \"{last}\"\n"
            )
        };
        for (last, name) in [("127.0.0.1:81", "\"f1\""), ("127.0.0.1:83", "\"f3\"")] {
            let problems = config::parse(&text(last), "x.toml").unwrap_err().to_string();
            let second = format!("x.toml:13:1: server \"s2\" at {last} is frontend {name}");
            assert!(problems.contains("x.toml:10:1: server \"s1\" at 127.0.0.1:82"), "{problems}");
            assert!(problems.contains(&second), "{problems}");
            assert!(problems.contains("leads back to backend"), "{problems}");
        }
        config::parse(&text("127.0.0.1:90"), "x.toml").unwrap();
    }
}
