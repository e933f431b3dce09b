//! Networks of clients, and how two of them relate.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// An address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    bits: u128,
    length: u8,
    is_v6: bool,
}

/// Networks, or a file that lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clients {
    Network(Network),
    File(String),
}

impl Network {
    /// `192.0.2.0/24`, `192.0.2.1`, `192.0.2.0/255.255.255.0`, `2001:db8::/32`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let ip: IpAddr = address.parse().ok().or_else(|| short(address))?;
        let most = if ip.is_ipv6() { 128 } else { 32 };
        let length = match length {
            None => most,
            Some(length) => length.parse().ok().or_else(|| mask(length))?,
        };
        if length > most {
            return None;
        }
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let is_v6 = ip.is_ipv6();
        Some(Self { bits: bits & leading(length), length, is_v6 })
    }

    /// Whether a text is an address with a prefix that is longer than the address.
    pub(super) fn is_too_long(text: &str) -> bool {
        let Some((address, length)) = text.split_once('/') else { return false };
        let most = address.parse::<IpAddr>().map(|ip| if ip.is_ipv6() { 128 } else { 32 });
        most.is_ok_and(|most| length.parse::<u32>().is_ok_and(|length| length > most))
    }

    /// Whether every address of the other is one of this.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.is_v6 == other.is_v6
            && self.length <= other.length
            && other.bits & leading(self.length) == self.bits
    }

    /// Everybody, of both families.
    pub(super) fn everybody() -> [Self; 2] {
        [false, true].map(|is_v6| Self { bits: 0, length: 0, is_v6 })
    }
}

/// A mask of that many leading ones.
const fn leading(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length as u32) }
}

/// The length of a dotted mask.
fn mask(text: &str) -> Option<u8> {
    let bits = text.parse::<Ipv4Addr>().ok()?.to_bits();
    let is_prefix = bits.leading_ones() + bits.trailing_zeros() == 32 || bits == 0;
    is_prefix.then(|| u8::try_from(bits.leading_ones()).ok()).flatten()
}

/// HAProxy and nginx accept "10" and "192.168" for networks: zeros fill the rest.
fn short(text: &str) -> Option<IpAddr> {
    let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    let parts = parts.filter(|parts| (1..4).contains(&parts.len()))?;
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    Some(Ipv4Addr::new(part(0), part(1), part(2), part(3)).into())
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_v6 {
            write!(f, "{}/{}", std::net::Ipv6Addr::from_bits(self.bits), self.length)
        } else {
            let bits = u32::try_from(self.bits >> 96).unwrap_or_default();
            write!(f, "{}/{}", Ipv4Addr::from_bits(bits), self.length)
        }
    }
}

impl Clients {
    /// As an element of `allow` or `deny`.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Network(network) => super::literal::quoted(&network.to_string()),
            Self::File(path) => format!("{{ file = {} }}", super::literal::quoted(path)),
        }
    }
}

/// As the value of `allow` or `deny`.
pub(super) fn array(clients: &[Clients]) -> String {
    if let [file @ Clients::File(_)] = clients {
        return file.text();
    }
    let items: Vec<String> = clients.iter().map(Clients::text).collect();
    format!("[{}]", items.join(", "))
}

/// Whether every client of `inner` is one of `outer`; files are equal or unknown.
pub(super) fn covers(outer: &[Clients], inner: &[Clients]) -> bool {
    inner.iter().all(|one| {
        outer.iter().any(|other| match (other, one) {
            (Clients::Network(other), Clients::Network(one)) => other.contains(one),
            (other, one) => other == one,
        })
    })
}

/// Whether no client is in both; none: a file makes it unknown.
pub(super) fn disjoint(a: &[Clients], b: &[Clients]) -> Option<bool> {
    for one in a {
        for other in b {
            match (one, other) {
                (Clients::Network(one), Clients::Network(other)) => {
                    if one.contains(other) || other.contains(one) {
                        return Some(false);
                    }
                }
                _ => return None,
            }
        }
    }
    Some(true)
}

/// The clients that are in both; none: a file makes it unknown.
pub(super) fn intersection(a: &[Clients], b: &[Clients]) -> Option<Vec<Clients>> {
    if a == b {
        return Some(a.to_vec());
    }
    let mut both = Vec::new();
    for one in a {
        for other in b {
            match (one, other) {
                (Clients::Network(x), Clients::Network(y)) if x.contains(y) => {
                    both.push(other.clone());
                }
                (Clients::Network(x), Clients::Network(y)) if y.contains(x) => {
                    both.push(one.clone());
                }
                (Clients::Network(_), Clients::Network(_)) => {}
                _ => return None,
            }
        }
    }
    both.dedup();
    Some(both)
}

/// Adds the clients that are missing.
pub(super) fn extend(clients: &mut Vec<Clients>, more: &[Clients]) {
    for one in more {
        if !clients.contains(one) {
            clients.push(one.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(texts: &[&str]) -> Vec<Clients> {
        texts.iter().map(|text| Clients::Network(Network::parse(text).unwrap())).collect()
    }

    #[test]
    fn networks_are_read_in_every_form() {
        for (from, to) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.168.0.0/255.255.0.0", "192.168.0.0/16"),
            ("10/8", "10.0.0.0/8"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(Network::parse(from).unwrap().to_string(), to);
        }
        for bad in ["", "x", "10.0.0.0/33", "10.0.0.0/255.0.255.0", "1.2.3.4.5"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sets_of_networks_are_compared() {
        let (lan, host) = (clients(&["10.0.0.0/8", "192.168.0.0/16"]), clients(&["10.1.1.1"]));
        assert!(covers(&lan, &host) && !covers(&host, &lan));
        assert_eq!(disjoint(&lan, &clients(&["172.16.0.0/12"])), Some(true));
        assert_eq!(disjoint(&lan, &host), Some(false));
        assert_eq!(intersection(&lan, &host), Some(host.clone()));
        let file = [Clients::File("x".into())];
        assert_eq!(disjoint(&lan, &file), None);
        assert_eq!(array(&file), "{ file = \"x\" }");
    }
}
