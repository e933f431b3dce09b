//! Multicast DNS (RFC 6762): asks the local links for the addresses of names such as "pi.local".
//!
//! One-shot queries (5.1): they come from another port than 5353, so that a responder answers by
//! unicast. Nothing is cached, and nothing is announced.

use std::io;
use std::net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::control::cluster::HostAddress;
use crate::control::resolve::answer::Answer;
use crate::control::resolve::system::absolute;
use crate::sys::multicast::{self, Link};

/// Where responders listen (RFC 6762, 3).
const GROUPS: (Ipv4Addr, Ipv6Addr, u16) =
    (Ipv4Addr::new(224, 0, 0, 251), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5353);

/// Queries are sent so many times, with this interval between them (RFC 6762, 5.2: at least one
/// second). The lookup ends an interval after the last one.
const TRIES: u32 = 2;
const INTERVAL: Duration = Duration::from_secs(1);

/// After the first answer: for those of the other family and of other interfaces. A responder with
/// a unique record answers at once (RFC 6762, 6).
const SETTLE: Duration = Duration::from_millis(150);

/// A datagram on Ethernet, or on a link with jumbo frames (RFC 6762, 17).
const DATAGRAM_MAX: usize = 9000;

/// Addresses that one lookup collects: more than any host has.
const FOUND_MAX: usize = 256;

/// The top bit of the class: in an answer, that older records are to be flushed (RFC 6762, 10.2).
const CACHE_FLUSH: u16 = 1 << 15;

/// An answer: addresses, and the smallest TTL.
type Found = (Vec<HostAddress>, Duration);

/// Whether a name is looked up here: HOST.local. Longer names, such as those of a Kubernetes
/// cluster in "cluster.local", are in DNS.
#[must_use]
pub fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.strip_suffix(".local").is_some_and(|name| !name.is_empty() && !name.contains('.'))
}

/// The addresses of `host`, within 2 s. Those of IPv6 that are link-local are used only if there is
/// no other: they are further ways to the same host.
pub(super) async fn lookup(host: &str) -> Result<Answer, String> {
    let name = absolute(host).ok_or_else(|| format!("`{host}` is not a host name"))?;
    let links = multicast::links(GROUPS).map_err(|error| format!("multicast DNS: {error}"))?;
    if links.is_empty() {
        return Err("multicast DNS: no interface is up that has multicast".to_owned());
    }
    let (sender, mut found) = mpsc::channel(16);
    let mut asking = JoinSet::new();
    for (socket, link) in links {
        asking.spawn_local(ask(socket, link, name.clone(), sender.clone()));
    }
    drop(sender);
    // The tasks end with `asking`.
    let mut deadline = Instant::now() + INTERVAL * TRIES;
    let (mut all, mut ttl) = (Vec::new(), Duration::MAX);
    while let Ok(Some((addresses, its_ttl))) = timeout_at(deadline, found.recv()).await {
        if all.is_empty() {
            deadline = deadline.min(Instant::now() + SETTLE);
        }
        all.extend(addresses);
        ttl = ttl.min(its_ttl);
        if all.len() > FOUND_MAX {
            break;
        }
    }
    if all.iter().any(|address| !is_link_local(address.ip)) {
        all.retain(|address| !is_link_local(address.ip));
    }
    if all.is_empty() {
        let seconds = (INTERVAL * TRIES).as_secs();
        return Err(format!("no answer by multicast DNS within {seconds} s"));
    }
    Ok(Answer::new(all, ttl))
}

/// Asks on one link, and sends what is answered there.
async fn ask(
    socket: net::UdpSocket,
    link: Link,
    name: Name,
    sender: mpsc::Sender<Found>,
) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let (queries, ids) = queries(&name).map_err(io::Error::other)?;
    let mut datagram = vec![0; DATAGRAM_MAX];
    let mut next = Instant::now();
    for _ in 0..TRIES {
        for query in &queries {
            socket.send_to(query, link.group).await?;
        }
        next += INTERVAL;
        loop {
            let (length, source) = tokio::select! {
                () = sleep_until(next) => break,
                received = socket.recv_from(&mut datagram) => received?,
            };
            if !is_from_link(&link, source) {
                continue;
            }
            let found = addresses(&datagram[..length], &ids, &name, link.zone);
            if let Some(found) = found
                && sender.send(found).await.is_err()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A message for each family, and their ids.
fn queries(name: &Name) -> Result<([Vec<u8>; 2], [u16; 2]), String> {
    let of = |kind| {
        let mut message = Message::query();
        message.add_query(Query::query(name.clone(), kind));
        let bytes = message.to_vec().map_err(|error| error.to_string())?;
        Ok::<_, String>((bytes, message.metadata.id))
    };
    let ((v4, v4_id), (v6, v6_id)) = (of(RecordType::A)?, of(RecordType::AAAA)?);
    Ok(([v4, v6], [v4_id, v6_id]))
}

/// Only answers from the link itself count (RFC 6762, 11), and only those of a responder.
fn is_from_link(link: &Link, source: SocketAddr) -> bool {
    source.port() == link.group.port() && link.is_on_link(source.ip())
}

/// The addresses of `name` in an answer to one of our queries; none: it is another message.
pub(super) fn addresses(datagram: &[u8], ids: &[u16], name: &Name, zone: u32) -> Option<Found> {
    let message = Message::from_vec(datagram).ok()?;
    let about = &message.metadata;
    let is_answer = about.message_type == MessageType::Response
        && about.op_code == OpCode::Query
        && about.response_code == ResponseCode::NoError
        && ids.contains(&about.id);
    let is_record = |record: &&Record| {
        let class = u16::from(record.dns_class) & !CACHE_FLUSH;
        // A TTL of 0 says that the record is gone (RFC 6762, 10.1).
        record.name == *name && class == u16::from(DNSClass::IN) && record.ttl > 0
    };
    if !is_answer {
        return None;
    }
    let records = message.answers.iter().chain(&message.additionals).filter(is_record);
    let found = records.filter_map(|record| Some((record.data.ip_addr()?, record.ttl)));
    let (found, ttls): (Vec<IpAddr>, Vec<u32>) = found.unzip();
    let ttl = Duration::from_secs(u64::from(ttls.into_iter().min()?));
    let in_zone = |ip| HostAddress { ip, zone: if is_link_local(ip) { zone } else { 0 } };
    Some((found.into_iter().map(in_zone).collect(), ttl))
}

/// Whether an address has a meaning only with an interface.
const fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::RData;

    use super::*;

    fn record(name: &str, ttl: u32, ip: &str) -> Record {
        let ip: IpAddr = ip.parse().unwrap();
        Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, RData::from(ip))
    }

    fn message(id: u16, records: Vec<Record>) -> Message {
        let mut message = Message::response(id, OpCode::Query);
        message.add_answers(records);
        message
    }

    fn found(message: &Message) -> Option<(Vec<String>, u64)> {
        let name = Name::from_ascii("pi.local.").unwrap();
        let (found, ttl) = addresses(&message.to_vec().unwrap(), &[7, 8], &name, 3)?;
        Some((found.iter().map(ToString::to_string).collect(), ttl.as_secs()))
    }

    #[test]
    fn names_of_two_labels_are_local() {
        for (host, expected) in [
            ("pi.local", true),
            ("pi.local.", true),
            ("my_pi.local", true),
            ("web.default.svc.cluster.local", false),
            ("local", false),
            (".local", false),
            ("pilocal", false),
            ("pi.local.lan", false),
        ] {
            assert_eq!(is_local(host), expected, "{host}");
        }
    }

    #[test]
    fn an_answer_has_the_addresses_of_the_name_and_the_zone_of_its_link() {
        let mut records = vec![record("PI.local.", 10, "192.0.2.1")];
        records.push(record("other.local.", 1, "192.0.2.2"));
        records.push(record("pi.local.", 0, "192.0.2.3"));
        records.push(record("pi.local.", 120, "fe80::1"));
        records[3].dns_class = DNSClass::Unknown(0x8001);
        records.push(record("pi.local.", 120, "2001:db8::1"));
        let expected = ["192.0.2.1", "fe80::1%3", "2001:db8::1"].map(str::to_owned).to_vec();
        assert_eq!(found(&message(8, records)), Some((expected, 10)));
    }

    #[test]
    fn a_message_that_is_no_answer_is_ignored() {
        let good = || message(7, vec![record("pi.local.", 10, "192.0.2.1")]);
        assert!(found(&good()).is_some());
        let mut query = good();
        query.metadata.message_type = MessageType::Query;
        let mut failed = good();
        failed.metadata.response_code = ResponseCode::NXDomain;
        let mut other = good();
        other.metadata.id = 9;
        let mut chaos = good();
        chaos.answers[0].dns_class = DNSClass::CH;
        for wrong in [query, failed, other, chaos, message(7, Vec::new())] {
            assert_eq!(found(&wrong), None, "{wrong}");
        }
        let name = Name::from_ascii("pi.local.").unwrap();
        let whole = good().to_vec().unwrap();
        for end in 0..whole.len() {
            assert!(addresses(&whole[..end], &[7], &name, 0).is_none(), "{end} bytes");
        }
    }
}
