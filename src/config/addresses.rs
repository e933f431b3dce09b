//! The syntax of addresses, of listeners and of servers. Pure; each error is "what is wrong; what
//! to do".

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::values::{Parsed, wrong};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// ip:port
    Ip(SocketAddr),
    /// host:port, resolved at start and whenever its TTL ends.
    Name {
        /// The host, in lower case, without the dot at its end.
        host: String,
        /// 1-65535
        port: u16,
    },
}

/// As the configuration writes it.
impl fmt::Display for ServerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(out),
            Self::Name { host, port } => write!(out, "{host}:{port}"),
        }
    }
}

/// No address: what a server has in a configuration that is refused.
impl Default for ServerAddress {
    fn default() -> Self {
        Self::Name { host: String::new(), port: 0 }
    }
}

/// An address to listen on.
pub(super) fn bind(text: &str) -> Parsed<SocketAddr> {
    let (host, port) = host_and_port(text, "0.0.0.0:80")?;
    let Some(ip) = ip(host)? else {
        let what = if matches!(host, "" | "*") { "no IP address" } else { "not an IP address" };
        return Err(format!(
            "{what} before the port; write \"0.0.0.0:{port}\" for all IPv4 addresses, \
             \"[::]:{port}\" for IPv6"
        ));
    };
    if let IpAddr::V6(ip) = ip
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        return Err(format!("an IPv4-mapped IPv6 address; write \"{ip}:{port}\""));
    }
    unicast(ip)?;
    Ok(with_scope(text, ip, port))
}

/// Where a server is.
pub(super) fn server(text: &str) -> Parsed<ServerAddress> {
    let (host, port) = host_and_port(text, "web1.lan:80")?;
    let Some(ip) = ip(host)? else {
        return Ok(ServerAddress::Name { host: host_name(host)?, port });
    };
    if ip.to_canonical().is_unspecified() {
        return Err(format!(
            "not the address of a server; for this machine write \"127.0.0.1:{port}\""
        ));
    }
    unicast(ip)?;
    Ok(ServerAddress::Ip(with_scope(text, ip, port)))
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

/// Keeps the zone of a link-local address (`[fe80::1%2]:80`).
fn with_scope(text: &str, ip: IpAddr, port: u16) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::new(ip, port))
}

const BRACKETS: &str = "an IPv6 address needs brackets, and the port stands after them; write it \
                        as \"[2001:db8::1]:80\"";

/// What is before and after the last colon; an IPv6 address keeps its brackets.
fn host_and_port<'t>(text: &'t str, example: &str) -> Parsed<(&'t str, u16)> {
    if text.starts_with("unix:") || text.starts_with(['/', '@']) {
        return wrong("unix: addresses are not supported yet; write an address and a port");
    }
    if text.contains("://") {
        return Err(format!("a URL; write host and port alone, such as {example:?}"));
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return wrong(BRACKETS);
    }
    if text.starts_with('_') && !text.contains(':') {
        return wrong("a DNS SRV name, which is not supported yet; write host and port");
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        return Err(format!("no port; write one after a colon, such as {example:?}"));
    };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong(BRACKETS);
    }
    let all_digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    match port.parse() {
        Ok(number) if all_digits && number != 0 => Ok((host, number)),
        _ => Err(format!("{port:?} is not a port; write 1 to 65535")),
    }
}

/// An IP address; none: it may be a host name.
fn ip(host: &str) -> Parsed<Option<IpAddr>> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
        return match (address.parse(), zone.parse::<u32>()) {
            (Ok(ip), Ok(_)) => Ok(Some(IpAddr::V6(ip))),
            (Ok(_), Err(_)) => {
                wrong("the zone is not a number; write the interface's index (`ip link`)")
            }
            _ => wrong("not an IPv6 address in brackets; write one such as \"[2001:db8::1]:80\""),
        };
    }
    Ok(host.parse().map(IpAddr::V4).ok())
}

/// The name that a certificate is verified for: a host name, or an IP address.
pub(super) fn tls_name(text: &str) -> Parsed<String> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => host_name(text),
    }
}

/// A host name of RFC 1123 (2.1): labels of letters, digits and inner hyphens; and underscores,
/// which names of containers have. In lower case, without the dot at its end.
fn host_name(text: &str) -> Parsed<String> {
    let host = text.strip_suffix('.').unwrap_or(text);
    if host.is_empty() {
        return wrong("no host before the port; write \"host:port\"");
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
    Ok(host.to_ascii_lowercase())
}
