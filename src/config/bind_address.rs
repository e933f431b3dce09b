//! Where a frontend listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::sys::address::Address;
use crate::sys::zone::Shown;

/// Where a frontend listens: on one port, on each port of a range, or on a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// The first address, and the last port.
    Ip(SocketAddr, u16),
    /// The path of a unix socket.
    Unix(Arc<Path>),
}

impl BindAddress {
    /// Every address that is listened on, in ascending order.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + use<> {
        let (unix, ip) = match self {
            Self::Unix(path) => (Some(Address::Unix(Arc::clone(path))), None),
            Self::Ip(first, last) => (None, Some((*first, *last))),
        };
        let ports = ip.into_iter().flat_map(|(first, last)| {
            (first.port()..=last).map(move |port| {
                let mut address = first;
                address.set_port(port);
                Address::Ip(address)
            })
        });
        unix.into_iter().chain(ports)
    }

    /// How many addresses these are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Unix(_) => 1,
            Self::Ip(first, last) => 1 + usize::from(last.saturating_sub(first.port())),
        }
    }
}

/// As the configuration writes it.
impl fmt::Display for BindAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Ip(first, last) if first.port() == *last => Shown(*first).fmt(out),
            Self::Ip(first, last) => write!(out, "{}-{last}", Shown(*first)),
        }
    }
}

impl From<SocketAddr> for BindAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address, address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_every_port_of_it() {
        let range = BindAddress::Ip("[::1]:7000".parse().unwrap(), 7002);
        let addresses: Vec<String> = range.addresses().map(|one| one.to_string()).collect();
        assert_eq!(addresses, ["[::1]:7000", "[::1]:7001", "[::1]:7002"]);
        assert_eq!((range.count(), range.to_string().as_str()), (3, "[::1]:7000-7002"));
        let one = BindAddress::from(SocketAddr::from(([127, 0, 0, 1], 65_535)));
        assert_eq!((one.count(), one.addresses().count()), (1, 1));
        assert_eq!(one.to_string(), "127.0.0.1:65535");
    }
}
