//! The books, told of everything that can happen.

use super::*;
use crate::config;
use crate::shared::counters::Count;
use crate::shared::snapshot::ServerStatus;

const BASE: &str = r#"
[frontend.http]
bind = ["127.0.0.1:80"]
backend = "web"
[backend.web.health]
rise = 2
fall = 3
"#;

fn config(servers: &str) -> Config {
    config::parse(&format!("{BASE}{servers}"), "test").unwrap()
}

fn server(name: &str, rest: &str) -> String {
    let number =
        name.bytes().fold(0, |number: u32, byte| number.wrapping_mul(31) + u32::from(byte));
    let ip = std::net::Ipv4Addr::from_bits(0x7f00_0000 | (number & 0x00ff_ffff));
    let own = || format!("address = \"{ip}:81\"\n");
    let address = if rest.contains("address") { String::new() } else { own() };
    format!("[[backend.web.server]]\nname = \"{name}\"\n{address}{rest}\n")
}

fn at(name: &str, address: &str) -> String {
    server(name, &format!("address = \"{address}\""))
}

/// The machine that the books are of.
fn here() -> Here {
    Here::of(["198.51.100.7".parse().unwrap()])
}

struct Scene {
    roster: Roster,
    now: Instant,
    version: u64,
}

impl Scene {
    fn of(servers: &str) -> Self {
        let mut scene = Self { roster: Roster::new(1), now: Instant::now(), version: 0 };
        scene.load(servers);
        scene.roster.news();
        scene
    }

    fn load(&mut self, servers: &str) {
        self.roster.merge(&config(servers), Answers::new(), &here(), self.now);
    }

    fn dns(&mut self, host: &str, addresses: &[&str]) -> bool {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.roster.resolved(host, &addresses, &here(), self.now)
    }

    fn status(&self, name: &str) -> ServerStatus {
        let mut found = self.roster.servers(self.now);
        let index = found.iter().position(|status| *status.shared.name == *name);
        found.swap_remove(index.unwrap_or_else(|| panic!("no row {name}: {:?}", self.names())))
    }

    fn names(&self) -> Vec<String> {
        let rows = self.roster.servers(self.now);
        rows.iter().map(|status| status.shared.name.to_string()).collect()
    }

    fn probe(&mut self, name: &str, passed: bool) -> bool {
        let address = self.status(name).address.unwrap();
        self.probe_at(name, address, passed)
    }

    fn probe_at(&mut self, name: &str, address: SocketAddr, passed: bool) -> bool {
        let server = self.status(name).shared.id;
        let result = if passed { ProbeResult::Passed } else { ProbeResult::Refused };
        let (detail, duration) = (result.name().to_owned(), Duration::ZERO);
        let probe = Probe { server, address, result, detail, duration };
        self.roster.probed(probe, Some(passed), self.now)
    }

    fn bring_down(&mut self, name: &str) {
        assert_eq!([(); 3].map(|()| self.probe(name, false)), [false, false, true]);
    }

    fn order(&mut self, name: &str, state: AdminState) {
        let name = ServerName { backend: "web".to_owned(), server: name.to_owned() };
        self.roster.set_state(&name, state).unwrap();
    }

    fn weigh(&mut self, name: &str, weight: u32) {
        let name = ServerName { backend: "web".to_owned(), server: name.to_owned() };
        self.roster.set_weight(&name, weight).unwrap();
    }

    /// Who may be picked, each once.
    fn picked(&mut self) -> Vec<String> {
        self.version += 1;
        let table = self.roster.table(self.version, &Bound::new());
        let schedule = &table.frontends[0].backend.schedule;
        schedule.servers.iter().map(|server| server.shared.name.to_string()).collect()
    }

    fn news(&mut self) -> Vec<String> {
        self.roster.news().iter().map(News::to_string).collect()
    }
}

#[test]
fn a_server_is_up_until_fall_probes_in_a_row_say_otherwise() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    assert_eq!(scene.picked(), ["a", "b"]);
    scene.bring_down("a");
    assert_eq!(scene.picked(), ["b"]);
    assert_eq!(scene.news(), ["server web/a is down: refused (3 of 3 probes)"]);
    assert!(!scene.probe("a", true) && scene.probe("a", true));
    assert_eq!(scene.picked(), ["a", "b"]);
    assert_eq!(scene.news(), ["server web/a is up: passed (2 in a row)"]);
}

#[test]
fn a_probe_without_a_verdict_is_counted_and_changes_nothing() {
    let mut scene = Scene::of(&server("a", ""));
    let (server, address) = (scene.status("a").shared.id, scene.status("a").address.unwrap());
    for _ in 0..10 {
        let (result, duration) = (ProbeResult::Error, Duration::ZERO);
        let detail = "no descriptor".to_owned();
        let probe = Probe { server, address, result, detail, duration };
        assert!(!scene.roster.probed(probe, None, scene.now));
    }
    assert!(scene.status("a").up);
    assert_eq!(scene.status("a").probes.results[ProbeResult::Error as usize].read(), 10);
}

#[test]
fn what_was_asked_before_a_server_moved_says_nothing_of_it() {
    let mut scene = Scene::of(&at("a", "192.0.2.1:80"));
    let old = scene.status("a").address.unwrap();
    assert!(!scene.probe("a", false) && !scene.probe("a", false));
    scene.load(&at("a", "192.0.2.2:80"));
    assert!(!scene.probe_at("a", old, false), "its third failure");
    assert_eq!(scene.status("a").last_probe, "", "it is not told as the new one's");
    scene.bring_down("a");
}

#[test]
fn failures_at_one_address_are_not_added_to_those_at_the_next() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["192.0.2.1"]);
    assert!(!scene.probe("a", true) && scene.probe("a", true));
    assert!(!scene.probe("a", false) && !scene.probe("a", false));
    scene.dns("pi", &["192.0.2.2"]);
    scene.bring_down("a");
}

#[test]
fn what_was_asked_before_probes_were_turned_off_says_nothing() {
    let mut scene = Scene::of(&server("a", ""));
    assert!(!scene.probe("a", false) && !scene.probe("a", false));
    scene.load(&("check = \"off\"\n".to_owned() + &server("a", "")));
    assert!(!scene.probe("a", false));
    assert!(scene.status("a").up);
}

#[test]
fn drain_maint_and_a_weight_of_zero_get_no_session() {
    let names = ["a", "b", "c", "d", "e"];
    let mut scene = Scene::of(
        &(server("a", "")
            + &server("b", "state = \"drain\"")
            + &server("c", "state = \"maint\"")
            + &server("d", "weight = 0")
            + &server("e", "")),
    );
    assert_eq!(scene.picked(), ["a", "e"]);
    let probed: Vec<ServerId> = scene.roster.to_probe().map(|probed| probed.id).collect();
    let all_but_maint: Vec<ServerId> = names
        .into_iter()
        .filter(|name| *name != "c")
        .map(|name| scene.status(name).shared.id)
        .collect();
    assert_eq!(probed, all_but_maint);
}

#[test]
fn a_backup_serves_only_when_all_the_others_do_not() {
    let mut scene = Scene::of(&(server("a", "") + &server("spare", "backup = true")));
    assert_eq!(scene.picked(), ["a"]);
    scene.bring_down("a");
    assert_eq!(scene.picked(), ["spare"]);
    scene.bring_down("spare");
    assert!(scene.picked().is_empty());
    assert!(scene.news().iter().any(|line| line.contains("has no server left")));
}

#[test]
fn with_all_down_try_every_ready_server_is_used_rather_than_none() {
    let servers =
        server("a", "") + &server("b", "state = \"drain\"") + &server("c", "backup = true");
    let mut scene = Scene::of(&(servers + "[backend.web]\nall_down = \"try\"\n"));
    assert_eq!(scene.picked(), ["a"]);
    scene.bring_down("a");
    scene.bring_down("c");
    assert_eq!(scene.picked(), ["a", "c"]);
}

#[test]
fn a_reload_keeps_health_counters_and_turn_of_what_is_the_same() {
    let mut scene = Scene::of(&(at("a", "127.0.0.1:81") + &at("b", "127.0.0.1:82")));
    scene.bring_down("a");
    let before = scene.status("a");
    scene.load(&(at("a", "127.0.0.1:81") + &at("c", "127.0.0.1:83")));
    let after = scene.status("a");
    assert!(!after.up && Arc::ptr_eq(&before.shared, &after.shared));
    assert!(Arc::ptr_eq(&before.probes, &after.probes));
    assert!(scene.status("c").up);
    assert_eq!(scene.picked(), ["c"]);
}

#[test]
fn what_an_operator_has_ordered_survives_reloads_and_even_the_server() {
    let both = server("a", "") + &server("b", "");
    let mut scene = Scene::of(&both);
    scene.order("a", AdminState::Drain);
    scene.weigh("b", 7);
    scene.load(&both);
    assert_eq!((scene.status("a").admin, scene.status("b").weight), (AdminState::Drain, 7));
    assert_eq!(scene.roster.ordered(), ["web/a drain", "web/b weight 7"], "for who reloads");
    scene.load(&(server("a", "state = \"drain\"") + &server("b", "weight = 7")));
    assert!(scene.roster.ordered().is_empty(), "the file says the same");
    scene.load(&server("b", ""));
    scene.load(&both);
    assert_eq!(scene.picked(), ["b"]);
    scene.order("a", AdminState::Ready);
    assert_eq!(scene.picked(), ["a", "b"]);
}

#[test]
fn an_order_for_nobody_is_refused_and_names_who_is_there() {
    let mut scene = Scene::of(&server("a", ""));
    let mut order = |backend: &str, server: &str| {
        let name = ServerName { backend: backend.to_owned(), server: server.to_owned() };
        scene.roster.set_state(&name, AdminState::Maint).unwrap_err()
    };
    assert!(order("web", "b").contains("it has a"));
    assert!(order("wob", "a").contains("there is web"));
}

#[test]
fn a_removed_server_is_reported_until_its_last_session_ends() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    let shared = scene.status("a").shared;
    assert!(shared.sessions.try_raise());
    scene.load(&server("b", ""));
    scene.roster.forget();
    assert!(scene.status("a").removed);
    assert!(scene.news().contains(&"server web/a is removed; its session lives on".to_owned()));
    shared.sessions.lower();
    drop(shared);
    scene.roster.forget();
    assert_eq!(scene.names(), ["b"]);
}

#[test]
fn a_removed_server_that_comes_back_is_the_same_row() {
    let both = server("a", "") + &server("b", "");
    let mut scene = Scene::of(&both);
    let shared = scene.status("a").shared;
    assert!(shared.sessions.try_raise());
    scene.load(&server("b", ""));
    scene.load(&both);
    assert_eq!(scene.names(), ["a", "b"]);
    assert!(Arc::ptr_eq(&shared, &scene.status("a").shared));
}

#[test]
fn another_address_in_the_file_is_another_server_with_the_same_counters() {
    let mut scene = Scene::of(&at("a", "127.0.0.1:81"));
    scene.bring_down("a");
    let before = scene.status("a").shared;
    scene.load(&at("a", "127.0.0.1:82"));
    let after = scene.status("a");
    assert!(after.up && Arc::ptr_eq(&before, &after.shared));
    assert_eq!(after.address, Some(([127, 0, 0, 1], 82).into()));
    assert_eq!(scene.names(), ["a"]);
}

#[test]
fn a_name_without_an_answer_is_a_server_that_is_down_until_probes_say_otherwise() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    assert!(!scene.status("a").up && scene.status("a").address.is_none());
    assert!(scene.picked().is_empty() && scene.roster.to_probe().next().is_none());
    assert_eq!(scene.roster.without_address(), ["web/a"]);
    assert_eq!(scene.status("a").last_probe, "no address");
    scene.roster.unanswered("pi", "no such name");
    assert_eq!(scene.status("a").last_probe, "no address: no such name");
    assert!(scene.dns("pi", &["10.0.0.1"]));
    assert!(scene.roster.without_address().is_empty());
    assert_eq!(scene.status("a").last_probe, "");
    scene.roster.unanswered("pi", "no such name");
    assert_eq!(scene.status("a").last_probe, "", "its last address holds");
    assert!(scene.picked().is_empty());
    assert!(!scene.probe("a", true) && scene.probe("a", true));
    assert_eq!(scene.picked(), ["a"]);
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
fn a_name_that_moves_keeps_its_row() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1"]);
    let before = scene.status("a").shared;
    scene.news();
    assert!(scene.dns("pi", &["10.0.0.2"]));
    let after = scene.status("a");
    assert_eq!(after.address, Some(([10, 0, 0, 2], 80).into()));
    assert!(Arc::ptr_eq(&before, &after.shared));
    assert_eq!(scene.news(), ["server web/a moved from 10.0.0.1:80 to 10.0.0.2:80"]);
}

#[test]
fn several_addresses_are_numbered_and_their_order_means_nothing() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(scene.names(), ["a#1", "a#2"]);
    let second = scene.status("a#2").shared;
    assert!(!scene.dns("pi", &["10.0.0.2", "10.0.0.1"]), "an order is no change");
    assert!(scene.dns("pi", &["10.0.0.2", "10.0.0.3"]));
    assert!(Arc::ptr_eq(&second, &scene.status("a#2").shared));
    assert_eq!(scene.status("a#2").address, Some(([10, 0, 0, 2], 80).into()));
    assert_eq!(scene.status("a#1").address, Some(([10, 0, 0, 3], 80).into()));
}

#[test]
fn an_order_for_a_name_is_for_all_its_addresses() {
    let mut scene = Scene::of(&(at("a", "pi:80") + &server("b", "")));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    scene.order("a", AdminState::Drain);
    assert_eq!(scene.status("a#1").admin, AdminState::Drain);
    assert_eq!(scene.status("a#2").admin, AdminState::Drain);
    assert_eq!(scene.picked(), ["b"]);
    let one = ServerName { backend: "web".to_owned(), server: "a#2".to_owned() };
    let refused = scene.roster.set_state(&one, AdminState::Ready).unwrap_err();
    assert!(refused.contains("for every address of it: web/a"), "{refused}");
}

#[test]
fn a_name_that_shrinks_to_one_address_keeps_its_health() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    for _ in 0..2 {
        scene.probe("a#2", true);
    }
    scene.dns("pi", &["10.0.0.2"]);
    scene.roster.forget();
    assert_eq!(scene.names(), ["a"]);
    assert!(scene.status("a").up);
    assert_eq!(scene.picked(), ["a"]);
}

#[test]
fn an_empty_answer_changes_nothing_and_a_reload_keeps_the_last_good_one() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1"]);
    assert!(!scene.dns("pi", &[]));
    scene.load(&(at("a", "pi:80") + &at("b", "pi:81")));
    assert_eq!(scene.status("a").address, Some(([10, 0, 0, 1], 80).into()));
    assert_eq!(scene.status("b").address, Some(([10, 0, 0, 1], 81).into()));
    assert!(scene.roster.knows("pi"));
}

#[test]
fn a_backend_that_did_not_change_is_the_same_in_the_next_table() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    let mut backend = || {
        let table = scene.roster.table(1, &Bound::new());
        Arc::clone(&table.frontends[0].backend)
    };
    let (first, second) = (backend(), backend());
    assert!(Arc::ptr_eq(&first, &second));
    scene.bring_down("a");
    let third = Arc::clone(&scene.roster.table(2, &Bound::new()).frontends[0].backend);
    assert!(!Arc::ptr_eq(&first, &third) && Arc::ptr_eq(&first.turn, &third.turn));
}

#[test]
fn a_frontend_keeps_its_counters_and_takes_its_new_limit() {
    let mut scene = Scene::of(&server("a", ""));
    let before = Arc::clone(&scene.roster.frontends()[0].shared);
    Count::add(&before.cells.of(crate::terms::WorkerIndex(0)).sessions, 5);
    let mut config = config(&server("a", ""));
    Arc::make_mut(&mut config.frontends[0]).sessions_max = std::num::NonZeroU32::new(3);
    scene.roster.merge(&config, Answers::new(), &here(), scene.now);
    let after = Arc::clone(&scene.roster.frontends()[0].shared);
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(after.sessions.room(), 3);
}

#[test]
fn a_frontend_that_is_gone_is_reported_while_it_has_sessions() {
    let mut scene = Scene::of(&server("a", ""));
    let shared = Arc::clone(&scene.roster.frontends()[0].shared);
    let cell = &shared.cells.of(crate::terms::WorkerIndex(0)).active;
    cell.add(1);
    let other = format!("{BASE}{}", server("a", "")).replace("frontend.http", "frontend.other");
    let other = config::parse(&other, "test").unwrap();
    scene.roster.merge(&other, Answers::new(), &here(), scene.now);
    scene.roster.forget();
    let names = |scene: &Scene| -> Vec<String> {
        scene.roster.frontends().iter().map(|status| status.name.to_string()).collect()
    };
    assert_eq!(names(&scene), ["other", "http"]);
    cell.subtract(1);
    drop(shared);
    scene.roster.forget();
    assert_eq!(names(&scene), ["other"]);
}

#[test]
fn what_a_worker_may_still_begin_a_session_on_is_kept_in_the_books() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    let old = scene.roster.table(1, &Bound::new());
    let other = format!("{BASE}{}", server("b", "")).replace("frontend.http", "frontend.other");
    scene.roster.merge(&config::parse(&other, "test").unwrap(), Answers::new(), &here(), scene.now);
    drop(scene.roster.table(2, &Bound::new()));
    scene.roster.forget();
    // A worker that has not looked since accepts by the old table.
    let cell = crate::terms::WorkerIndex(0);
    old.frontends[0].shared.cells.of(cell).active.add(1);
    let servers = &old.frontends[0].backend.schedule.servers;
    assert!(servers.iter().all(|server| server.shared.sessions.try_raise()));
    assert!(scene.names().contains(&"a".to_owned()), "{:?}", scene.names());
    assert!(scene.roster.frontends().iter().any(|status| *status.name == *"http"));
}

#[test]
fn a_name_that_leads_back_to_a_frontend_is_no_server() {
    let mut scene = Scene::of(&at("a", "here.test:80"));
    scene.dns("here.test", &["127.0.0.1"]);
    assert_eq!(scene.status("a").address, None);
    let said: Vec<String> = scene.roster.news().iter().map(ToString::to_string).collect();
    assert!(said[0].contains("127.0.0.1:80: that is a frontend of this balancer"), "{said:?}");
    scene.dns("here.test", &["127.0.0.1", "192.0.2.1"]);
    assert_eq!(scene.status("a").address, Some("192.0.2.1:80".parse().unwrap()));
}

#[test]
fn a_name_that_comes_to_lead_back_here_alone_is_given_up() {
    let mut scene = Scene::of(&at("a", "here.test:81"));
    scene.dns("here.test", &["127.0.0.1", "127.0.0.2"]);
    scene.news();
    let mut more = config(&at("a", "here.test:81"));
    Arc::make_mut(&mut more.frontends[0]).bind[0].0 = "0.0.0.0:81".parse().unwrap();
    scene.roster.merge(&more, Answers::new(), &here(), scene.now);
    assert_eq!(scene.status("a").address, None);
    assert!(!scene.status("a").up && scene.picked().is_empty());
    assert!(scene.roster.to_probe().next().is_none());
    let said = scene.news().concat();
    assert!(said.contains("server web/a is down: its name leads nowhere else"), "{said}");
    scene.dns("here.test", &["192.0.2.1"]);
    assert_eq!(scene.status("a").address, Some("192.0.2.1:81".parse().unwrap()));
}

#[test]
fn several_addresses_of_a_name_that_had_none_are_all_down_until_probed() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.1", "10.0.0.2"]);
    assert!(scene.picked().is_empty(), "{:?}", scene.names());
}

#[test]
fn an_answer_that_came_before_the_reload_that_had_asked_is_the_newer_one() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.dns("pi", &["10.0.0.2"]);
    let older = Answers::from([("pi".to_owned(), vec!["10.0.0.1".parse().unwrap()])]);
    scene.roster.merge(&config(&at("a", "pi:80")), older, &here(), scene.now);
    assert_eq!(scene.status("a").address, Some("10.0.0.2:80".parse().unwrap()));
}

#[test]
fn a_name_of_this_machine_leads_back_to_a_wildcard() {
    let mut scene = Scene::of(&at("a", "here.test:80"));
    let mut wild = config(&at("a", "here.test:80"));
    Arc::make_mut(&mut wild.frontends[0]).bind[0].0 = "0.0.0.0:80".parse().unwrap();
    scene.roster.merge(&wild, Answers::new(), &here(), scene.now);
    scene.dns("here.test", &["198.51.100.7", "198.51.100.8"]);
    assert_eq!(scene.status("a").address, Some("198.51.100.8:80".parse().unwrap()));
    let said = scene.news();
    assert!(said[0].contains("198.51.100.7:80: that is a frontend of this"), "{said:?}");
}

#[test]
fn more_addresses_than_a_rotation_names_are_told_once() {
    let names: Vec<String> = (0..1025).map(|n| format!("n{n}")).collect();
    let text: String = names.iter().map(|name| at(name, &format!("{name}.test:80"))).collect();
    let each = |name: &String| {
        let addresses = (1..=64).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        (format!("{name}.test"), addresses)
    };
    let answers: Answers = names.iter().map(each).collect();
    let mut scene = Scene::of(&server("n0", ""));
    scene.roster.merge(&config(&text), answers, &here(), scene.now);
    scene.roster.news();
    for _ in 0..2 {
        scene.roster.backends[0].touch();
        drop(scene.picked());
    }
    let said = scene.news();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("more than 65536 addresses; the last 64 get no session"), "{said:?}");
}
