//! Zones of link-local addresses (RFC 4007): the interface of an address, which the configuration
//! names and the kernel numbers.
//!
//! An interface may not exist when the configuration is read. Its name then gets a number that no
//! interface has: the address can be compared and shown as it is written, and the kernel refuses
//! to bind it or to connect to it.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::net::if_::{if_indextoname, if_nametoindex};

/// The kernel numbers interfaces from 1 to `i32::MAX`; this bit marks a missing one.
const MISSING: u32 = 1 << 31;

/// Names of missing interfaces that are remembered: each is a mistake of a configuration, or an
/// interface that is not there yet.
const NAMES_MAX: usize = 1024;

static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The number of the interface `name`; of a missing one, a number that no interface has.
#[must_use]
pub fn index_of(name: &str) -> u32 {
    if let Ok(index) = if_nametoindex(name) {
        return index;
    }
    let mut names = names();
    let known = names.iter().position(|known| known == name);
    let place = known.unwrap_or_else(|| {
        if names.len() < NAMES_MAX {
            names.push(name.to_owned());
        }
        names.len() - 1
    });
    MISSING | u32::try_from(place).unwrap_or(0)
}

/// The interface of an address, if it was missing when the address was read.
#[must_use]
pub fn missing(address: SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V6(address) if address.scope_id() & MISSING != 0 => name_of(address.scope_id()),
        _ => None,
    }
}

fn name_of(index: u32) -> Option<String> {
    if index & MISSING == 0 {
        let name = if_indextoname(index).ok()?.into_string().ok()?;
        // A C library may answer with an empty name for a number that no interface has.
        return Some(name).filter(|name| !name.is_empty());
    }
    let place = usize::try_from(index & !MISSING).ok()?;
    names().get(place).cloned()
}

fn names() -> MutexGuard<'static, Vec<String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address with the name of its interface: `[fe80::1%eth0]:80`.
#[derive(Debug, Clone, Copy)]
pub struct Shown(pub SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V6(address) if address.scope_id() != 0 => {
                match name_of(address.scope_id()) {
                    Some(name) => write!(out, "[{}%{name}]:{}", address.ip(), address.port()),
                    None => address.fmt(out),
                }
            }
            address => address.fmt(out),
        }
    }
}

/// An IPv4-mapped address as IPv4; another one as it is, with its zone.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => (ip, v6.port()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_local(zone: &str) -> SocketAddr {
        SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, index_of(zone)).into()
    }

    #[test]
    fn an_interface_is_shown_by_its_name() {
        let address = link_local("lo");
        assert_eq!(missing(address), None);
        assert_eq!(Shown(address).to_string(), "[fe80::1%lo]:80");
        assert_eq!(Shown(([127, 0, 0, 1], 80).into()).to_string(), "127.0.0.1:80");
    }

    #[test]
    fn a_missing_interface_keeps_its_name() {
        let (one, other) = (link_local("no-such-0"), link_local("no-such-1"));
        assert_ne!(one, other);
        assert_eq!(one, link_local("no-such-0"));
        assert_eq!(missing(one).as_deref(), Some("no-such-0"));
        assert_eq!(Shown(other).to_string(), "[fe80::1%no-such-1]:80");
    }

    #[test]
    fn a_mapped_address_becomes_ipv4_and_a_zone_stays() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), ([192, 0, 2, 1], 80).into());
        assert_eq!(canonical(link_local("lo")), link_local("lo"));
    }
}
