//! `backend.source`: the addresses that connections to servers come from.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use toml::de::DeValue;

use super::addresses::zone_index;
use super::problems::{Sink, Span, literal};
use super::values::{Parsed, wrong};

/// Addresses of one backend, at most: more ports than a machine has memory for connections.
const SOURCES_MAX: usize = 256;

/// What to write.
pub(super) const HINT: &str = "[\"192.0.2.1\"], or \"client\"";

/// `backend.source`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Without a port.
    v4: Vec<(SocketAddr, Span)>,
    /// Without a port.
    v6: Vec<(SocketAddr, Span)>,
    /// Where "client" is written.
    client: Option<Span>,
}

impl Sources {
    /// Whether connections come from the address of the client; where that is written.
    #[must_use]
    pub const fn client(&self) -> Option<Span> {
        self.client
    }

    /// Whether the kernel chooses the address, by its route to the server.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.client.is_none() && self.v4.is_empty() && self.v6.is_empty()
    }

    /// Each address, and where it is written.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, Span)> {
        self.v4.iter().chain(&self.v6).copied()
    }

    /// The address whose `turn` it is to connect to `server`, without a port; none: no address has
    /// the family of the server.
    #[must_use]
    pub fn of_turn(&self, server: SocketAddr, turn: usize) -> Option<SocketAddr> {
        // A socket that connects to an IPv4-mapped address is one of IPv6.
        let mapped = server.is_ipv6() && server.ip().to_canonical().is_ipv4();
        let list = if server.ip().to_canonical().is_ipv4() { &self.v4 } else { &self.v6 };
        let (source, _) = list.get(turn.checked_rem(list.len())?)?;
        match source.ip() {
            IpAddr::V4(ip) if mapped => Some((ip.to_ipv6_mapped(), 0).into()),
            _ => Some(*source),
        }
    }

    /// Whether the configuration has addresses, and none of the family of `server`.
    #[must_use]
    pub fn lacks_family_of(&self, server: SocketAddr) -> bool {
        self.client.is_none() && !self.is_empty() && self.of_turn(server, 0).is_none()
    }
}

/// Reads the value of the key: an array, or one address alone.
pub(super) fn read(offset: usize, value: &DeValue<'_>, sink: &Sink<'_>) -> Sources {
    let mut sources = Sources::default();
    let mut count = 0;
    let mut add = |offset: usize, value: &DeValue<'_>| {
        count += 1;
        let added = match value {
            DeValue::String(text) => sources.add(text, sink.span(offset)),
            _ => Err(format!("not an address; write {HINT}")),
        };
        if let Err(problem) = added {
            sink.push(offset, format!("source = {}: {problem}", literal(value)));
        }
    };
    match value {
        DeValue::Array(items) => {
            items.iter().for_each(|item| add(item.span().start, item.get_ref()));
        }
        value => add(offset, value),
    }
    if count > SOURCES_MAX {
        sink.push(offset, format!("source: more than {SOURCES_MAX} addresses; write fewer"));
    }
    if sources.client.is_some() && count > 1 {
        let text = "source: \"client\" beside an address; write one of them";
        sink.push(offset, text);
    }
    sources
}

impl Sources {
    fn add(&mut self, text: &str, span: Span) -> Parsed<()> {
        if text == "client" {
            self.client = Some(span);
            return Ok(());
        }
        let source = source(text)?;
        let list = if source.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if list.iter().any(|(known, _)| *known == source) {
            return wrong("the address is there already; remove it");
        }
        list.push((source, span));
        Ok(())
    }
}

fn source(text: &str) -> Parsed<SocketAddr> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
    let Ok(ip) = address.parse::<IpAddr>() else {
        return if text.parse::<SocketAddr>().is_ok() {
            wrong("an address with a port; write the address alone: the kernel chooses the port")
        } else {
            Err(format!("not an IP address; write {HINT}"))
        };
    };
    let index = zone_index(ip, zone, "fe80::1%eth0")?;
    match ip {
        ip if ip.is_unspecified() => {
            wrong("the unspecified address; remove it: by default the kernel chooses the address")
        }
        ip if ip.is_multicast() || ip == IpAddr::from([255; 4]) => {
            wrong("not the address of one machine; write an address of this machine")
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Err(format!("an IPv4-mapped IPv6 address; write \"{ip}\"")),
            None => Ok(SocketAddrV6::new(ip, 0, 0, index).into()),
        },
        IpAddr::V4(ip) => Ok((ip, 0).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(list: &[&str]) -> Sources {
        let mut sources = Sources::default();
        list.iter().for_each(|text| sources.add(text, Span::default()).unwrap());
        sources
    }

    fn of_turns(sources: &Sources, server: &str) -> Vec<Option<String>> {
        let server = server.parse().unwrap();
        let of = |turn| sources.of_turn(server, turn).map(|address| address.to_string());
        (0..3).map(of).collect()
    }

    #[test]
    fn the_addresses_of_the_servers_family_take_turns() {
        let list = sources(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let turns = |server| of_turns(&list, server).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(turns("198.51.100.1:80"), ["192.0.2.1:0", "192.0.2.2:0", "192.0.2.1:0"]);
        assert_eq!(turns("[2001:db8::9]:80"), ["[2001:db8::1]:0"; 3]);
        assert_eq!(turns("[::ffff:198.51.100.1]:80")[1], "[::ffff:192.0.2.2]:0");
        let only = sources(&["192.0.2.1"]);
        assert_eq!(of_turns(&only, "[2001:db8::9]:80"), [None, None, None]);
        assert!(only.lacks_family_of("[2001:db8::9]:80".parse().unwrap()));
        assert!(!sources(&[]).lacks_family_of("[2001:db8::9]:80".parse().unwrap()));
        assert!(!sources(&["client"]).lacks_family_of("[2001:db8::9]:80".parse().unwrap()));
    }

    #[test]
    fn what_is_not_a_source_says_what_to_write() {
        for (text, part) in [
            ("192.0.2.1:80", "the address alone"),
            ("0.0.0.0", "remove it"),
            ("::", "remove it"),
            ("224.0.0.1", "an address of this machine"),
            ("::ffff:192.0.2.1", "\"192.0.2.1\""),
            ("web1", "not an IP address"),
            ("fe80::1", "%eth0"),
            ("192.0.2.1%eth0", "remove"),
        ] {
            let problem = source(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
