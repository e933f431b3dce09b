//! Lookups, against a scripted DNS server.

mod srv;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, sleep, timeout};

use super::answer::TTL;
use super::dns::SERVER_TIME_MAX;
use super::follow::jittered;
use super::resolver::{LOOKUP_TIME_MAX, LOOKUPS_MAX};
use super::system::{Files, System};
use super::*;
use crate::control::cluster::HostAddress;

const LONG: Duration = Duration::from_secs(20);

/// A scripted DNS server, which counts the queries for A.
#[derive(Clone)]
struct Dns {
    script: Rc<RefCell<Script>>,
    address: SocketAddr,
}

#[derive(Default)]
struct Script {
    says: HashMap<(String, RecordType), Says>,
    asked: u32,
    names: HashSet<String>,
}

#[derive(Clone)]
enum Says {
    Records(u32, Vec<IpAddr>),
    Code(ResponseCode),
    Nothing,
}

impl Dns {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let script = Rc::new(RefCell::new(Script::default()));
        let dns = Self { script, address };
        tokio_uring::spawn(dns.clone().serve(socket));
        dns
    }

    async fn serve(self, socket: UdpSocket) {
        let mut question = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut question).await.unwrap();
            if let Some(answer) = self.answer(&question[..length]) {
                socket.send_to(&answer, client).await.unwrap();
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let mut message = Message::from_vec(question).unwrap();
        let query = message.queries[0].clone();
        let mut script = self.script.borrow_mut();
        if query.query_type() == RecordType::A {
            script.asked += 1;
        }
        let name = query.name().to_ascii().to_lowercase();
        script.names.insert(name.clone());
        let says = script.says.get(&(name, query.query_type())).cloned();
        message.metadata.message_type = MessageType::Response;
        match says.unwrap_or(Says::Code(ResponseCode::NoError)) {
            Says::Nothing => return None,
            Says::Code(code) => message.metadata.response_code = code,
            Says::Records(ttl, addresses) => {
                let record =
                    |address| Record::from_rdata(query.name().clone(), ttl, RData::from(address));
                message.add_answers(addresses.into_iter().map(record));
            }
        }
        Some(message.to_vec().unwrap())
    }

    fn say(&self, kind: RecordType, says: Says) {
        let key = ("web.test.".to_owned(), kind);
        self.script.borrow_mut().says.insert(key, says);
    }

    fn has(&self, ttl: u32, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap());
        let (v4, v6) = addresses.partition(IpAddr::is_ipv4);
        self.say(RecordType::A, Says::Records(ttl, v4));
        self.say(RecordType::AAAA, Says::Records(ttl, v6));
    }

    fn fails(&self, code: ResponseCode) {
        self.say(RecordType::A, Says::Code(code));
        self.say(RecordType::AAAA, Says::Code(code));
    }

    fn asked(&self) -> u32 {
        self.script.borrow().asked
    }

    async fn lookup(&self) -> Result<Answer, String> {
        Resolver::with_nameserver(self.address).lookup("web.test").await
    }

    fn follow(&self, first: Option<Answer>) -> (Follower, UnboundedReceiver<Resolved>) {
        let (sender, news) = mpsc::unbounded_channel();
        let resolver = Resolver::with_nameserver(self.address);
        (Follower::start(resolver, "web.test".to_owned(), first, sender), news)
    }

    /// Waits until it was asked `times` times more.
    async fn is_asked(&self, times: u32) {
        let (asked, deadline) = (self.asked(), Instant::now() + LONG);
        while self.asked() < asked + times {
            assert!(Instant::now() < deadline, "asked {} times", self.asked() - asked);
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn raw(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn ips(addresses: &[&str]) -> Vec<HostAddress> {
    raw(addresses).into_iter().map(HostAddress::from).collect()
}

async fn next(news: &mut UnboundedReceiver<Resolved>) -> Result<Vec<HostAddress>, String> {
    let resolved = timeout(LONG, news.recv()).await.unwrap().unwrap();
    assert_eq!(resolved.name, "web.test");
    resolved.answer.map(|answer| answer.addresses)
}

#[test]
fn a_name_has_its_addresses_once_and_in_order_whatever_the_server_shuffles() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        let wanted = ips(&["10.0.0.1", "10.0.0.2", "10.0.0.10", "fd00::1"]);
        dns.has(60, &["10.0.0.10", "10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!(dns.lookup().await.unwrap().addresses, wanted);
        dns.has(60, &["10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.10"]);
        assert_eq!(dns.lookup().await.unwrap().addresses, wanted);
    });
}

#[test]
fn the_ttl_is_the_smallest_within_bounds() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        for (a, aaaa, wanted) in [(60, 30, 30), (0, 60, 1), (86_400, 7200, 3600)] {
            dns.say(RecordType::A, Says::Records(a, raw(&["10.0.0.1"])));
            dns.say(RecordType::AAAA, Says::Records(aaaa, raw(&["fd00::1"])));
            assert_eq!(dns.lookup().await.unwrap().ttl, Duration::from_secs(wanted));
        }
    });
}

#[test]
fn a_lookup_without_an_answer_says_why() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.fails(ResponseCode::NXDomain);
        assert_eq!(dns.lookup().await.unwrap_err(), "no such name (NXDOMAIN)");
        dns.fails(ResponseCode::NoError);
        assert_eq!(dns.lookup().await.unwrap_err(), "the name has no address");
        dns.fails(ResponseCode::ServFail);
        let error = dns.lookup().await.unwrap_err();
        assert!(error.starts_with("the DNS server answered: "), "{error}");
    });
}

#[test]
fn a_dns_server_that_does_not_answer_ends_the_lookup_in_time() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.say(RecordType::AAAA, Says::Nothing);
        dns.say(RecordType::A, Says::Nothing);
        let started = Instant::now();
        assert_eq!(dns.lookup().await.unwrap_err(), "no DNS server answered in time");
        assert!(started.elapsed() < LOOKUP_TIME_MAX + SERVER_TIME_MAX);
        // Only AAAA is swallowed: the answer is what A says.
        dns.say(RecordType::A, Says::Records(60, raw(&["10.0.0.1"])));
        assert_eq!(dns.lookup().await.unwrap().addresses, ips(&["10.0.0.1"]));
    });
}

#[test]
fn localhost_and_addresses_need_no_dns() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        let resolver = Resolver::with_nameserver(dns.address);
        for (host, address) in [("localhost", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")] {
            assert_eq!(resolver.lookup(host).await.unwrap().addresses, ips(&[address]));
        }
        let found = Resolver::new().lookup("localhost").await.unwrap();
        assert!(found.addresses.iter().all(|found| found.ip.is_loopback()), "{found:?}");
        assert_eq!(dns.asked(), 0);
    });
}

#[test]
fn a_name_that_moves_is_followed_and_nothing_else_is_reported() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.has(1, &["10.0.0.1"]);
        let (_follower, mut news) = dns.follow(None);
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
        dns.is_asked(2).await;
        assert!(news.is_empty(), "nothing changed");
        dns.has(1, &["10.0.0.2", "10.0.0.3"]);
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.2", "10.0.0.3"]));
    });
}

#[test]
fn a_failure_is_reported_once_and_its_end_too() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.has(1, &["10.0.0.1"]);
        let first = dns.lookup().await.unwrap();
        let (_follower, mut news) = dns.follow(Some(first));
        dns.fails(ResponseCode::ServFail);
        assert!(next(&mut news).await.is_err());
        dns.is_asked(1).await;
        assert!(news.is_empty(), "still failing");
        dns.has(1, &["10.0.0.1"]);
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
    });
}

#[test]
fn a_name_that_is_unknown_at_start_is_looked_up_again() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.fails(ResponseCode::NXDomain);
        let (_follower, mut news) = dns.follow(None);
        assert!(next(&mut news).await.is_err());
        dns.has(60, &["10.0.0.1"]);
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
    });
}

#[test]
fn a_family_whose_query_fails_keeps_its_addresses() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.has(1, &["10.0.0.1", "fd00::1"]);
        let (_follower, mut news) = dns.follow(None);
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1", "fd00::1"]));
        dns.say(RecordType::A, Says::Code(ResponseCode::ServFail));
        dns.say(RecordType::AAAA, Says::Records(1, raw(&["fd00::2"])));
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1", "fd00::2"]));
    });
}

#[test]
fn a_refresh_looks_up_at_once_but_not_twice_in_a_second() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.has(3600, &["10.0.0.1"]);
        let (follower, mut news) = dns.follow(None);
        assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
        dns.has(3600, &["10.0.0.2"]);
        let (asked, started) = (dns.asked(), Instant::now());
        let poking = async {
            loop {
                follower.refresh();
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = poking => {}
            found = next(&mut news) => assert_eq!(found.unwrap(), ips(&["10.0.0.2"])),
        }
        let most = 1 + u32::try_from(started.elapsed().as_secs()).unwrap();
        assert!(dns.asked() - asked <= most, "asked {} times", dns.asked() - asked);
    });
}

#[test]
fn lookups_are_spread_over_an_eighth_of_the_ttl_and_never_late() {
    let ttl = Duration::from_secs(80);
    assert_eq!(jittered(ttl, 0), ttl);
    let earliest = jittered(ttl, u64::MAX);
    assert!(earliest >= ttl * 7 / 8 && earliest < ttl * 9 / 10, "{earliest:?}");
    assert_eq!(jittered(TTL.0, u64::MAX), TTL.0);
}

#[test]
fn concurrent_lookups_are_limited() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        let (sender, mut news) = mpsc::unbounded_channel::<Resolved>();
        let resolver = Resolver::with_nameserver(dns.address);
        let hosts: Vec<String> = (0..40).map(|n| format!("n{n}.test")).collect();
        for host in &hosts {
            for kind in [RecordType::A, RecordType::AAAA] {
                let says = &mut dns.script.borrow_mut().says;
                says.insert((format!("{host}."), kind), Says::Nothing);
            }
        }
        let follow =
            |host: &String| Follower::start(resolver.clone(), host.clone(), None, sender.clone());
        let followers: Vec<Follower> = hosts.iter().map(follow).collect();
        assert!(timeout(LONG, news.recv()).await.unwrap().unwrap().answer.is_err());
        // Those that began with it may just have given their places away, too.
        let names = dns.script.borrow().names.len();
        assert!((LOOKUPS_MAX..=2 * LOOKUPS_MAX).contains(&names), "{names} names were asked");
        drop(followers);
    });
}

#[test]
fn a_dropped_follower_makes_no_more_lookups() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.has(1, &["10.0.0.1"]);
        let (follower, mut news) = dns.follow(None);
        assert!(next(&mut news).await.is_ok());
        drop(follower);
        assert_eq!(timeout(LONG, news.recv()).await.unwrap(), None);
    });
}

#[test]
fn names_with_few_dots_are_tried_in_the_search_list_first() {
    let search = ["home.test", "lan"].map(|domain| Name::from_utf8(domain).unwrap());
    let config = ResolverConfig::from_parts(None, search.to_vec(), Vec::new());
    let system = System::new(None, Hosts::default(), Ok((config, ResolverOpts::default())));
    let names =
        |host| -> Vec<String> { system.names(host).unwrap().iter().map(Name::to_ascii).collect() };
    assert_eq!(names("web"), ["web.home.test.", "web.lan.", "web."]);
    assert_eq!(names("web.x"), ["web.x.", "web.x.home.test.", "web.x.lan."]);
    assert_eq!(names("web."), ["web."]);
}

#[test]
fn the_systems_files_are_read_again_when_they_change() {
    let folder = std::env::temp_dir().join(format!("evenkeel-resolve-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let files = Files { resolv_conf: folder.join("resolv.conf"), hosts: folder.join("hosts") };
    tokio_uring::start(async {
        let resolver = Resolver::of(System::read(files.clone(), Vec::new()));
        let error = resolver.lookup("web.test").await.unwrap_err();
        assert!(error.contains("resolv.conf: ") && error.contains("No such file"), "{error}");
        fs::write(&files.resolv_conf, "# nothing\n").unwrap();
        let error = resolver.lookup("web.test").await.unwrap_err();
        assert!(error.contains("no nameservers"), "{error}");
        fs::write(&files.hosts, "10.0.0.2 web.test # ours\n10.0.0.1 other WEB.test\n").unwrap();
        let found = resolver.lookup("web.test").await.unwrap();
        assert_eq!(found.addresses, ips(&["10.0.0.1", "10.0.0.2"]));
        fs::write(&files.hosts, "fd00::3 web.test\n").unwrap();
        let found = resolver.lookup("web.test").await.unwrap();
        assert_eq!(found.addresses, ips(&["fd00::3"]));
    });
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn hints_without_a_change_come_in_growing_pauses() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        dns.has(3600, &["10.0.0.1"]);
        let first = dns.lookup().await.unwrap();
        let (follower, _news) = dns.follow(Some(first));
        let (asked, started) = (dns.asked(), Instant::now());
        while started.elapsed() < Duration::from_secs(8) {
            follower.hint();
            sleep(Duration::from_millis(5)).await;
        }
        // After 1, 3 and 7 seconds.
        let hinted = dns.asked() - asked;
        assert!((1..=3).contains(&hinted), "asked {hinted} times");
        // The operator does not wait for the end of the pause.
        follower.refresh();
        dns.is_asked(1).await;
        assert!(started.elapsed() < Duration::from_secs(14), "{:?}", started.elapsed());
    });
}

#[test]
fn names_with_underscores_and_names_with_a_dot_at_the_end_are_looked_up() {
    tokio_uring::start(async {
        let dns = Dns::start().await;
        for host in ["tasks.web_api", "my_service", "web."] {
            let key = (format!("{}.", host.trim_end_matches('.')), RecordType::A);
            let says = Says::Records(60, raw(&["10.0.0.1"]));
            dns.script.borrow_mut().says.insert(key, says);
            let found = Resolver::with_nameserver(dns.address).lookup(host).await.unwrap();
            assert_eq!(found.addresses, ips(&["10.0.0.1"]), "{host}");
        }
    });
}

#[test]
fn a_dns_server_that_cannot_answer_is_followed_by_the_next() {
    tokio_uring::start(async {
        let (bad, good) = (Dns::start().await, Dns::start().await);
        let files = Files { resolv_conf: "/nonexistent".into(), hosts: "/nonexistent".into() };
        let system = System::read(files, vec![bad.address, good.address]);
        let resolver = Resolver::of(system);
        good.has(60, &["10.0.0.1"]);
        for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NXDomain] {
            bad.fails(code);
            let found = resolver.lookup("web.test").await.unwrap();
            assert_eq!(found.addresses, ips(&["10.0.0.1"]), "{code}");
        }
        good.fails(ResponseCode::ServFail);
        let error = resolver.lookup("web.test").await.unwrap_err();
        assert!(error.starts_with("the DNS server answered: "), "{error}");
    });
}
