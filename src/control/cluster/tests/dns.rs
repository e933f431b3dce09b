//! Host names: what their answers do to servers and endpoints.

use super::*;

#[test]
fn a_name_without_an_answer_is_a_server_that_is_down_until_a_probe_passes() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    assert!(!scene.status("a").up && scene.status("a").endpoints.is_empty());
    assert!(scene.picked().is_empty() && scene.cluster.probe_targets().next().is_none());
    assert_eq!(scene.cluster.without_address(), ["web/a"]);
    assert_eq!(scene.status("a").last_probe, "no address");
    scene.cluster.unanswered("pi", "no such name");
    assert_eq!(scene.status("a").last_probe, "no address: no such name");
    assert!(scene.dns("pi", &["10.0.0.1"]));
    assert!(scene.cluster.without_address().is_empty());
    assert_eq!(scene.status("a").last_probe, "");
    scene.cluster.unanswered("pi", "no such name");
    assert_eq!(scene.status("a").last_probe, "", "its last address holds");
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
    assert_eq!(scene.status("a").last_probe, "10.0.0.2:80: refused");
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
    let endpoint = Arc::clone(&table.frontends[0].backend.schedule.endpoints[0]);
    endpoint.load.raise();
    assert!(endpoint.shared.sessions.try_raise());
    scene.dns("pi", &["10.0.0.1"]);
    scene.dns("pi", &["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
    let status = scene.endpoint("a", "10.0.0.1:80");
    assert!(status.up);
    assert_eq!((status.sessions, &*status.last_probe), (1, "passed"));
    assert_eq!(scene.task("a", endpoint.address), task, "its probes go on");
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
fn an_address_that_is_a_frontend_is_no_endpoint() {
    let mut scene = Scene::of(&at("a", "here.test:80"));
    scene.dns("here.test", &["127.0.0.1"]);
    assert!(scene.addresses("a").is_empty());
    let said: Vec<String> = scene.changes();
    assert!(said[0].contains("127.0.0.1:80: that is a frontend of this balancer"), "{said:?}");
    scene.dns("here.test", &["127.0.0.1", "192.0.2.1"]);
    assert_eq!(scene.addresses("a"), ["192.0.2.1:80"]);
}

#[test]
fn a_name_that_resolves_only_to_frontends_is_a_server_that_is_down() {
    let mut scene = Scene::of(&at("a", "here.test:81"));
    scene.dns("here.test", &["127.0.0.1", "127.0.0.2"]);
    scene.changes();
    let mut more = config(&at("a", "here.test:81"));
    Arc::make_mut(&mut more.frontends[0]).bind[0].0 = "0.0.0.0:81".parse().unwrap();
    scene.cluster.merge(&more, Answers::new(), &here(), scene.now);
    assert!(scene.addresses("a").is_empty());
    assert!(!scene.status("a").up && scene.picked().is_empty());
    assert!(scene.cluster.probe_targets().next().is_none());
    let said = scene.changes().concat();
    assert!(
        said.contains("server web/a is down: the host name resolves only to frontends"),
        "{said}"
    );
    scene.dns("here.test", &["192.0.2.1"]);
    assert_eq!(scene.addresses("a"), ["192.0.2.1:81"]);
}

#[test]
fn an_answer_that_came_before_the_reload_that_had_asked_is_the_newer_one() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.2"]);
    let older = Answers::from([("pi".to_owned(), vec!["10.0.0.1".parse().unwrap()])]);
    scene.cluster.merge(&config(&at("a", "pi:80")), older, &here(), scene.now);
    assert_eq!(scene.addresses("a"), ["10.0.0.2:80"]);
}

#[test]
fn an_address_of_this_machine_is_a_wildcard_frontend() {
    let mut scene = Scene::of(&at("a", "here.test:80"));
    let mut wild = config(&at("a", "here.test:80"));
    Arc::make_mut(&mut wild.frontends[0]).bind[0].0 = "0.0.0.0:80".parse().unwrap();
    scene.cluster.merge(&wild, Answers::new(), &here(), scene.now);
    scene.dns("here.test", &["198.51.100.7", "198.51.100.8"]);
    assert_eq!(scene.addresses("a"), ["198.51.100.8:80"]);
    let said = scene.changes();
    assert!(said[0].contains("198.51.100.7:80: that is a frontend of this"), "{said:?}");
}

#[test]
fn more_endpoints_than_a_rotation_holds_are_reported_once() {
    let names: Vec<String> = (0..1025).map(|n| format!("n{n}")).collect();
    let text: String = names.iter().map(|name| at(name, &format!("{name}.test:80"))).collect();
    let each = |name: &String| {
        let addresses = (1..=64).map(|n| IpAddr::from([192, 0, 2, n])).collect();
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
