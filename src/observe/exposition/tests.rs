//! A scrape of the sample snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use super::scrape::SessionCounts;
use super::*;
use crate::config::AdminState;
use crate::observe::sample;
use crate::shared::snapshot::ProbeResult;
use crate::terms::{ConnectFailure, Reason, WorkerIndex};

fn render(snapshot: Snapshot, shared: &Arc<SharedState>) -> String {
    Exposition::new(snapshot, Arc::clone(shared), &Recorder::new()).collect()
}

#[test]
fn every_metric_has_its_help_and_type() {
    let text = render(sample::snapshot(), &sample::shared());
    for metric in METRICS {
        let Metric { name, kind, help, .. } = metric;
        assert!(text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")), "{name}");
        assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
    }
    assert_eq!(text.matches("# TYPE ").count(), METRICS.len(), "all are described");
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
}

#[test]
fn numbers_are_summed_over_workers() {
    let shared = sample::shared();
    for (worker, dropped) in [(0, 1), (1, 2)] {
        shared.cells.of(WorkerIndex(worker)).log_drops.add(dropped);
    }
    let text = render(sample::snapshot(), &shared);
    for line in [
        r#"evenkeel_sessions_total{frontend="http"} 7"#,
        r#"evenkeel_sessions_active{frontend="http"} 2"#,
        r#"evenkeel_sessions_closed_total{frontend="http",reason="done"} 5"#,
        r#"evenkeel_sessions_closed_total{frontend="http",reason="internal"} 0"#,
        r#"evenkeel_sessions_refused_total{frontend="http",reason="limit"} 0"#,
        r#"evenkeel_bytes_total{frontend="http",direction="out"} 4096"#,
        r#"evenkeel_server_sessions_total{backend="web",server="web1"} 5"#,
        r#"evenkeel_server_up{backend="web",server="web1"} 1"#,
        r#"evenkeel_server_up{backend="web",server="web2"} 0"#,
        r#"evenkeel_server_state{backend="web",server="web2",state="down"} 1"#,
        r#"evenkeel_server_state{backend="web",server="web2",state="up"} 0"#,
        r#"evenkeel_server_connect_failures_total{backend="web",server="web1",reason="refused"} 0"#,
        r#"evenkeel_probes_total{backend="web",server="web1",result="bad_answer"} 0"#,
        r#"evenkeel_reloads_total{outcome="failed"} 1"#,
        r#"evenkeel_worker_turns_total{worker="1"} 0"#,
        r#"evenkeel_log_drops_total{reason="queue_full"} 3"#,
        r#"evenkeel_log_drops_total{reason="write_failed"} 0"#,
        "evenkeel_table_version 7",
        "evenkeel_draining 0",
        r#"evenkeel_session_duration_seconds_bucket{frontend="http",le="0.01"} 0"#,
        r#"evenkeel_session_duration_seconds_bucket{frontend="http",le="0.05"} 2"#,
        r#"evenkeel_session_duration_seconds_bucket{frontend="http",le="+Inf"} 2"#,
        r#"evenkeel_session_duration_seconds_sum{frontend="http"} 0.06"#,
        r#"evenkeel_session_duration_seconds_count{frontend="http"} 2"#,
        r#"evenkeel_connect_duration_seconds_bucket{backend="web",server="web1",le="0.0001"} 0"#,
        r#"evenkeel_connect_duration_seconds_bucket{backend="web",server="web1",le="0.0005"} 1"#,
        r#"evenkeel_connect_duration_seconds_bucket{backend="web",server="web1",le="+Inf"} 1"#,
        r#"evenkeel_server_retries_total{backend="web",reason="refused"} 2"#,
        r#"evenkeel_probe_duration_seconds_bucket{backend="web",le="0.001"} 0"#,
        r#"evenkeel_probe_duration_seconds_bucket{backend="web",le="0.0025"} 1"#,
        r#"evenkeel_probe_duration_seconds_count{backend="web"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[test]
fn counters_of_the_processes_before_this_one_are_added() {
    let (snapshot, shared) = (sample::snapshot(), sample::shared());
    let frontend = snapshot.frontends[0].shared.cells.carried();
    frontend.sessions.set(10);
    frontend.closed[Reason::Done as usize].set(10);
    frontend.session_duration.record(Duration::from_millis(2));
    let server = &snapshot.servers[0];
    server.shared.cells.carried().sessions.set(10);
    server.shared.cells.carried().connect_duration.record(Duration::from_millis(2));
    server.probes.carried().results[ProbeResult::Passed as usize].set(10);
    let backend = &snapshot.backends[0];
    backend.cells.retries.carried()[ConnectFailure::Refused as usize].set(10);
    backend.cells.probe_duration.carried().record(Duration::from_millis(2));
    backend.queue.waits.carried().record(Duration::from_millis(2));
    let worker = shared.carried.workers.of(WorkerIndex(1));
    worker.turns.set(10);
    worker.log_drops.set(10);
    shared.carried.unwritten.set(10);
    let text = render(snapshot, &shared);
    for line in [
        r#"evenkeel_sessions_total{frontend="http"} 17"#,
        r#"evenkeel_sessions_closed_total{frontend="http",reason="done"} 15"#,
        r#"evenkeel_session_duration_seconds_count{frontend="http"} 3"#,
        r#"evenkeel_server_sessions_total{backend="web",server="web1"} 15"#,
        r#"evenkeel_connect_duration_seconds_count{backend="web",server="web1"} 2"#,
        r#"evenkeel_probes_total{backend="web",server="web1",result="passed"} 10"#,
        r#"evenkeel_server_retries_total{backend="web",reason="refused"} 12"#,
        r#"evenkeel_probe_duration_seconds_count{backend="web"} 2"#,
        r#"evenkeel_queue_duration_seconds_count{backend="web"} 1"#,
        r#"evenkeel_worker_turns_total{worker="1"} 10"#,
        r#"evenkeel_log_drops_total{reason="queue_full"} 10"#,
        r#"evenkeel_log_drops_total{reason="write_failed"} 10"#,
        r#"evenkeel_upgrades_total{outcome="done"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[test]
fn one_recorder_serves_every_scrape() {
    let (recorder, shared) = (Recorder::new(), sample::shared());
    let scrape = || -> String {
        Exposition::new(sample::snapshot(), Arc::clone(&shared), &recorder).collect()
    };
    assert!(scrape().contains("\nevenkeel_worker_turns_total{worker=\"1\"} 0\n"));
    shared.cells.of(WorkerIndex(1)).turns.add(5);
    shared.cells.of(WorkerIndex(0)).pipes_in_use.set(3);
    let text = scrape();
    assert!(text.contains("\nevenkeel_worker_turns_total{worker=\"1\"} 5\n"), "{text}");
    assert!(text.contains("\nevenkeel_pipes_in_use{worker=\"0\"} 3\n"), "{text}");
    shared.cells.of(WorkerIndex(0)).pipes_in_use.set(1);
    assert!(scrape().contains("\nevenkeel_pipes_in_use{worker=\"0\"} 1\n"));
    assert_eq!(scrape().matches("# TYPE evenkeel_pipes_in_use ").count(), 1);
}

#[test]
fn what_could_not_be_read_is_no_number() {
    let recorder = Recorder::new();
    let mut scrape = Scrape::new(sample::snapshot(), sample::shared());
    assert!(!recorder.render(&scrape).contains("NaN"));
    scrape.process = None;
    let text = recorder.render(&scrape);
    assert!(text.contains("\nprocess_open_fds NaN\n"), "{text}");
}

#[test]
fn two_scrapes_have_the_same_lines_in_the_same_order() {
    let names = || -> Vec<String> {
        let text = render(sample::snapshot(), &sample::shared());
        text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    assert_eq!(names(), names());
}

#[test]
fn the_series_of_a_removed_server_end() {
    let shared = sample::shared();
    assert!(render(sample::snapshot(), &shared).contains(r#"server="web2""#));
    let mut snapshot = sample::snapshot();
    snapshot.servers.pop();
    assert!(!render(snapshot, &shared).contains(r#"server="web2""#));
}

#[test]
fn a_name_that_is_used_again_appears_once_with_all_its_sessions() {
    let mut snapshot = sample::snapshot();
    let mut old = sample::server("web1", false);
    old.removed = Some(Duration::ZERO);
    snapshot.servers.push(old);
    let text = render(snapshot, &sample::shared());
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(lines(r#"evenkeel_connect_duration_seconds_count{backend="web",server="web1"}"#), 1);
    let active = r#"evenkeel_server_sessions_active{backend="web",server="web1"} 2"#;
    assert!(text.lines().any(|line| line == active), "{text}");
    assert!(text.contains(r#"evenkeel_server_up{backend="web",server="web1"} 1"#));
}

#[test]
fn a_server_has_exactly_one_state() {
    for (admin, removed, state) in [
        (AdminState::Ready, false, "up"),
        (AdminState::Drain, false, "drain"),
        (AdminState::Maint, false, "maint"),
        (AdminState::Drain, true, "removed"),
    ] {
        let mut snapshot = sample::snapshot();
        snapshot.servers.truncate(1);
        snapshot.servers[0].admin = admin;
        snapshot.servers[0].removed = removed.then_some(Duration::ZERO);
        let text = render(snapshot, &sample::shared());
        let states = text.lines().filter(|line| line.starts_with("evenkeel_server_state{"));
        let on: Vec<&str> = states.filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(on.len(), 1);
        assert!(on[0].contains(&format!("state=\"{state}\"")), "{on:?}");
    }
}

#[test]
fn a_label_value_is_escaped() {
    let mut snapshot = sample::snapshot();
    snapshot.frontends[0].name = "a\"} 1\n\n# TYPE x\\".into();
    let text = render(snapshot, &sample::shared());
    let escaped = r#"evenkeel_sessions_total{frontend="a\"} 1\n\n# TYPE x\\"} 7"#;
    assert!(text.lines().any(|line| line == escaped), "{text}");
}

#[test]
fn opened_sessions_are_closed_or_active_while_a_worker_writes() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let snapshot = sample::snapshot();
    let cells = &snapshot.frontends[0].shared.cells;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let cell = cells.of(WorkerIndex(0));
            while !done.load(Ordering::Relaxed) {
                cell.sessions.add(1);
                cell.active.add(1);
                // A session takes its time.
                (0..200).for_each(|_| std::hint::spin_loop());
                cell.closed[Reason::Done as usize].add(1);
                cell.active.subtract(1);
                (0..200).for_each(|_| std::hint::spin_loop());
            }
        });
        for _ in 0..1000 {
            let counts = SessionCounts::of(&snapshot.frontends[0]);
            let closed: u64 = counts.closed.iter().sum();
            let ended = closed + counts.active;
            assert!(ended.abs_diff(counts.opened) <= 2, "{counts:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let counts = SessionCounts::of(&snapshot.frontends[0]);
    assert_eq!(counts.closed.iter().sum::<u64>() + counts.active, counts.opened);
}

/// A snapshot of that many servers.
fn many(servers: usize) -> Snapshot {
    let servers = (0..servers).map(|n| sample::server(&format!("s{n}"), true)).collect();
    Snapshot { servers, ..sample::snapshot() }
}

#[test]
fn the_parts_of_a_long_scrape_are_whole_lines_and_each_has_a_limit() {
    let mut longest = 0;
    let mut text = String::new();
    for part in Exposition::new(many(1000), sample::shared(), &Recorder::new()) {
        assert!(part.ends_with('\n'));
        longest = longest.max(part.len());
        text.push_str(&part);
    }
    assert!(longest < PART + PART / 8 && text.len() > 2 * PART, "{longest} of {}", text.len());
    let up = text.lines().filter(|line| line.starts_with("evenkeel_server_up{")).count();
    assert_eq!(up, 1000);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let series: BTreeSet<&str> =
        lines.iter().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    assert_eq!(series.len(), lines.len(), "each series once");
}

#[test]
fn there_are_as_many_series_as_the_documents_say() {
    let text = render(many(1), &sample::shared());
    let count = |label: &str, not: &str| {
        let lines = text.lines().filter(|line| line.contains(label) && !line.contains(not));
        lines.count()
    };
    let said = format!(
        "{} series for each server, {} for each frontend, {} for each backend, {} for each worker",
        count(r#"server="s0""#, " # "),
        count(r#"frontend="http""#, " # "),
        count(r#"backend="web""#, "server="),
        count(r#"worker="1""#, " # "),
    );
    let document = include_str!("../../../docs/metrics.md").replace('\n', " ");
    assert!(document.contains(&said), "{said}");
}

#[test]
fn the_documents_name_every_metric_and_no_other() {
    let text = include_str!("../../../docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let named: Vec<&str> = rows.map(|(name, _)| name).collect();
    assert_eq!(named, METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>());
}
