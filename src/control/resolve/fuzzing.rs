//! What fuzzing checks of answers of DNS and of multicast DNS.

#![expect(clippy::missing_panics_doc, reason = "what does not hold is found by a panic")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType};
use hickory_resolver::proto::rr::{Name, Record};

use crate::control::cluster::{ADDRESSES_MAX, RECORDS_MAX};
use crate::control::resolve::answer::{Answer, TTL};
use crate::control::resolve::{mdns, srv, system};

/// An interface of an answer by multicast DNS.
const ZONE: u32 = 3;

/// A message from a DNS server or from a host of the link.
pub fn dns_answer(input: &[u8]) {
    let Ok(message) = Message::from_vec(input) else {
        let name = Name::root();
        assert!(mdns::addresses(input, &[id(input)], &name, ZONE).is_none());
        return;
    };
    addresses(&message.answers);
    records(&message.answers);
    let asked = message.queries.first().map(|query| query.name().clone());
    let named = message.answers.iter().map(|record| record.name.clone());
    for name in asked.into_iter().chain(named).take(4) {
        multicast(input, &message, &name);
    }
}

fn id(input: &[u8]) -> u16 {
    input.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn addresses(answers: &[Record]) {
    let found = system::addresses(answers);
    let count = found.iter().collect::<BTreeSet<_>>().len();
    let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    let answer = Answer::new(found, Duration::from_secs(ttl.into()));
    assert!(answer.addresses.is_sorted_by(|one, next| one < next));
    assert_eq!(answer.addresses.len(), count.min(ADDRESSES_MAX));
    assert_eq!(answer.addresses.len() + answer.left_out, count);
    assert!((TTL.0..=TTL.1).contains(&answer.ttl));
}

fn records(answers: &[Record]) {
    let Some(answer) = srv::records(answers, TTL.1) else { return };
    assert!((1..=RECORDS_MAX).contains(&answer.records.len()));
    assert!(answer.records.is_sorted_by_key(|record| record.priority));
    assert!((TTL.0..=TTL.1).contains(&answer.ttl));
    let places = answer.records.iter().map(|record| (&record.target, record.port));
    assert_eq!(places.collect::<BTreeSet<_>>().len(), answer.records.len(), "each once");
    for record in &answer.records {
        let target = &record.target;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        assert!(record.port > 0 && target.len() > 1 && target.ends_with('.'), "{record:?}");
        assert!(target.bytes().all(fits) && *target == target.to_ascii_lowercase(), "{record:?}");
        // It can be looked up: a name that is not one would fail for ever.
        assert!(system::absolute(target).is_some(), "{record:?}");
    }
}

fn multicast(input: &[u8], message: &Message, name: &Name) {
    let id = id(input);
    assert!(mdns::addresses(input, &[!id], name, ZONE).is_none(), "an answer to nobody");
    let Some((found, ttl)) = mdns::addresses(input, &[id], name, ZONE) else { return };
    assert_eq!(message.metadata.message_type, MessageType::Response);
    let all = message.answers.iter().chain(&message.additionals);
    let own: Vec<&Record> = all.filter(|record| record.name == *name).collect();
    assert!(!found.is_empty() && ttl > Duration::ZERO);
    for address in &found {
        let has = |record: &&&Record| record.data.ip_addr() == Some(address.ip);
        let shortest = own.iter().filter(has).map(|record| record.ttl).max();
        assert!(shortest.is_some_and(|shortest| ttl.as_secs() <= shortest.into()), "{address}");
        let is_link_local = matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        assert_eq!(address.zone, if is_link_local { ZONE } else { 0 });
    }
}
