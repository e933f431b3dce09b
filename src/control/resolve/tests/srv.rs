//! SRV names, and answers that are too long.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType};
use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use crate::control::cluster::{HostAddress, SrvRecord};
use crate::control::resolve::answer::TTL;
use crate::control::resolve::{Answer, Resolver, SrvAnswer};

/// A DNS server that has these SRV records for `_web.test`, and aliases.
async fn srv_server(answers: Vec<(&'static str, Vec<RData>)>) -> Resolver {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio_uring::spawn(async move {
        let mut question = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut question).await.unwrap();
            let mut message = Message::from_vec(&question[..length]).unwrap();
            let query = message.queries[0].clone();
            let name = query.name().to_ascii();
            let known = answers.iter().filter(|(known, _)| *known == name);
            for data in known.flat_map(|(_, data)| data) {
                let kind = data.record_type();
                if kind == query.query_type() || kind == RecordType::CNAME {
                    message.add_answer(Record::from_rdata(query.name().clone(), 60, data.clone()));
                }
            }
            message.metadata.message_type = MessageType::Response;
            socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
        }
    });
    Resolver::with_nameserver(address)
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}

#[test]
fn unusable_srv_records_are_left_out_and_the_rest_is_in_order() {
    tokio_uring::start(async {
        let records = vec![
            srv(20, 1, 80, "b.test."),
            srv(10, 1, 80, "C.test."),
            srv(10, 1, 80, "a.test."),
            srv(5, 9, 80, "b.test."),
            srv(10, 1, 0, "zero.test."),
            srv(10, 1, 80, "."),
            srv(10, 1, 80, "*.test."),
        ];
        let resolver = srv_server(vec![("_web.test.", records)]).await;
        let answer = resolver.lookup_srv("_web.test").await.unwrap();
        let found = answer.records.iter().map(|one| (one.priority, &*one.target, one.weight));
        let expected = [(5, "b.test.", 9), (10, "a.test.", 1), (10, "c.test.", 1)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!((answer.left_out, answer.ttl), (0, Duration::from_secs(60)));
        let error = resolver.lookup_srv("_other.test").await.unwrap_err();
        assert_eq!(error, "the name has no usable SRV record");
    });
}

#[test]
fn an_alias_of_an_srv_name_is_followed() {
    tokio_uring::start(async {
        let alias = |target| RData::CNAME(CNAME(Name::from_ascii(target).unwrap()));
        let resolver = srv_server(vec![
            ("_web.test.", vec![alias("_real.test.")]),
            ("_real.test.", vec![srv(1, 1, 80, "a.test.")]),
            ("_one.test.", vec![alias("_two.test.")]),
            ("_two.test.", vec![alias("_one.test.")]),
        ])
        .await;
        let answer = resolver.lookup_srv("_web.test").await.unwrap();
        assert_eq!(answer.records[0].target, "a.test.");
        assert!(resolver.lookup_srv("_one.test").await.is_err());
    });
}

#[test]
fn at_most_1024_addresses_of_a_name_and_records_of_an_srv_name_are_used() {
    let address = |n| HostAddress::from(IpAddr::from(Ipv4Addr::from_bits(n)));
    let answer = Answer::new((0x0a00_0000..0x0a00_0000 + 1500).map(address).collect(), TTL.1);
    assert_eq!((answer.addresses.len(), answer.left_out), (1024, 476));
    let record = |port| SrvRecord { target: "a.".to_owned(), port, priority: 1, weight: 1 };
    let answer = SrvAnswer::new((1..=1500).map(record).collect(), TTL.1).unwrap();
    assert_eq!((answer.records.len(), answer.left_out), (1024, 476));
}
