//! The cluster state: configuration, orders and probes.

mod dns;
mod srv;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{self, AdminState, Config};
use crate::control::health::ProbeTaskId;
use crate::shared::counters::Count;
use crate::shared::orders::ServerName;
use crate::shared::snapshot::{EndpointStatus, ProbeCell, ProbeResult, ServerStatus};
use crate::sys::local_addresses::LocalAddresses;
use crate::terms::WorkerIndex;

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

/// The address of a server that is written without one: two of a backend may not share any.
fn own_address(name: &str) -> SocketAddr {
    let number =
        name.bytes().fold(0, |number: u32, byte| number.wrapping_mul(31) + u32::from(byte));
    (std::net::Ipv4Addr::from_bits(0x7f00_0000 | (number & 0x00ff_ffff)), 81).into()
}

fn server(name: &str, rest: &str) -> String {
    let own = || format!("address = \"{}\"\n", own_address(name));
    let address = if rest.contains("address") { String::new() } else { own() };
    format!("[[backend.web.server]]\nname = \"{name}\"\n{address}{rest}\n")
}

fn at(name: &str, address: &str) -> String {
    server(name, &format!("address = \"{address}\""))
}

/// The addresses of this machine.
fn here() -> LocalAddresses {
    LocalAddresses::of(["198.51.100.7".parse().unwrap()])
}

struct Scene {
    cluster: Cluster,
    now: Instant,
    version: u64,
}

impl Scene {
    fn of(servers: &str) -> Self {
        let mut scene = Self { cluster: Cluster::new(1), now: Instant::now(), version: 0 };
        scene.load(servers);
        scene.cluster.changes();
        scene
    }

    fn load(&mut self, servers: &str) {
        self.cluster.merge(&config(servers), Answers::new(), &here(), self.now);
    }

    fn dns(&mut self, host: &str, addresses: &[&str]) -> bool {
        self.cluster.resolved([(host, dns::ips(addresses).as_slice())], &here(), self.now)
    }

    fn status(&self, name: &str) -> ServerStatus {
        let mut found = self.cluster.server_statuses(self.now);
        let index = found.iter().position(|status| *status.shared.name == *name);
        found.swap_remove(index.unwrap_or_else(|| panic!("no row {name}: {:?}", self.names())))
    }

    fn names(&self) -> Vec<String> {
        let rows = self.cluster.server_statuses(self.now);
        rows.iter().map(|status| status.shared.name.to_string()).collect()
    }

    fn endpoint(&self, name: &str, address: &str) -> EndpointStatus {
        let address: SocketAddr = address.parse().unwrap();
        let endpoints = self.status(name).endpoints;
        let found = endpoints.iter().find(|endpoint| endpoint.address == address.into());
        found.unwrap_or_else(|| panic!("{name} is not at {address}: {endpoints:?}")).clone()
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let endpoints = self.status(name).endpoints;
        endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    /// The task that probes this endpoint.
    fn task(&self, name: &str, address: SocketAddr) -> ProbeTaskId {
        let backends = self.cluster.backends.iter();
        let servers = backends.flat_map(|backend| &backend.servers);
        let endpoints = servers.filter(|one| **one.name() == *name).flat_map(|one| &one.endpoints);
        let mut found = endpoints.filter(|endpoint| *endpoint.address() == address.into());
        found.next().unwrap().task
    }

    /// A probe of the only endpoint of a server; whether it went up or down.
    fn probe(&mut self, name: &str, passed: bool) -> bool {
        let [EndpointStatus { address, .. }] = &*self.status(name).endpoints else {
            panic!("{name} has not one endpoint: {:?}", self.addresses(name));
        };
        self.report(self.task(name, address.for_client(None).unwrap()), Some(passed))
    }

    fn probe_at(&mut self, name: &str, address: &str, passed: bool) -> bool {
        self.report(self.task(name, address.parse().unwrap()), Some(passed))
    }

    fn report(&mut self, task: ProbeTaskId, verdict: Option<bool>) -> bool {
        let result = match verdict {
            Some(true) => ProbeResult::Passed,
            Some(false) => ProbeResult::Refused,
            None => ProbeResult::Error,
        };
        let (detail, duration) = (result.name().into(), Duration::ZERO);
        self.cluster.probed(ProbeReport { task, result, detail, duration, verdict }, self.now)
    }

    /// By a first probe that fails.
    fn bring_down(&mut self, name: &str) {
        assert!(self.probe(name, false), "{:?}", self.status(name));
    }

    fn order(&mut self, name: &str, state: AdminState) {
        let name = ServerName { backend: "web".to_owned(), server: name.to_owned() };
        self.cluster.set_state(&name, state, self.now).unwrap();
    }

    fn weigh(&mut self, name: &str, weight: u32) {
        let name = ServerName { backend: "web".to_owned(), server: name.to_owned() };
        self.cluster.set_weight(&name, weight, self.now).unwrap();
    }

    /// The servers that can be chosen, each once.
    fn picked(&mut self) -> Vec<String> {
        let mut names: Vec<String> = self.rotation().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// One rotation: server and address.
    fn rotation(&mut self) -> Vec<(String, String)> {
        self.version += 1;
        let table = self.cluster.table(self.version, &Bound::new());
        let schedule = &table.frontends[0].backend.as_ref().unwrap().schedule;
        let endpoints =
            schedule.rotation.iter().map(|index| &schedule.endpoints[usize::from(*index)]);
        let named = endpoints.map(|one| (one.shared.name.to_string(), one.address.to_string()));
        named.collect()
    }

    fn changes(&mut self) -> Vec<String> {
        self.cluster.changes().iter().map(Change::to_string).collect()
    }
}

#[test]
fn the_first_probe_of_a_server_decides_and_then_consecutive_ones() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    assert_eq!(scene.picked(), ["a", "b"]);
    scene.bring_down("a");
    assert_eq!(scene.picked(), ["b"]);
    assert_eq!(scene.changes(), ["server web/a is down: refused (first probe)"]);
    assert!(!scene.probe("a", true) && scene.probe("a", true));
    assert_eq!(scene.picked(), ["a", "b"]);
    assert_eq!(scene.changes(), ["server web/a is up: passed (2 in a row)"]);
    assert_eq!([(); 3].map(|()| scene.probe("a", false)), [false, false, true]);
    assert_eq!(scene.changes(), ["server web/a is down: refused (3 of 3 probes)"]);
}

#[test]
fn a_probe_without_a_verdict_is_counted_and_changes_nothing() {
    let mut scene = Scene::of(&server("a", ""));
    let task = scene.task("a", own_address("a"));
    for _ in 0..10 {
        assert!(!scene.report(task, None));
    }
    let errors = |cell: &ProbeCell| cell.results[ProbeResult::Error as usize].read();
    assert_eq!((scene.status("a").up, scene.status("a").probes.sum(errors)), (true, 10));
    assert!(scene.probe("a", false), "the first one with a verdict decides");
}

#[test]
fn a_probe_of_the_earlier_address_says_nothing() {
    let mut scene = Scene::of(&at("a", "192.0.2.1:80"));
    let old = scene.task("a", "192.0.2.1:80".parse().unwrap());
    scene.load(&at("a", "192.0.2.2:80"));
    assert!(!scene.report(old, Some(false)));
    assert_eq!(&*scene.status("a").last_probe.detail, "not probed yet");
    assert!(scene.status("a").up);
}

#[test]
fn a_probe_that_began_before_probes_were_turned_off_says_nothing() {
    let mut scene = Scene::of(&server("a", ""));
    let old = scene.task("a", own_address("a"));
    scene.load(&("check = \"off\"\n".to_owned() + &server("a", "")));
    assert!(!scene.report(old, Some(false)));
    assert!(scene.status("a").up);
}

#[test]
fn a_probe_of_another_kind_says_nothing_and_the_health_holds() {
    let mut scene = Scene::of(&server("a", ""));
    scene.bring_down("a");
    let old = scene.task("a", own_address("a"));
    scene.load(&("port = 82\n".to_owned() + &server("a", "")));
    for _ in 0..2 {
        assert!(!scene.report(old, Some(true)));
    }
    assert!(!scene.status("a").up);
    assert!(!scene.probe("a", true) && scene.probe("a", true));
}

#[test]
fn after_maintenance_the_first_probe_decides_and_none_that_began_before() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    scene.probe("a", true);
    scene.order("a", AdminState::Maint);
    assert_eq!(scene.cluster.probe_targets().count(), 1);
    let old = scene.task("a", own_address("a"));
    scene.order("a", AdminState::Ready);
    assert_eq!(scene.picked(), ["a", "b"], "up until the first probe");
    assert!(!scene.report(old, Some(false)) && !scene.report(old, Some(true)));
    assert!(scene.probe("a", false));
    assert_eq!(scene.picked(), ["b"]);
}

#[test]
fn after_maintenance_in_the_configuration_the_first_probe_decides() {
    let mut scene = Scene::of(&server("a", ""));
    scene.bring_down("a");
    scene.load(&server("a", "state = \"maint\""));
    scene.load(&server("a", ""));
    assert!(scene.status("a").up);
    assert!(scene.probe("a", false));
}

#[test]
fn a_server_in_drain_keeps_its_history() {
    let mut scene = Scene::of(&server("a", ""));
    scene.probe("a", true);
    scene.order("a", AdminState::Drain);
    scene.order("a", AdminState::Ready);
    assert!(!scene.probe("a", false) && scene.status("a").up);
}

#[test]
fn drain_maint_and_a_weight_of_zero_get_no_session() {
    let mut scene = Scene::of(
        &(server("a", "")
            + &server("b", "state = \"drain\"")
            + &server("c", "state = \"maint\"")
            + &server("d", "weight = 0")
            + &server("e", "")),
    );
    assert_eq!(scene.picked(), ["a", "e"]);
    let probed = scene.cluster.probe_targets().map(|target| target.task).collect::<Vec<_>>();
    let all_but_maint = ["a", "b", "d", "e"].map(|name| scene.task(name, own_address(name)));
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
    assert!(scene.changes().iter().any(|line| line.contains("has no server left")));
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
fn what_the_operator_set_survives_reloads_and_the_removal_of_the_server() {
    let both = server("a", "") + &server("b", "");
    let mut scene = Scene::of(&both);
    scene.order("a", AdminState::Drain);
    scene.weigh("b", 7);
    scene.load(&both);
    assert_eq!((scene.status("a").admin, scene.status("b").weight), (AdminState::Drain, 7));
    assert_eq!(
        scene.cluster.overridden(),
        ["web/a drain", "web/b weight 7"],
        "for the answer to a reload"
    );
    scene.load(&(server("a", "state = \"drain\"") + &server("b", "weight = 7")));
    assert!(scene.cluster.overridden().is_empty(), "the configuration says the same");
    scene.load(&server("b", ""));
    scene.load(&both);
    assert_eq!(scene.picked(), ["b"]);
    scene.order("a", AdminState::Ready);
    assert_eq!(scene.picked(), ["a", "b"]);
}

#[test]
fn an_order_for_an_unknown_server_is_refused_and_lists_the_known_ones() {
    let mut scene = Scene::of(&server("a", ""));
    let mut order = |backend: &str, server: &str| {
        let name = ServerName { backend: backend.to_owned(), server: server.to_owned() };
        scene.cluster.set_state(&name, AdminState::Maint, scene.now).unwrap_err()
    };
    assert!(order("web", "b").contains("its servers are: a"));
    assert!(order("wob", "a").contains("the backends are: web"));
}

#[test]
fn a_removed_server_is_reported_until_its_last_session_ends() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    let shared = scene.status("a").shared;
    assert!(shared.sessions.try_raise());
    scene.load(&server("b", ""));
    scene.cluster.forget();
    assert!(scene.status("a").removed.is_some());
    assert!(scene.changes().contains(&"server web/a is removed; its session continues".to_owned()));
    shared.sessions.lower();
    drop(shared);
    scene.cluster.forget();
    assert_eq!(scene.names(), ["b"]);
}

#[test]
fn a_removed_server_that_returns_has_its_counters() {
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
    assert_eq!(scene.addresses("a"), ["127.0.0.1:82"]);
    assert_eq!(scene.names(), ["a"]);
}

#[test]
fn a_backend_that_did_not_change_is_the_same_in_the_next_table() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    let mut backend = || {
        let table = scene.cluster.table(1, &Bound::new());
        table.frontends[0].backend.clone().unwrap()
    };
    let (first, second) = (backend(), backend());
    assert!(Arc::ptr_eq(&first, &second));
    scene.bring_down("a");
    let third = scene.cluster.table(2, &Bound::new()).frontends[0].backend.clone().unwrap();
    assert!(!Arc::ptr_eq(&first, &third) && Arc::ptr_eq(&first.turn, &third.turn));
}

#[test]
fn a_frontend_keeps_its_counters_and_takes_its_new_limit() {
    let mut scene = Scene::of(&server("a", ""));
    let before = Arc::clone(&scene.cluster.frontend_statuses()[0].shared);
    Count::add(&before.cells.of(WorkerIndex(0)).sessions, 5);
    let mut config = config(&server("a", ""));
    Arc::make_mut(&mut config.frontends[0]).sessions_max = std::num::NonZeroU32::new(3);
    scene.cluster.merge(&config, Answers::new(), &here(), scene.now);
    let after = Arc::clone(&scene.cluster.frontend_statuses()[0].shared);
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(after.sessions.room(), 3);
}

#[test]
fn a_frontend_that_is_gone_is_reported_while_it_has_sessions() {
    let mut scene = Scene::of(&server("a", ""));
    let shared = Arc::clone(&scene.cluster.frontend_statuses()[0].shared);
    let cell = &shared.cells.of(WorkerIndex(0)).active;
    cell.add(1);
    let other = format!("{BASE}{}", server("a", "")).replace("frontend.http", "frontend.other");
    let other = config::parse(&other, "test").unwrap();
    scene.cluster.merge(&other, Answers::new(), &here(), scene.now);
    scene.cluster.forget();
    let names = |scene: &Scene| -> Vec<String> {
        scene.cluster.frontend_statuses().iter().map(|status| status.name.to_string()).collect()
    };
    assert_eq!(names(&scene), ["other", "http"]);
    cell.subtract(1);
    drop(shared);
    scene.cluster.forget();
    assert_eq!(names(&scene), ["other"]);
}

#[test]
fn what_a_worker_can_still_reach_through_an_old_table_is_not_forgotten() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    let old = scene.cluster.table(1, &Bound::new());
    let other = format!("{BASE}{}", server("b", "")).replace("frontend.http", "frontend.other");
    scene.cluster.merge(
        &config::parse(&other, "test").unwrap(),
        Answers::new(),
        &here(),
        scene.now,
    );
    drop(scene.cluster.table(2, &Bound::new()));
    scene.cluster.forget();
    // A worker that has not loaded the new table accepts by the old one.
    let cell = WorkerIndex(0);
    old.frontends[0].shared.cells.of(cell).active.add(1);
    let endpoints = &old.frontends[0].backend.as_ref().unwrap().schedule.endpoints;
    assert!(endpoints.iter().all(|endpoint| endpoint.shared.sessions.try_raise()));
    assert!(scene.names().contains(&"a".to_owned()), "{:?}", scene.names());
    assert!(scene.cluster.frontend_statuses().iter().any(|status| *status.name == *"http"));
}
