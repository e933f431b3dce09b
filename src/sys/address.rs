//! Addresses of sockets: an IP address with a port, or the path of a unix socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use socket2::SockAddr;

use crate::sys::zone::{Shown, canonical};

/// Where a socket listens, or what it connects to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IP address and port. Port 0, which only servers have: the port that the client of the
    /// session connected to.
    Ip(SocketAddr),
    /// The path of a unix socket (unix(7)).
    Unix(Arc<Path>),
}

impl Address {
    /// Whether it is the path of a unix socket.
    #[must_use]
    pub const fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Whether it is an IP address without a port of its own.
    #[must_use]
    pub const fn lacks_port(&self) -> bool {
        matches!(self, Self::Ip(address) if address.port() == 0)
    }

    /// Its port; none of a unix socket, and of an IP address that has none.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) if address.port() != 0 => Some(address.port()),
            _ => None,
        }
    }

    /// Replaces the port of an IP address; a unix socket has none.
    pub const fn set_port(&mut self, port: u16) {
        if let Self::Ip(address) = self {
            address.set_port(port);
        }
    }

    /// The IP address and port for a client that connected to `port`. None: a unix socket, or
    /// neither has a port.
    #[must_use]
    pub const fn for_client(&self, port: Option<u16>) -> Option<SocketAddr> {
        match (self, port) {
            (Self::Ip(address), _) if address.port() != 0 => Some(*address),
            (Self::Ip(address), Some(port)) => {
                let mut address = *address;
                address.set_port(port);
                Some(address)
            }
            _ => None,
        }
    }

    /// As the kernel takes it, for a client that connected to `port`.
    ///
    /// # Errors
    /// Neither has a port, or the path is too long.
    pub fn for_kernel(&self, port: Option<u16>) -> io::Result<SockAddr> {
        match self {
            Self::Unix(path) => SockAddr::unix(path),
            Self::Ip(_) => {
                let address = self.for_client(port).ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(address.into())
            }
        }
    }
}

/// As the configuration writes it.
impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) if address.port() == 0 => {
                let text = Shown(*address).to_string();
                out.write_str(text.strip_suffix(":0").unwrap_or(&text))
            }
            Self::Ip(address) => Shown(*address).fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// The peer of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// A client over TCP.
    Ip(SocketAddr),
    /// A client of a unix socket: as a rule its own end is bound to no path.
    Unix,
}

impl ClientAddress {
    /// Its IP address; none of a client of a unix socket.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl ClientAddress {
    /// As IPv4, if it is an IPv4-mapped address.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(canonical(address)),
            Self::Unix => self,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => Shown(*address).fmt(out),
            // As nginx writes it.
            Self::Unix => out.write_str("unix:"),
        }
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    #[test]
    fn an_address_without_a_port_is_written_without_one_and_takes_that_of_the_client() {
        for (text, written, connected) in [
            ("192.0.2.1:0", "192.0.2.1", "192.0.2.1:7000"),
            ("[2001:db8::1]:0", "[2001:db8::1]", "[2001:db8::1]:7000"),
            ("[fe80::1%2147483647]:0", "[fe80::1%2147483647]", "[fe80::1%2147483647]:7000"),
            ("192.0.2.1:80", "192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let address = ip(text);
            assert_eq!(address.to_string(), written);
            assert_eq!(address.for_client(Some(7000)), connected.parse().ok());
            assert_eq!(address.lacks_port(), text != written, "{text}");
        }
        assert!(ip("192.0.2.1:0").for_kernel(None).is_err());
    }

    #[test]
    fn a_unix_socket_has_no_port() {
        let mut address = Address::Unix(Path::new("/run/x.sock").into());
        address.set_port(80);
        assert_eq!(address.to_string(), "unix:/run/x.sock");
        assert_eq!((address.port(), address.for_client(Some(80))), (None, None));
        assert!(address.for_kernel(None).unwrap().is_unix());
    }
}
