//! What is reported of a server: the time in its state, its last probe, its connect times.

use super::*;
use crate::shared::snapshot::LastProbe;

const SECOND: Duration = Duration::from_secs(1);

impl Scene {
    fn pass(&mut self, seconds: u32) {
        self.now += seconds * SECOND;
    }

    /// In seconds: since it went up or down, and since its state was set.
    fn ages(&self, name: &str) -> (u64, u64) {
        let status = self.status(name);
        (status.since.as_secs(), status.admin_since.as_secs())
    }

    fn probe_taking(&mut self, name: &str, result: ProbeResult, duration: Duration) -> LastProbe {
        let task = self.task(name, own_address(name));
        let (detail, verdict) = (result.name().into(), Some(result == ProbeResult::Passed));
        self.cluster.probed(ProbeReport { task, result, detail, duration, verdict }, self.now);
        self.status(name).last_probe
    }

    fn last_probes(&self, name: &str) -> [LastProbe; 2] {
        let status = self.status(name);
        [status.last_probe, status.endpoints[0].last_probe.clone()]
    }

    fn connect(&self, name: &str, duration: Duration) {
        let shared = self.status(name).shared;
        shared.cells.of(WorkerIndex(0)).connect_duration.record(duration);
    }
}

#[test]
fn the_time_in_drain_and_maint_is_since_the_order() {
    let mut scene = Scene::of(&server("a", ""));
    scene.pass(100);
    scene.order("a", AdminState::Drain);
    scene.pass(10);
    assert_eq!(scene.ages("a"), (110, 10));
    scene.order("a", AdminState::Drain);
    assert_eq!(scene.ages("a"), (110, 10), "an order that changes nothing keeps the time");
    scene.order("a", AdminState::Maint);
    scene.pass(1);
    assert_eq!(scene.ages("a"), (111, 1));
}

#[test]
fn the_time_in_drain_is_since_the_file_says_so() {
    let mut scene = Scene::of(&server("a", ""));
    let drained = server("a", "state = \"drain\"");
    scene.pass(100);
    scene.load(&drained);
    scene.pass(10);
    scene.load(&drained);
    assert_eq!(scene.ages("a"), (110, 10), "a reload that changes nothing keeps the time");
    scene.order("a", AdminState::Maint);
    scene.pass(5);
    scene.load(&server("a", ""));
    assert_eq!(scene.ages("a"), (115, 5), "the order holds");
}

#[test]
fn a_probe_that_changes_the_health_keeps_the_time_of_the_order() {
    let mut scene = Scene::of(&server("a", ""));
    scene.order("a", AdminState::Drain);
    scene.pass(10);
    scene.bring_down("a");
    scene.pass(1);
    assert_eq!(scene.ages("a"), (1, 11));
}

#[test]
fn an_order_keeps_its_time_when_the_server_gets_another_address_in_the_file() {
    let mut scene = Scene::of(&at("a", "127.0.0.1:81"));
    scene.order("a", AdminState::Drain);
    scene.pass(10);
    scene.load(&at("a", "127.0.0.1:82"));
    assert_eq!(scene.ages("a"), (0, 10));
}

#[test]
fn a_removed_server_has_the_time_since_its_removal() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    assert!(scene.status("a").shared.sessions.try_raise());
    scene.pass(100);
    scene.load(&server("b", ""));
    scene.pass(10);
    let status = scene.status("a");
    assert_eq!((status.since, status.removed), (110 * SECOND, Some(10 * SECOND)));
    assert_eq!(status.last_probe, LastProbe::none("not probed"));
}

#[test]
fn a_server_in_maint_shows_that_it_is_not_probed() {
    let mut scene = Scene::of(&server("a", ""));
    scene.probe("a", true);
    scene.order("a", AdminState::Drain);
    assert_eq!(scene.last_probes("a").map(|probe| probe.detail), [(); 2].map(|()| "passed".into()));
    scene.order("a", AdminState::Maint);
    assert_eq!(scene.last_probes("a"), [(); 2].map(|()| LastProbe::none("not probed")));
    scene.order("a", AdminState::Ready);
    assert_eq!(scene.last_probes("a"), [(); 2].map(|()| LastProbe::none("not probed yet")));
}

#[test]
fn with_probes_turned_off_a_server_shows_that_it_is_not_probed() {
    let on = server("a", "");
    let mut scene = Scene::of(&on);
    scene.probe("a", true);
    scene.load(&("check = \"off\"\n".to_owned() + &on));
    assert_eq!(scene.last_probes("a"), [(); 2].map(|()| LastProbe::none("not probed")));
    scene.load(&on);
    assert_eq!(scene.last_probes("a"), [(); 2].map(|()| LastProbe::none("not probed yet")));
}

#[test]
fn a_name_without_an_address_says_so_in_maint_too() {
    let mut scene = Scene::of(&at("a", "pi:80"));
    scene.unanswered("pi", "no such name");
    scene.order("a", AdminState::Maint);
    assert_eq!(&*scene.status("a").last_probe.detail, "no address: no such name");
}

#[test]
fn a_probe_has_a_duration_unless_nothing_answered_in_time() {
    let mut scene = Scene::of(&server("a", ""));
    for result in [ProbeResult::Passed, ProbeResult::Refused, ProbeResult::BadAnswer] {
        let last = scene.probe_taking("a", result, SECOND);
        assert_eq!((&*last.detail, last.duration), (result.name(), Some(SECOND)));
    }
    assert_eq!(scene.probe_taking("a", ProbeResult::Timeout, SECOND).duration, None);
    assert_eq!(scene.status("a").endpoints[0].last_probe.duration, None);
    scene.report(scene.task("a", own_address("a")), None);
    assert_eq!(scene.status("a").last_probe.duration, None, "a failure of this machine");
}

#[test]
fn the_mean_connect_time_is_that_of_the_last_minute() {
    let mut scene = Scene::of(&(server("a", "") + &server("b", "")));
    assert_eq!(scene.status("a").connect_mean, None);
    scene.connect("a", 3 * SECOND);
    scene.connect("a", SECOND);
    assert_eq!(scene.status("a").connect_mean, Some(2 * SECOND));
    assert_eq!(scene.status("b").connect_mean, None);
    // As the control thread does, more often than samples are due.
    for _ in 0..70 {
        scene.pass(1);
        scene.cluster.sample_connects(scene.now);
    }
    assert_eq!(scene.status("a").connect_mean, None);
    scene.connect("a", SECOND);
    assert_eq!(scene.status("a").connect_mean, Some(SECOND));
}

#[test]
fn connects_of_an_earlier_process_are_no_part_of_the_mean_connect_time() {
    let scene = Scene::of(&server("a", ""));
    scene.status("a").shared.cells.carried().connect_duration.record(SECOND);
    assert_eq!(scene.status("a").connect_mean, None);
}

#[test]
fn a_server_that_is_replaced_starts_without_a_mean_connect_time() {
    let mut scene = Scene::of(&at("a", "127.0.0.1:81"));
    scene.connect("a", SECOND);
    scene.load(&at("a", "127.0.0.1:82"));
    assert_eq!(scene.status("a").connect_mean, None, "its counters go on");
}

#[test]
fn a_server_without_a_port_is_probed_at_the_only_port_of_its_frontends() {
    let mut scene = Scene::of(&at("a", "192.0.2.1"));
    let target = |scene: &Scene| scene.cluster.probe_targets().next().unwrap();
    let first = target(&scene);
    assert_eq!(first.address.to_string(), "192.0.2.1:80");
    assert_eq!(scene.addresses("a"), ["192.0.2.1"], "it has no port of its own");
    scene.cluster.probed(report(first.task, false), scene.now);
    assert!(!scene.status("a").up);
    let mut moved = config(&at("a", "192.0.2.1"));
    Arc::make_mut(&mut moved.frontends[0]).bind[0].0 = SocketAddr::from(([0; 4], 81)).into();
    scene.cluster.merge(&moved, Answers::new(), &here(), scene.now);
    let second = target(&scene);
    assert_eq!(second.address.to_string(), "192.0.2.1:81");
    assert!(!scene.cluster.probed(report(first.task, true), scene.now), "of the earlier port");
    assert!(!scene.status("a").up, "its health holds");
}

fn report(task: ProbeTaskId, passed: bool) -> ProbeReport {
    let (result, detail, duration) = (ProbeResult::Passed, "".into(), Duration::ZERO);
    ProbeReport { task, result, detail, duration, verdict: Some(passed) }
}

#[test]
fn a_unix_socket_is_probed_with_a_host_header_that_is_a_host() {
    let scene = Scene::of(&at("a", "unix:/run/x.sock"));
    let target = scene.cluster.probe_targets().next().unwrap();
    assert_eq!(target.address.to_string(), "unix:/run/x.sock");
    assert_eq!(&*target.host_header, "localhost");
    assert_eq!(scene.addresses("a"), ["unix:/run/x.sock"]);
}

#[test]
fn without_health_checks_no_server_is_probed() {
    let scene = Scene::of(&("check = \"off\"\n".to_owned() + &server("a", "")));
    assert!(scene.cluster.probe_targets().next().is_none());
}
