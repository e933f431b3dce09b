//! Addresses as HAProxy writes them, on `bind` and `server` lines.

use std::net::IpAddr;

use super::lexer::{self, Environment};
use crate::config;
use crate::convert::literal;

/// The part before the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// `*`, or nothing.
    AnyV4,
    /// `::`
    AnyV6,
    Ip(IpAddr),
    Name(String),
    Path(String),
    /// evenkeel has no such socket: why.
    Unsupported(&'static str),
    /// An environment variable without a value.
    Unset(String),
}

/// The part after the last colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    None,
    Range(u16, u16),
    /// Added to the port that the client connected to.
    Offset,
}

/// Families of sockets that evenkeel does not have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("abns@", "an abstract socket: evenkeel listens on addresses and paths only"),
    ("abnsz@", "an abstract socket: evenkeel listens on addresses and paths only"),
    ("fd@", "an inherited descriptor: evenkeel takes sockets from systemd (LISTEN_FDS)"),
    ("sockpair@", "an inherited socket pair"),
    ("udp@", "UDP: evenkeel balances TCP"),
    ("udp4@", "UDP: evenkeel balances TCP"),
    ("udp6@", "UDP: evenkeel balances TCP"),
    ("quic4@", "QUIC: evenkeel balances TCP"),
    ("quic6@", "QUIC: evenkeel balances TCP"),
    ("rhttp@", "reverse HTTP"),
];

const PREFIXES: &[&str] = &[
    "ipv4@",
    "ipv6@",
    "tcp@",
    "tcp4@",
    "tcp6@",
    "stream+ipv4@",
    "stream+ipv6@",
    "mptcp@",
    "mptcp4@",
    "mptcp6@",
];

const FAMILY: &str = "an address of another family than its prefix says; correct one of them";

/// Reads an address.
///
/// # Errors
/// A problem and its remedy.
pub(super) fn parse(
    word: &str,
    environment: &Environment<'_>,
) -> Result<(Host, Port), &'static str> {
    let expanded = environment.expand(word);
    let mut rest = expanded.as_str();
    if let Some((_, why)) = UNSUPPORTED.iter().find(|(prefix, _)| rest.starts_with(prefix)) {
        return Ok((Host::Unsupported(why), Port::None));
    }
    let mut family = "";
    if let Some(prefix) = PREFIXES.iter().find(|prefix| rest.starts_with(*prefix)) {
        rest = &rest[prefix.len()..];
        family = prefix;
    }
    let prefixes = ["unix@", "uxst@"];
    let path = prefixes.iter().find_map(|prefix| rest.strip_prefix(prefix));
    if let Some(path) = path.or_else(|| rest.starts_with('/').then_some(rest)) {
        let host = match config::server_address(&format!("unix:{path}")) {
            Ok(_) => Host::Path(path.to_owned()),
            Err(_) => Host::Unsupported(literal::UNIX_PATH),
        };
        return Ok((host, Port::None));
    }
    let (host, port) = match rest.rsplit_once(':') {
        // A bracket after the colon: the colon is one of the address.
        Some((_, port)) if port.contains(']') => (rest, None),
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let port = match port {
        None | Some("") => Port::None,
        Some(port) => match lexer::unset(port) {
            Some(name) => return Ok((Host::Unset(name.to_owned()), Port::None)),
            None => number_or_range(port)?,
        },
    };
    if let Some(name) = lexer::unset(host) {
        return Ok((Host::Unset(name.to_owned()), port));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = match bare {
        "" | "*" if family.contains('6') => Host::AnyV6,
        "" | "*" | "0.0.0.0" => Host::AnyV4,
        "::" => Host::AnyV6,
        bare => match bare.parse() {
            Ok(IpAddr::V4(_)) if family.contains('6') => return Err(FAMILY),
            Ok(IpAddr::V6(_)) if family.contains('4') => return Err(FAMILY),
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(bare.to_owned()),
        },
    };
    Ok((host, port))
}

fn number_or_range(port: &str) -> Result<Port, &'static str> {
    const WRONG: &str = "an invalid port; write 1 to 65535";
    if port.starts_with(['+', '-']) && port[1..].parse::<u16>().is_ok() {
        return Ok(Port::Offset);
    }
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| WRONG)?, last.parse().map_err(|_| WRONG)?);
    if first > last {
        return Err("a port range that ends before it begins; write the lower port first");
    }
    Ok(if last == 0 { Port::None } else { Port::Range(first, last) })
}

/// An IP address as evenkeel writes it before a port.
pub(super) fn ip_text(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_haproxy_reads_them() {
        let outside = |_: &str| None;
        let environment = Environment::new(&outside);
        let read = |word: &str| parse(word, &environment).unwrap();
        let port = |number| Port::Range(number, number);
        assert_eq!(read("*:80"), (Host::AnyV4, port(80)));
        assert_eq!(read(":3310"), (Host::AnyV4, port(3310)));
        assert_eq!(read(":::443"), (Host::AnyV6, port(443)));
        assert_eq!(read("[::]:443"), (Host::AnyV6, port(443)));
        assert_eq!(read("ipv6@:443"), (Host::AnyV6, port(443)));
        assert_eq!(read("*:21000-22000"), (Host::AnyV4, Port::Range(21_000, 22_000)));
        let ip = "2001:db8:202::12".parse().unwrap();
        assert_eq!(read("2001:db8:202::12:6443"), (Host::Ip(ip), port(6443)));
        assert_eq!(read("[2001:db8:202::12]"), (Host::Ip(ip), Port::None));
        assert_eq!(read("web1:+5"), (Host::Name("web1".into()), Port::Offset));
        assert_eq!(read("unix@/run/x"), (Host::Path("/run/x".into()), Port::None));
        assert_eq!(read("${H}:80"), (Host::Unset("H".into()), port(80)));
        assert_eq!(read("0.0.0.0:0"), (Host::AnyV4, Port::None));
        assert!(matches!(read("abns@x"), (Host::Unsupported(_), _)));
        assert!(parse("a:99999", &environment).is_err());
        assert!(parse("ipv4@[::1]:80", &environment).is_err());
        assert!(parse("tcp6@127.0.0.1:80", &environment).is_err());
    }
}
