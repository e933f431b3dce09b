//! Interfaces that link-local addresses name and that this machine does not have.

use super::addresses::ServerAddress;
use super::problems::Span;
use super::settings::Config;
use crate::sys::zone;

/// The servers and sources whose interface did not exist when the configuration was read: "what is
/// wrong; what to do". (An address to listen on shows that when it is bound.)
#[must_use]
pub fn missing_interfaces(config: &Config) -> Vec<(Span, String)> {
    let mut missing = Vec::new();
    for backend in &config.backends {
        let servers = backend.servers.iter().filter_map(|server| match server.address {
            ServerAddress::Ip(address) => Some((address, server.span)),
            ServerAddress::Unix(_) | ServerAddress::Name { .. } => None,
        });
        for (address, span) in servers.chain(backend.source.addresses()) {
            if let Some(name) = zone::missing(address) {
                missing.push((span, format!("{}: {}", zone::Shown(address), remedy(&name))));
            }
        }
    }
    missing
}

/// What to do about a missing interface.
fn remedy(name: &str) -> String {
    format!("this machine has no interface {name}; `ip link` lists its interfaces")
}
