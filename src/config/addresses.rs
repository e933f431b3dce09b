//! The syntax of addresses, of listeners and of servers. Pure; each error is "what is wrong; what
//! to do".

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::Arc;

use super::bind_address::BindAddress;
use super::host_and_port::{host_and_port, port, range};
use super::values::{self, Parsed, wrong};
use crate::sys::address::Address;
use crate::sys::zone;

/// Where a server is. Port 0: the port that the client of the session connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// ip or ip:port
    Ip(SocketAddr),
    /// unix:path
    Unix(Arc<Path>),
    /// host or host:port, resolved at start and whenever its TTL ends.
    Name {
        /// The host, in lower case. With a dot at its end, it is absolute: the search list of
        /// /etc/resolv.conf does not apply.
        host: String,
        /// 1-65535, or 0
        port: u16,
    },
}

impl ServerAddress {
    /// The address, if it is not a host name.
    #[must_use]
    pub fn fixed(&self) -> Option<Address> {
        match self {
            Self::Ip(address) => Some(Address::Ip(*address)),
            Self::Unix(path) => Some(Address::Unix(Arc::clone(path))),
            Self::Name { .. } => None,
        }
    }

    /// The host name, if it is one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Name { host, .. } => Some(host),
            Self::Ip(_) | Self::Unix(_) => None,
        }
    }

    /// Whether a session connects to the port that its client connected to.
    #[must_use]
    pub const fn lacks_port(&self) -> bool {
        match self {
            Self::Ip(address) => address.port() == 0,
            // No host: the address is missing or wrong.
            Self::Name { host, port } => *port == 0 && !host.is_empty(),
            Self::Unix(_) => false,
        }
    }
}

/// As the configuration writes it, without the dot at the end of a host.
impl fmt::Display for ServerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port } => {
                out.write_str(host.strip_suffix('.').unwrap_or(host))?;
                if *port == 0 { Ok(()) } else { write!(out, ":{port}") }
            }
            Self::Ip(address) => Address::Ip(*address).fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// No address: what a server has in a configuration that is refused.
impl Default for ServerAddress {
    fn default() -> Self {
        Self::Name { host: String::new(), port: 0 }
    }
}

/// Where a frontend listens.
pub(super) fn bind(text: &str) -> Parsed<BindAddress> {
    const EXAMPLE: &str = "0.0.0.0:80";
    if let Some(path) = unix(text)? {
        return Ok(BindAddress::Unix(path));
    }
    let (host, Some(ports)) = host_and_port(text, EXAMPLE)? else {
        return Err(format!("no port; write one after a colon, such as {EXAMPLE:?}"));
    };
    let (first, last) = range(ports)?;
    let Some(ip) = ip(host)? else {
        if host == "localhost" {
            return Err(format!("a host name; write \"127.0.0.1:{ports}\""));
        }
        let what = if matches!(host, "" | "*") { "no IP address" } else { "not an IP address" };
        return Err(format!(
            "{what} before the port; write \"0.0.0.0:{ports}\" for all IPv4 addresses, \
             \"[::]:{ports}\" for IPv6"
        ));
    };
    if let IpAddr::V6(ip) = ip
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        return Err(format!("an IPv4-mapped IPv6 address; write \"{ip}:{ports}\""));
    }
    unicast(ip)?;
    Ok(BindAddress::Ip(with_zone(host, ip, first)?, last))
}

/// Where HTTP is served: one IP address and port.
pub(super) fn observe(text: &str) -> Parsed<SocketAddr> {
    match bind(text)? {
        BindAddress::Ip(address, last) if address.port() == last => Ok(address),
        _ => wrong("not one IP address and port; write one such as \"127.0.0.1:8404\""),
    }
}

/// Where a server is.
pub(crate) fn server(text: &str) -> Parsed<ServerAddress> {
    if let Some(path) = unix(text)? {
        return Ok(ServerAddress::Unix(path));
    }
    let (host, port) = host_and_port(text, "web1.lan:80")?;
    let number = port.map_or(Ok(0), self::port)?;
    let Some(ip) = ip(host)? else {
        return Ok(ServerAddress::Name { host: host_name(host, port.is_some())?, port: number });
    };
    if ip.to_canonical().is_unspecified() {
        let own = Address::Ip(SocketAddr::from(([127, 0, 0, 1], number)));
        return Err(format!("not the address of a server; for this machine write \"{own}\""));
    }
    unicast(ip)?;
    Ok(ServerAddress::Ip(with_zone(host, ip, number)?))
}

/// The path of a unix socket, if it is one.
fn unix(text: &str) -> Parsed<Option<Arc<Path>>> {
    if text.starts_with('/') {
        return Err(format!("a path; for a unix socket write \"unix:{text}\""));
    }
    if text.starts_with('@') {
        return wrong(
            "an abstract unix socket, which any process may take; write the path of a socket, such \
             as \"unix:/run/x.sock\"",
        );
    }
    let Some(path) = text.strip_prefix("unix:") else { return Ok(None) };
    values::socket_path(path, "unix:/run/x.sock")?;
    if path.chars().any(char::is_control) {
        return wrong("a control character in the path; write another path");
    }
    Ok(Some(Path::new(path).into()))
}

/// TCP has one machine at each end.
fn unicast(ip: IpAddr) -> Parsed<()> {
    match not_a_server(ip) {
        Some(what) if !ip.to_canonical().is_unspecified() => {
            Err(format!("{what}, which TCP cannot use; write the address of one machine"))
        }
        _ => Ok(()),
    }
}

/// What an address is that no server has: "a multicast address". None: a server may have it.
/// connect(2) would take the unspecified address for this machine, and ad-blocking DNS answers it
/// for a name that it blocks.
#[must_use]
pub fn not_a_server(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Some("the unspecified address"),
        ip if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("a broadcast address"),
        _ => None,
    }
}

/// With the zone of a link-local address (`[fe80::1%eth0]:80`).
fn with_zone(host: &str, ip: IpAddr, port: u16) -> Parsed<SocketAddr> {
    let zone = host.trim_end_matches(']').split_once('%').map(|(_, zone)| zone);
    let index = zone_index(ip, zone, "[fe80::1%eth0]:80")?;
    Ok(match ip {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, index).into(),
        IpAddr::V4(_) => SocketAddr::new(ip, port),
    })
}

/// The number of the interface that a link-local address belongs to, which may be written as its
/// name or as its number; 0: another address, which has none.
pub(super) fn zone_index(ip: IpAddr, zone: Option<&str>, example: &str) -> Parsed<u32> {
    let local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let Some(zone) = zone else {
        return if local {
            Err(format!(
                "a link-local address without its interface; write it as {example:?} (`ip link` \
                 lists the interfaces)"
            ))
        } else {
            Ok(0)
        };
    };
    if !local {
        return Err(format!(
            "only a link-local address (fe80::/10) has a zone; remove {:?}",
            format!("%{zone}")
        ));
    }
    // IFNAMSIZ of linux/if.h, with a NUL at the end.
    let is_name = (1..16).contains(&zone.len())
        && zone.chars().all(|c| c.is_ascii_graphic() && !"/:%".contains(c));
    match zone.parse::<u32>() {
        Ok(index @ 1..=0x7fff_ffff) => return Ok(index),
        Err(_) if is_name => return Ok(zone::index_of(zone)),
        _ => {}
    }
    Err(format!("{zone:?} is not the name of an interface (`ip link`); write {example:?}"))
}

/// An IP address; none: it may be a host name.
fn ip(host: &str) -> Parsed<Option<IpAddr>> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let (address, _) = inner.split_once('%').unwrap_or((inner, ""));
        return match address.parse() {
            Ok(ip) => Ok(Some(IpAddr::V6(ip))),
            _ => wrong("not an IPv6 address in brackets; write one such as \"[2001:db8::1]:80\""),
        };
    }
    Ok(host.parse().map(IpAddr::V4).ok())
}

/// The name that a certificate is verified for: a host name, or an IP address.
pub(super) fn tls_name(text: &str) -> Parsed<String> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => host_name(text, true),
    }
}

/// A DNS server: an IP address, with a port if it is not 53.
pub(super) fn dns_server(text: &str) -> Parsed<SocketAddr> {
    const REMEDY: &str = "write the IP address of a DNS server, such as \"192.0.2.53\", with a \
                          port if it is not 53";
    let alone = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
    let Ok(address) = text.parse().or(alone) else {
        return Err(format!("not an IP address; {REMEDY}"));
    };
    if address.port() == 0 || address.ip().to_canonical().is_unspecified() {
        return Err(format!("not the address of a DNS server; {REMEDY}"));
    }
    unicast(address.ip()).map(|()| address)
}

/// An SRV name (RFC 2782): labels as those of a host name, which may begin with an underscore. In
/// lower case.
pub(crate) fn srv_name(text: &str) -> Parsed<String> {
    const EXAMPLE: &str = "write one such as \"_http._tcp.web.example\"";
    if text.contains(':') {
        return Err(format!("an SRV name has no port, its records have one; {EXAMPLE}"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(fits);
    if name.len() > 253 || !name.split('.').all(is_label) || name.parse::<IpAddr>().is_ok() {
        return Err(format!("not a DNS SRV name; {EXAMPLE}"));
    }
    Ok(text.to_ascii_lowercase())
}

/// A host name of RFC 1123 (2.1): labels of letters, digits and inner hyphens; and underscores,
/// which names of containers have. In lower case, with the dot at its end if there is one.
fn host_name(text: &str, has_port: bool) -> Parsed<String> {
    let host = text.strip_suffix('.').unwrap_or(text);
    if host.is_empty() {
        let what = if has_port { "no host before the port" } else { "no address" };
        return Err(format!("{what}; write \"host:port\""));
    }
    if host.len() > 253 {
        return wrong("a host name longer than 253 characters; write a shorter one");
    }
    for label in host.split('.') {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let edges = label.starts_with(['-', '_']) || label.ends_with(['-', '_']);
        if label.is_empty() || label.len() > 63 || edges || !label.chars().all(fits) {
            return wrong(
                "not a host name; a host name has letters, digits, hyphens and dots (RFC 1123)",
            );
        }
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.chars().all(|c| c.is_ascii_digit()) {
        return wrong("not an IPv4 address; it has four numbers, 0 to 255");
    }
    Ok(text.to_ascii_lowercase())
}
