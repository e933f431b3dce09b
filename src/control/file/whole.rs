//! What can only be seen of a configuration as a whole: the same thing twice, and circles.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::problems::{Sink, shown};
use crate::control::config::{Backend, Config, Frontend, Place, ServerAddress, overlap};
use crate::sys::local_addresses::LocalAddresses;

/// Addresses to listen on, over all frontends: each is a descriptor in every worker.
const ADDRESSES_MAX: usize = 4096;

/// Says what is wrong between sections that may each be right.
pub(super) fn check(config: &Config, sink: &Sink<'_>) {
    for backend in &config.backends {
        server_names(backend, sink);
    }
    let count: usize = config.frontends.iter().map(|frontend| frontend.bind.len()).sum();
    if let Some(last) = config.frontends.last().filter(|_| count > ADDRESSES_MAX) {
        let most = format!("more than {ADDRESSES_MAX}; listen on fewer");
        let text = format!("{count} addresses to listen on, {most}");
        sink.wrong_at(last.place, text);
        return;
    }
    addresses(config, sink);
    let here = LocalAddresses::now();
    for frontend in &config.frontends {
        circles(frontend, config, &here, sink);
    }
}

/// Every address is listened on once. An IPv6 socket takes no IPv4 connection (`IPV6_V6ONLY`),
/// so that "[::]:80" and "0.0.0.0:80" are two.
fn addresses(config: &Config, sink: &Sink<'_>) {
    let mut taken: HashMap<u16, Vec<(SocketAddr, Place, String)>> = HashMap::new();
    // Whoever comes second is told; `observe.bind` may be a default, which has no line to show.
    let observe = config.observe.bind.iter();
    let observe = observe.map(|(address, place)| (*address, *place, "observe.bind".to_owned()));
    let frontends = config.frontends.iter().flat_map(|frontend| {
        let owner = format!("frontend {}", shown(&frontend.name));
        frontend.bind.iter().map(move |(address, place)| (*address, *place, owner.clone()))
    });
    for (address, place, owner) in observe.chain(frontends) {
        let here = taken.entry(address.port()).or_default();
        if let Some((other, _, by)) = here.iter().find(|(other, ..)| overlap(*other, address)) {
            let remedy = "give one of them another port or address";
            sink.wrong_at(place, format!("{address} is taken, as {other} of {by}; {remedy}"));
        }
        here.push((address, place, owner));
    }
}

fn server_names(backend: &Backend, sink: &Sink<'_>) {
    let mut seen: HashMap<&str, Place> = HashMap::new();
    let named = backend.servers.iter().filter(|server| !server.name.is_empty());
    for server in named {
        if let Some(first) = seen.insert(&server.name, server.place) {
            let name = shown(&server.name);
            let text = format!(
                "server {name} is in backend {} already, in line {}; give it another name",
                shown(&backend.name),
                first.line
            );
            sink.wrong_at(server.place, text);
        }
    }
}

/// A server that is the very frontend it serves: each connection would make another one, until
/// descriptors end. A wildcard is every address that this machine has, also where the file is only
/// checked here and meant for another: whoever has that address can tell.
fn circles(frontend: &Frontend, config: &Config, here: &LocalAddresses, sink: &Sink<'_>) {
    let backend = config.backends.iter().find(|backend| backend.name == frontend.backend);
    for server in backend.iter().flat_map(|backend| &backend.servers) {
        let ServerAddress::Ip(address) = server.address else { continue };
        let mut binds = frontend.bind.iter().map(|(bind, _)| *bind);
        if let Some(bind) = binds.find(|bind| here.leads_to(address, *bind)) {
            let every =
                if bind.ip().is_unspecified() { ", at every address of this machine" } else { "" };
            let name = shown(&server.name);
            let itself = format!("is frontend {} itself{every}", shown(&frontend.name));
            let text =
                format!("server {name} at {address} {itself}; name the server's own address");
            sink.wrong_at(server.place, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::file;

    fn circles_of(bind: &str, server: &str) -> String {
        let text = format!(
            "[frontend.f]\nbind = [\"{bind}\"]\nbackend = \"b\"\n\
             [[backend.b.server]]\nname = \"s\"\naddress = \"{server}\"\n"
        );
        let config = file::parse(&text, "x.toml").unwrap();
        let sink = Sink::new("x.toml", &text);
        let here = LocalAddresses::of(["198.51.100.7".parse().unwrap()]);
        circles(&config.frontends[0], &config, &here, &sink);
        sink.finish().err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_server_at_an_address_of_this_machine_is_the_frontend_behind_a_wildcard() {
        let said = circles_of("0.0.0.0:80", "198.51.100.7:80");
        assert!(said.starts_with("x.toml:4:1: ") && said.contains("of this machine"), "{said}");
        for (bind, server) in [
            ("0.0.0.0:80", "198.51.100.8:80"),
            ("0.0.0.0:80", "198.51.100.7:81"),
            ("198.51.100.9:80", "198.51.100.7:80"),
        ] {
            assert_eq!(circles_of(bind, server), "", "{bind} {server}");
        }
    }
}
