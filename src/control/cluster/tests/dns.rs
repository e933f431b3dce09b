//! Host names: what their answers do to servers and endpoints.

use std::net::IpAddr;

use std::collections::HashMap;

use super::*;

pub(super) fn ips(addresses: &[&str]) -> Vec<HostAddress> {
    addresses.iter().map(|text| text.parse::<IpAddr>().unwrap().into()).collect()
}

impl Scene {
    pub(super) fn unanswered(&mut self, host: &str, why: &str) {
        self.cluster.unanswered(&HashMap::from([(host.to_owned(), why.to_owned())]));
    }
}

#[test]
fn a_name_without_an_answer_is_a_server_that_is_down_until_a_probe_passes() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    assert!(!scene.status("a").up && scene.status("a").endpoints.is_empty());
    assert!(scene.picked().is_empty() && scene.cluster.probe_targets().next().is_none());
    assert_eq!(scene.cluster.without_address(), ["web/a"]);
    assert_eq!(&*scene.status("a").last_probe.detail, "no address");
    scene.unanswered("pi", "no such name");
    assert_eq!(&*scene.status("a").last_probe.detail, "no address: no such name");
    assert!(scene.dns("pi", &["10.0.0.1"]));
    assert!(scene.cluster.without_address().is_empty());
    assert_eq!(&*scene.status("a").last_probe.detail, "not probed yet");
    scene.unanswered("pi", "no such name");
    assert_eq!(&*scene.status("a").last_probe.detail, "not probed yet", "its last address holds");
    assert!(scene.picked().is_empty());
    assert!(scene.probe("a", true), "the first probe decides");
    assert_eq!(scene.picked(), ["a"]);
}

#[test]
fn several_addresses_of_a_name_that_had_none_are_down_until_a_probe_passes() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    assert!(scene.picked().is_empty(), "{:?}", scene.names());
    assert!(scene.probe_at("a", "10.0.0.2:80", true));
    assert_eq!(scene.rotation(), [("a".to_owned(), "10.0.0.2:80".to_owned())]);
}

#[test]
fn without_probes_a_name_is_up_as_soon_as_it_has_an_address() {
    let servers = at("a", "pi:80").replace("[[", "check = \"off\"\n[[");
    let mut scene = Scene::of(&servers);
    assert!(scene.picked().is_empty());
    scene.dns("pi", &["10.0.0.1"]);
    assert_eq!(scene.picked(), ["a"]);
}

#[test]
fn a_name_that_moves_keeps_its_counters_and_nothing_is_known_of_its_new_address() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1"]);
    scene.probe("a", true);
    let before = scene.status("a").shared;
    scene.changes();
    assert!(scene.dns("pi", &["10.0.0.2"]));
    assert_eq!(scene.addresses("a"), ["10.0.0.2:80"]);
    assert!(Arc::ptr_eq(&before, &scene.status("a").shared));
    assert_eq!(scene.changes(), ["server web/a moved from 10.0.0.1:80 to 10.0.0.2:80"]);
    assert!(scene.status("a").up && scene.probe("a", false), "the first probe decides");
}

#[test]
fn a_name_with_several_addresses_is_one_server() {
    let mut scene =
        Scene::of(&(server("a", "address = \"pi:80\"\nsessions_max = 4") + &server("b", "")));
    scene.dns("pi", &["10.0.0.1"]);
    scene.probe("a", true);
    let before = scene.status("a");
    assert!(before.shared.sessions.try_raise());
    assert!(scene.dns("pi", &["10.0.0.1", "10.0.0.2"]));
    assert_eq!(scene.names(), ["a", "b"]);
    let after = scene.status("a");
    assert!(Arc::ptr_eq(&before.shared, &after.shared), "one series");
    assert!(Arc::ptr_eq(&before.probes, &after.probes));
    assert_eq!(after.shared.sessions.room(), 3, "one sessions_max");
    assert!(!scene.dns("pi", &["10.0.0.2", "10.0.0.1"]), "another order is no change");
    assert_eq!(scene.addresses("a"), ["10.0.0.1:80", "10.0.0.2:80"]);
}

#[test]
fn endpoints_share_the_weight_of_their_server() {
    let mut scene = Scene::of(&(at("a", "pi:80") + &server("b", "")));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        scene.probe_at("a", address, true);
    }
    let rotation = scene.rotation();
    let turns = |wanted: &str| rotation.iter().filter(|(_, address)| address == wanted).count();
    let b = own_address("b").to_string();
    let each = ["10.0.0.1:80", "10.0.0.2:80", &b].map(turns);
    assert_eq!((rotation.len(), each), (4, [1, 1, 2]));
}

#[test]
fn a_server_is_up_while_one_of_its_endpoints_is() {
    let mut scene = Scene::of(&(at("a", "pi:80") + &server("b", "")));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    scene.probe_at("a", "10.0.0.1:80", true);
    scene.probe_at("a", "10.0.0.2:80", true);
    scene.changes();
    for _ in 0..3 {
        scene.probe_at("a", "10.0.0.2:80", false);
    }
    assert!(scene.status("a").up);
    assert_eq!(
        scene.changes(),
        ["server web/a endpoint 10.0.0.2:80 is down: refused (3 of 3 probes); 1 of 2 endpoints up"]
    );
    assert_eq!(&*scene.status("a").last_probe.detail, "10.0.0.2:80: refused");
    let rotation = scene.rotation();
    assert!(rotation.iter().all(|(_, address)| address != "10.0.0.2:80"), "{rotation:?}");
    assert_eq!(rotation.len(), 2, "the server keeps its weight: {rotation:?}");
    for _ in 0..3 {
        scene.probe_at("a", "10.0.0.1:80", false);
    }
    assert!(!scene.status("a").up);
    assert_eq!(scene.picked(), ["b"]);
}

#[test]
fn an_endpoint_whose_address_stays_keeps_everything() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    scene.probe_at("a", "10.0.0.1:80", true);
    let task = scene.task("a", "10.0.0.1:80".parse().unwrap());
    let table = scene.cluster.table(1, &Bound::new());
    let endpoint = Arc::clone(&table.frontends[0].backend.as_ref().unwrap().schedule.endpoints[0]);
    endpoint.load.raise();
    assert!(endpoint.shared.sessions.try_raise());
    scene.dns("pi", &["10.0.0.1"]);
    scene.dns("pi", &["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
    let status = scene.endpoint("a", "10.0.0.1:80");
    assert!(status.up);
    assert_eq!((status.sessions, &*status.last_probe.detail), (1, "passed"));
    assert_eq!(
        scene.task("a", endpoint.address.for_client(None).unwrap()),
        task,
        "its probes go on"
    );
    assert!(!scene.probe_at("a", "10.0.0.1:80", false), "fall still holds");
    assert_eq!(scene.status("a").shared.sessions.active(), 1);
}

#[test]
fn an_address_that_was_down_when_it_left_is_down_when_it_returns() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    scene.probe_at("a", "10.0.0.1:80", true);
    scene.probe_at("a", "10.0.0.2:80", false);
    scene.dns("pi", &["10.0.0.1"]);
    scene.dns("pi", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(!scene.endpoint("a", "10.0.0.2:80").up);
    assert!(scene.endpoint("a", "10.0.0.3:80").up, "nothing is known of it");
    assert!(!scene.probe_at("a", "10.0.0.2:80", true), "rise holds");
    assert!(scene.probe_at("a", "10.0.0.2:80", true));
    scene.dns("pi", &["10.0.0.1"]);
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    assert!(scene.endpoint("a", "10.0.0.2:80").up, "it was up when it left");
}

#[test]
fn a_server_whose_only_address_leaves_and_returns_while_down_is_down() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1"]);
    scene.probe("a", true);
    for _ in 0..3 {
        scene.probe("a", false);
    }
    scene.dns("pi", &["10.0.0.2"]);
    scene.dns("pi", &["10.0.0.1"]);
    assert!(!scene.status("a").up);
}

#[test]
fn an_order_for_a_server_is_for_all_its_endpoints() {
    let mut scene = Scene::of(&(at("a", "pi:80") + &server("b", "")));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    scene.order("a", AdminState::Drain);
    assert_eq!(scene.status("a").admin, AdminState::Drain);
    assert_eq!(scene.picked(), ["b"]);
    scene.order("a", AdminState::Maint);
    assert_eq!(scene.cluster.probe_targets().count(), 1);
}

#[test]
fn an_empty_answer_changes_nothing_and_a_reload_keeps_the_last_good_one() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1"]);
    assert!(!scene.dns("pi", &[]));
    scene.load(&(at("a", "pi:80") + &at("b", "pi:81")));
    assert_eq!(scene.addresses("a"), ["10.0.0.1:80"]);
    assert_eq!(scene.addresses("b"), ["10.0.0.1:81"]);
    assert!(scene.cluster.knows("pi"));
}

#[test]
fn an_address_that_leads_back_to_its_backend_is_no_endpoint() {
    let mut scene = Scene::of(&at("a", "here.test:80"));
    scene.dns("here.test", &["127.0.0.1"]);
    assert!(scene.addresses("a").is_empty());
    assert_eq!(
        scene.changes(),
        ["server web/a is not used at 127.0.0.1:80: that is frontend http, which leads back to \
          backend web; correct what the host name resolves to, or the address of the server"]
    );
    let status = scene.status("a");
    let why = "no address: 127.0.0.1:80 is frontend http, which leads back to backend web";
    assert!(!status.up && *status.last_probe.detail == *why, "{status:?}");
    scene.dns("here.test", &["127.0.0.1", "192.0.2.1"]);
    assert_eq!(scene.addresses("a"), ["192.0.2.1:80"]);
}

#[test]
fn a_name_that_only_leads_back_to_its_backend_is_a_server_that_is_down() {
    let mut scene = Scene::of(&at("a", "here.test:81"));
    scene.dns("here.test", &["127.0.0.1", "127.0.0.2"]);
    scene.changes();
    let mut more = config(&at("a", "here.test:81"));
    Arc::make_mut(&mut more.frontends[0]).bind[0].0 = SocketAddr::from(([0, 0, 0, 0], 81)).into();
    scene.cluster.merge(&more, Answers::new(), &here(), scene.now);
    assert!(scene.addresses("a").is_empty());
    assert!(!scene.status("a").up && scene.picked().is_empty());
    assert!(scene.cluster.probe_targets().next().is_none());
    let said = scene.changes().concat();
    let down = "server web/a is down: every address of the host name leads back to backend web";
    assert!(said.contains(down), "{said}");
    scene.dns("here.test", &["192.0.2.1"]);
    assert_eq!(scene.addresses("a"), ["192.0.2.1:81"]);
}

#[test]
fn an_answer_that_came_before_the_reload_that_had_asked_is_the_newer_one() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.2"]);
    let older = Answers::from([("pi".to_owned(), ips(&["10.0.0.1"]))]);
    scene.cluster.merge(&config(&at("a", "pi:80")), older, &here(), scene.now);
    assert_eq!(scene.addresses("a"), ["10.0.0.2:80"]);
}

#[test]
fn an_address_of_this_machine_is_a_wildcard_frontend() {
    let mut scene = Scene::of(&at("a", "here.test:80"));
    let mut wild = config(&at("a", "here.test:80"));
    Arc::make_mut(&mut wild.frontends[0]).bind[0].0 = SocketAddr::from(([0, 0, 0, 0], 80)).into();
    scene.cluster.merge(&wild, Answers::new(), &here(), scene.now);
    scene.dns("here.test", &["198.51.100.7", "198.51.100.8"]);
    assert_eq!(scene.addresses("a"), ["198.51.100.8:80"]);
    let said = scene.changes();
    assert!(said[0].contains("198.51.100.7:80: that is frontend http"), "{said:?}");
}

/// Another frontend, on 127.0.0.1:82, before a backend with the server `b`.
fn second(address: &str) -> String {
    format!(
        "[frontend.second]\nbind = [\"127.0.0.1:82\"]\nbackend = \"second\"\n\
         [[backend.second.server]]\nname = \"b\"\naddress = \"{address}\"\n"
    )
}

const NONE: [&str; 0] = [];

#[test]
fn a_chain_of_frontends_by_name_is_used_as_one_by_number() {
    for address in ["here.test:82", "127.0.0.1:82"] {
        let mut scene = Scene::of(&(at("a", address) + &second("192.0.2.9:80")));
        scene.dns("here.test", &["127.0.0.1"]);
        assert_eq!(scene.addresses("a"), ["127.0.0.1:82"], "{address}");
        let said = scene.changes().concat();
        assert!(!said.contains("not used"), "{address}: {said}");
    }
}

#[test]
fn of_two_names_that_lead_to_each_other_the_one_that_was_resolved_first_is_used() {
    let servers = at("a", "one.test:82") + &second("two.test:80");
    let (name_a, name_b) = (("a", "one.test"), ("b", "two.test"));
    for [(first, its_name), (last, other_name)] in [[name_a, name_b], [name_b, name_a]] {
        let mut scene = Scene::of(&servers);
        scene.dns(its_name, &["127.0.0.1"]);
        scene.changes();
        assert!(!scene.dns(other_name, &["127.0.0.1"]));
        assert_eq!(scene.addresses(first).len(), 1, "{first} first");
        assert_eq!(scene.addresses(last), NONE, "{first} first");
        let said = scene.changes();
        assert!(said.len() == 1 && said[0].contains(&format!("/{last} is not used")), "{said:?}");
        let status = scene.status(last);
        assert!(status.last_probe.detail.contains("which leads back to backend"), "{status:?}");
        // The first one moves, and the other no longer closes a cycle.
        assert!(scene.dns(its_name, &["192.0.2.1"]));
        assert_eq!(scene.addresses(last).len(), 1, "{first} moved");
        let said = scene.changes();
        let found = format!("/{last} has an address: 127.0.0.1");
        assert!(said.iter().any(|line| line.contains(&found)), "{said:?}");
        // What is in use stays in use.
        scene.dns(its_name, &["127.0.0.1", "192.0.2.1"]);
        assert_eq!(scene.addresses(last).len(), 1, "{first} returned");
        let used = scene.addresses(first);
        assert!(used.len() == 1 && used[0].starts_with("192.0.2.1:"), "{used:?}");
    }
}

#[test]
fn names_that_form_a_cycle_at_the_start_are_taken_in_the_order_of_the_file() {
    let servers = at("a", "one.test:82") + &second("two.test:80");
    let loopback = ips(&["127.0.0.1"]);
    let names = ["one.test", "two.test"].map(|name| (name.to_owned(), loopback.clone()));
    let mut scene = Scene { cluster: Cluster::new(1), now: Instant::now(), version: 0 };
    scene.cluster.merge(&config(&servers), Answers::from(names), &here(), scene.now);
    assert_eq!(scene.addresses("a"), ["127.0.0.1:82"]);
    assert_eq!(scene.addresses("b"), NONE);
    let status = scene.status("b");
    let why = "no address: 127.0.0.1:80 is frontend http, which leads back to backend second";
    assert!(!status.up && *status.last_probe.detail == *why, "{status:?}");
}

#[test]
fn a_name_in_use_is_kept_by_a_reload_that_adds_one_before_it() {
    let mut scene = Scene::of(&(at("a", "192.0.2.9:80") + &second("two.test:80")));
    scene.dns("two.test", &["127.0.0.1"]);
    scene.changes();
    let servers = at("a", "one.test:82") + &second("two.test:80");
    let names = Answers::from([("one.test".to_owned(), ips(&["127.0.0.1"]))]);
    scene.cluster.merge(&config(&servers), names, &here(), scene.now);
    assert_eq!(scene.addresses("b"), ["127.0.0.1:80"]);
    assert_eq!(scene.addresses("a"), NONE);
    let said = scene.changes();
    let new = "server web/a is new, and down: the host name has no usable address";
    assert!(said.iter().any(|line| line.starts_with(new)), "{said:?}");
    assert!(said.iter().any(|line| line.contains("a is not used at 127.0.0.1:82")), "{said:?}");
}

#[test]
fn a_number_of_the_file_comes_before_every_name() {
    let mut scene = Scene::of(&(at("a", "192.0.2.9:80") + &second("two.test:80")));
    scene.dns("two.test", &["127.0.0.1"]);
    scene.changes();
    scene.load(&(at("a", "127.0.0.1:82") + &second("two.test:80")));
    assert_eq!(scene.addresses("a"), ["127.0.0.1:82"]);
    assert_eq!(scene.addresses("b"), NONE);
    let said = scene.changes();
    let down = "server second/b is down: every address of the host name leads back to backend";
    assert!(said.iter().any(|line| line.starts_with(down)), "{said:?}");
}

#[test]
fn a_reload_that_ends_a_cycle_uses_the_name_that_was_left_out() {
    let names = at("a", "one.test:82") + &second("two.test:80");
    let mut scene = Scene::of(&names);
    scene.dns("one.test", &["127.0.0.1"]);
    scene.dns("two.test", &["127.0.0.1"]);
    assert_eq!(scene.addresses("b"), NONE);
    scene.load(&names.replace("127.0.0.1:82", "127.0.0.1:83"));
    assert_eq!(scene.addresses("b"), ["127.0.0.1:80"], "nobody listens on port 82 any more");
    assert_eq!(scene.addresses("a"), ["127.0.0.1:82"]);
    scene.load(&names);
    assert_eq!(scene.addresses("b"), NONE, "in the order of the file, as both are in use");
    assert_eq!(scene.addresses("a"), ["127.0.0.1:82"]);
}

#[test]
fn a_cycle_of_three_names_is_not_closed() {
    let third = second("three.test:80").replace("127.0.0.1:82", "127.0.0.1:83");
    let third = third.replace("second", "third").replace("\"b\"", "\"c\"");
    let mut scene = Scene::of(&(at("a", "one.test:82") + &second("two.test:83") + &third));
    for name in ["two.test", "three.test", "one.test"] {
        scene.dns(name, &["127.0.0.1"]);
    }
    assert_eq!(scene.addresses("b"), ["127.0.0.1:83"]);
    assert_eq!(scene.addresses("c"), ["127.0.0.1:80"]);
    assert_eq!(scene.addresses("a"), NONE);
}

#[test]
fn the_metrics_listener_is_no_frontend() {
    let observe = "[observe]\nbind = \"127.0.0.1:8404\"\n";
    let mut scene = Scene::of(&(at("a", "here.test:8404") + observe));
    scene.dns("here.test", &["127.0.0.1"]);
    assert_eq!(scene.addresses("a"), ["127.0.0.1:8404"]);
}

#[test]
fn an_answer_that_is_no_address_of_a_server_is_no_answer() {
    for (ip, what) in [
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("::ffff:0.0.0.0", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "a broadcast address"),
    ] {
        let mut scene = Scene::of(&at("a", "pi:80"));
        assert!(!scene.dns("pi", &[ip]) && !scene.cluster.knows("pi"), "{ip}");
        assert_eq!(scene.addresses("a"), NONE, "{ip}");
        assert_eq!(&*scene.status("a").last_probe.detail, format!("no address: {ip} is {what}"));
        let said = scene.changes();
        let not_used = format!("server web/a is not used at {ip}, {what}, which no server has;");
        assert!(said.len() == 1 && said[0].starts_with(&not_used), "{said:?}");
        scene.dns("pi", &[ip, "10.0.0.1"]);
        assert_eq!(scene.addresses("a"), ["10.0.0.1:80"], "{ip}");
        assert!(!scene.dns("pi", &[ip]), "{ip}");
        assert_eq!(scene.addresses("a"), ["10.0.0.1:80"], "its last address holds");
    }
}

#[test]
fn an_answer_at_the_start_that_is_no_address_of_a_server_says_so() {
    let answers = Answers::from([("pi".to_owned(), ips(&["0.0.0.0"]))]);
    let mut scene = Scene { cluster: Cluster::new(1), now: Instant::now(), version: 0 };
    scene.cluster.merge(&config(&at("a", "pi:80")), answers, &here(), scene.now);
    assert_eq!(
        &*scene.status("a").last_probe.detail,
        "no address: 0.0.0.0 is the unspecified address"
    );
    assert!(scene.changes()[0].contains("a DNS filter may block it"));
    assert!(!scene.cluster.knows("pi"), "a reload asks again");
}

#[test]
fn more_endpoints_than_a_rotation_holds_are_reported_once() {
    let names: Vec<String> = (0..1025).map(|n| format!("n{n}")).collect();
    let text: String = names.iter().map(|name| at(name, &format!("{name}.test:80"))).collect();
    let each = |name: &String| {
        let addresses = (1..=64).map(|n| IpAddr::from([192, 0, 2, n]).into()).collect();
        (format!("{name}.test"), addresses)
    };
    let answers: Answers = names.iter().map(each).collect();
    let mut scene = Scene::of(&server("n0", ""));
    scene.cluster.merge(&config(&text), answers, &here(), scene.now);
    scene.cluster.changes();
    for _ in 0..2 {
        scene.cluster.backends[0].touch();
        drop(scene.picked());
    }
    let said = scene.changes();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("more than 65536 endpoints; the last 64 get no session"), "{said:?}");
}
