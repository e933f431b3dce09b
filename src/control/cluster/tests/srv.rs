//! SRV names: what their records do to the servers of a backend.

use std::collections::HashMap;

use nix::time::{ClockId, clock_gettime};

use super::*;

const NAME: &str = "_http._tcp.web.test";

/// Priority, weight, port and target.
type Written = (u16, u16, u16, &'static str);

fn with_srv(servers: &str) -> Config {
    let health = "[backend.web.health]";
    let base = BASE.replace(health, &format!("[backend.web]\nsrv = \"{NAME}\"\n{health}"));
    config::parse(&format!("{base}{servers}"), "test").unwrap()
}

fn records(written: &[Written]) -> Vec<SrvRecord> {
    let record = |&(priority, weight, port, target): &Written| SrvRecord {
        target: format!("{target}."),
        port,
        priority,
        weight,
    };
    written.iter().map(record).collect()
}

impl Scene {
    fn supplied_by(servers: &str, written: &[Written]) -> Self {
        let mut scene = Self { cluster: Cluster::new(1), now: Instant::now(), version: 0 };
        scene.cluster.add_records(Records::from([(NAME.to_owned(), records(written))]));
        scene.cluster.merge(&with_srv(servers), Answers::new(), &here(), scene.now);
        scene.cluster.changes();
        scene
    }

    fn srv(&mut self, written: &[Written]) -> bool {
        self.cluster.supplied(NAME, records(written), &here(), self.now)
    }

    /// Resolves the host of a server, and lets its first probe pass.
    fn comes_up(&mut self, host: &str, address: &str) {
        self.dns(&format!("{host}."), &[address]);
        let servers = self.names();
        for name in servers.iter().filter(|name| name.starts_with(host)) {
            self.probe(name, true);
        }
    }

    /// Why a client gets a server, or does not.
    fn why(&mut self, name: &str) -> String {
        self.version += 1;
        let table = self.cluster.table(self.version, &Bound::new());
        let backend = table.frontends[0].backend.as_ref().unwrap();
        let reachable = HashMap::from([("web", (&**backend, String::new()))]);
        let explanation = self.cluster.explain(&reachable, None).swap_remove(0);
        let server = explanation.servers.into_iter().find(|server| server.name == name);
        server.unwrap().why
    }

    fn weight_of(&self, name: &str) -> u32 {
        self.status(name).weight
    }
}

#[test]
fn records_are_servers_beside_those_of_the_file() {
    let mut scene =
        Scene::supplied_by(&server("own", ""), &[(1, 20, 81, "a.x"), (1, 10, 80, "a.x")]);
    assert_eq!(scene.names(), ["own", "a.x:81", "a.x:80"]);
    assert_eq!(scene.picked(), ["own"]);
    assert_eq!(scene.cluster.hosts().collect::<Vec<_>>(), ["a.x.", "a.x."]);
    scene.comes_up("a.x", "10.0.0.1");
    assert_eq!(scene.picked(), ["a.x:80", "a.x:81", "own"]);
    assert_eq!(scene.addresses("a.x:81"), ["10.0.0.1:81"]);
    assert_eq!((scene.weight_of("a.x:81"), scene.weight_of("a.x:80")), (20, 10));
}

#[test]
fn a_record_that_stays_keeps_everything_and_one_that_leaves_drains() {
    let mut scene = Scene::supplied_by("", &[(1, 1, 80, "a.x"), (1, 1, 80, "b.x")]);
    scene.comes_up("a.x", "10.0.0.1");
    scene.comes_up("b.x", "10.0.0.2");
    scene.weigh("a.x:80", 7);
    let (a, b) = (scene.status("a.x:80"), scene.status("b.x:80"));
    let task = scene.task("a.x:80", "10.0.0.1:80".parse().unwrap());
    assert!(b.shared.sessions.try_raise());
    scene.changes();
    assert!(scene.srv(&[(1, 50, 80, "a.x"), (1, 1, 80, "c.x")]));
    assert!(!scene.srv(&[(1, 50, 80, "a.x"), (1, 1, 80, "c.x")]), "the same again");
    assert_eq!(
        scene.changes(),
        [
            "server web/b.x:80 is removed; its session continues",
            "server web/c.x:80 is new; its host name is resolved next",
        ]
    );
    assert_eq!(scene.picked(), ["a.x:80"]);
    assert!(Arc::ptr_eq(&a.shared, &scene.status("a.x:80").shared));
    assert_eq!(scene.task("a.x:80", "10.0.0.1:80".parse().unwrap()), task);
    assert_eq!(scene.weight_of("a.x:80"), 7, "the order of the operator holds");
    assert!(scene.status("b.x:80").removed.is_some(), "it still has a session");
    scene.srv(&[(1, 50, 80, "a.x"), (1, 1, 80, "b.x")]);
    assert!(Arc::ptr_eq(&b.shared, &scene.status("b.x:80").shared), "one series");
}

#[test]
fn an_order_holds_for_a_record_that_leaves_and_returns() {
    let mut scene = Scene::supplied_by("", &[(1, 1, 80, "a.x"), (1, 1, 80, "b.x")]);
    scene.order("b.x:80", AdminState::Drain);
    scene.srv(&[(1, 1, 80, "a.x")]);
    scene.srv(&[(1, 1, 80, "a.x"), (1, 1, 80, "b.x")]);
    assert_eq!(scene.status("b.x:80").admin, AdminState::Drain);
}

#[test]
fn no_record_at_all_changes_nothing() {
    let mut scene = Scene::supplied_by("", &[(1, 1, 80, "a.x")]);
    assert!(!scene.srv(&[]));
    assert_eq!(scene.names(), ["a.x:80"]);
    assert!(scene.cluster.knows_srv(NAME));
}

#[test]
fn the_lowest_priority_with_a_server_up_is_used_before_the_backups_of_the_file() {
    let backup = server("own", "backup = true");
    let hosts = [(10, 1, 80, "a.x"), (20, 1, 80, "b.x"), (20, 1, 80, "c.x"), (30, 1, 80, "d.x")];
    let mut scene = Scene::supplied_by(&backup, &hosts);
    assert_eq!(scene.picked(), ["own"], "no target is resolved");
    for (n, (.., host)) in (1..).zip(hosts) {
        scene.comes_up(host, &format!("10.0.0.{n}"));
    }
    let fails = |scene: &mut Scene, name: &str| {
        for _ in 0..3 {
            scene.probe(name, false);
        }
    };
    for (used, failing) in [
        (vec!["a.x:80"], vec!["a.x:80"]),
        (vec!["b.x:80", "c.x:80"], vec!["b.x:80"]),
        (vec!["c.x:80"], vec!["c.x:80"]),
        (vec!["d.x:80"], vec!["d.x:80"]),
        (vec!["own"], vec![]),
    ] {
        assert_eq!(scene.picked(), used);
        failing.iter().for_each(|name| fails(&mut scene, name));
    }
    scene.probe("a.x:80", true);
    scene.probe("a.x:80", true);
    assert_eq!(scene.picked(), ["a.x:80"]);
}

#[test]
fn a_record_that_was_down_when_it_left_is_down_when_it_returns() {
    // Its host name stays known by the other port.
    let both = [(1, 1, 80, "a.x"), (1, 1, 81, "a.x")];
    let mut scene = Scene::supplied_by("", &both);
    scene.comes_up("a.x", "10.0.0.1");
    for _ in 0..3 {
        scene.probe("a.x:81", false);
    }
    scene.srv(&both[..1]);
    scene.srv(&both);
    assert!(!scene.status("a.x:81").up);
    assert_eq!(scene.picked(), ["a.x:80"]);
    scene.srv(&both[1..]);
    scene.srv(&both);
    assert!(scene.status("a.x:80").up);
}

#[test]
fn a_backend_without_a_server_may_get_one_by_its_names() {
    let mut scene = Scene::supplied_by("", &[(1, 1, 80, "a.x")]);
    scene.picked();
    let (hosts, srv) = scene.cluster.names_of_empty();
    assert!(hosts.iter().eq(&["a.x."]) && srv.iter().eq(&[NAME]));
    scene.comes_up("a.x", "10.0.0.1");
    scene.picked();
    let task = scene.cluster.probe_targets().next().unwrap().task;
    assert_eq!(scene.cluster.names_of_probed(task), [Some("a.x."), Some(NAME)]);
    assert!(scene.cluster.names_of_empty().0.is_empty());
}

#[test]
fn a_target_that_leads_back_to_its_backend_is_not_used() {
    let mut scene = Scene::supplied_by("", &[(1, 1, 80, "a.x")]);
    scene.dns("a.x.", &["127.0.0.1"]);
    assert_eq!(scene.addresses("a.x:80"), [""; 0]);
    assert!(scene.changes()[0].contains("leads back"));
}

#[test]
fn the_reason_of_a_server_that_waits_for_others_is_its_rank() {
    let backup = server("spare", "backup = true");
    let written = [(1, 1, 80, "a.x"), (2, 1, 80, "b.x"), (3, 1, 80, "c.x")];
    let mut scene = Scene::supplied_by(&backup, &written);
    for (host, address) in [("a.x", "10.0.0.1"), ("b.x", "10.0.0.2"), ("c.x", "10.0.0.3")] {
        scene.comes_up(host, address);
    }
    let priority = "a higher SRV priority: used if all lower ones are down";
    let spare = "backup: used if all others are down";
    assert_eq!(scene.why("b.x:80"), priority);
    assert_eq!(scene.why("spare"), spare);
    for _ in 0..3 {
        scene.probe("a.x:80", false);
    }
    assert_eq!(scene.picked(), ["b.x:80"]);
    assert_eq!(scene.why("c.x:80"), priority);
    assert_eq!(scene.why("spare"), spare);
    for name in ["b.x:80", "c.x:80"] {
        scene.order(name, AdminState::Maint);
    }
    assert_eq!(scene.picked(), ["spare"]);
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn answers_for_many_targets_that_come_together_cost_one_pass_over_the_servers() {
    let cost = |count: usize| {
        let mut scene = Scene::supplied_by("", &[]);
        let target = |at: usize| format!("t{at}.");
        let record = |at: usize| SrvRecord { target: target(at), port: 80, priority: 1, weight: 1 };
        let records: Vec<SrvRecord> = (0..count).map(record).collect();
        assert!(scene.cluster.supplied(NAME, records, &here(), scene.now));
        let address = |at: usize| {
            let [.., high, low] = u32::try_from(at).unwrap().to_be_bytes();
            vec![HostAddress::from(std::net::IpAddr::from([10, 0, high, low]))]
        };
        let found: Vec<_> = (0..count).map(|at| (target(at), address(at))).collect();
        let answers = found.iter().map(|(host, addresses)| (host.as_str(), addresses.as_slice()));
        let before = processor_time();
        assert!(scene.cluster.resolved(answers, &here(), scene.now));
        let spent = processor_time() - before;
        assert!(scene.names().iter().all(|name| scene.addresses(name).len() == 1));
        spent
    };
    let (small, large) = (cost(64), cost(1024));
    // 16 times the targets: 16 times the time, not 256 times.
    assert!(large < 64 * small, "{small:?} and {large:?}");
}
