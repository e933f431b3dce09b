//! Runs the benchmark with its smallest settings, to test that it works. The figures mean nothing.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Runs of the benchmark share a directory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn the_benchmark_returns_a_figure_for_every_kind_of_work_and_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !found("ip") || !found("unshare") {
        skip("needs ip and unshare: apt-get install iproute2 util-linux");
        return;
    }
    let _lock = ONE_AT_A_TIME.lock();
    let with_haproxy = found("haproxy");
    let subjects = subjects();
    let output = bench_run()
        .args(["--debug", "--small", "--rounds", "1", "--seconds", "0.1"])
        .arg(format!("--subjects={}", subjects.join(",")))
        .output()
        .unwrap();
    let (table, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{table}{log}");

    let (_, file) = log.rsplit_once("written to ").unwrap_or_else(|| panic!("no file: {log}"));
    let results = std::fs::read_to_string(root.join(file.trim())).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    let result = &results[0];
    for key in ["kernel", "cpu", "commit"] {
        assert!(result["run"]["machine"][key].is_string(), "{key}: {result}");
    }
    let has = |work: &str, subject: &str, figure: &str| {
        let rows = result["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["work"] == work && row["subject"] == subject);
        let median = row.and_then(|row| row[figure][0].as_f64());
        assert!(median.is_some_and(|median| median > 0.0), "{work}, {subject}: {log}{result}");
    };
    for subject in &subjects {
        assert!(table.contains(&format!("| {subject} |")), "{table}");
        figures_of(subject, with_haproxy).for_each(|(work, figure)| has(work, subject, figure));
    }
    for work in ["growth-connections-50", "growth-frontends-5", "growth-servers-20"] {
        // Without network namespaces there are no addresses for many servers.
        if !log.contains("left out: growth: it needs") || !work.contains("servers") {
            has(work, "evenkeel", "rate");
        }
    }
    for work in ["pi-bulk", "veth-keepalive", "veth-shared-keepalive"] {
        // Without network namespaces there are no hosts; without a CPU quota the row exists.
        let (kind, _) = work.split_once('-').unwrap();
        let left_out = log.lines().find(|line| line.starts_with(&format!("left out: {kind}: ")));
        if left_out.is_none_or(|line| line.contains("CPU quota")) {
            has(work, "evenkeel", "rate");
        }
    }
    for subject in ["evenkeel", "haproxy"].iter().filter(|subject| subjects.contains(subject)) {
        rows_of_many_servers(&log).for_each(|(work, figure)| has(work, subject, figure));
    }
    has("idle", "evenkeel", "user");
    let met = table.lines().filter(|line| line.ends_with(": met") || line.ends_with(": NOT met"));
    let with_target = |work: &str| met.clone().any(|line| line.starts_with(&format!("{work}: ")));
    assert!(with_target("bulk") && (with_target("idle") || !with_haproxy), "{table}");

    let charts = root.join(file.trim()).with_file_name("charts");
    let mut command = bench_run();
    command.args(["--debug", "--charts"]).arg(root.join(file.trim())).arg(&charts);
    assert!(command.status().unwrap().success());
    let bulk = std::fs::read_to_string(charts.join("bulk.svg")).unwrap();
    let with_bulk = |subject: &&&str| !subject.ends_with("-batch") && **subject != "evenkeel-open";
    for subject in subjects.iter().filter(with_bulk) {
        assert!(bulk.contains(subject), "{bulk}");
    }
}

#[test]
fn a_ratio_a_fifth_worse_than_the_recorded_one_is_a_failure() {
    if !found("ip") || !found("unshare") || !found("haproxy") {
        skip("needs ip, unshare and haproxy: apt-get install iproute2 util-linux haproxy");
        return;
    }
    let _lock = ONE_AT_A_TIME.lock();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let record = |ratios: &[f64]| {
        let file = folder.join(format!("recorded-{}.json", ratios.len()));
        let result = |ratio: &f64| {
            let machine = serde_json::json!({
                "kernel": "", "architecture": "", "cpu": "another", "core": 0,
                "congestion_control": "", "commit": "", "versions": [],
            });
            let run = serde_json::json!({
                "machine": machine, "before": null, "rounds": 1, "seconds": 1.0, "titles": {},
                "left_out": [],
            });
            let row = serde_json::json!({
                "work": "keepalive", "subject": "evenkeel", "ratio": [ratio, ratio, ratio],
            });
            serde_json::json!({ "run": run, "rows": [row] })
        };
        let results: Vec<_> = ratios.iter().map(result).collect();
        std::fs::write(&file, serde_json::Value::from(results).to_string()).unwrap();
        format!("--against={}", file.display())
    };
    for (ratios, code, verdict) in
        [(&[0.001][..], 0, ": met"), (&[1000.0], 1, ": NOT met"), (&[1000.0, 0.001], 0, ": met")]
    {
        let output = bench_run()
            .args(["--debug", "--small", "--rounds", "1", "--seconds", "0.1"])
            .args(["--subjects=direct,evenkeel,haproxy", "keepalive"])
            .arg(record(ratios))
            .output()
            .unwrap();
        let (table, log) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{table}{log}");
        let line = table.lines().find(|line| line.contains("recorded"));
        assert!(line.is_some_and(|line| line.ends_with(verdict)), "{table}");
    }
}

#[test]
fn publishing_replaces_the_result_of_the_same_processor_and_the_tables_of_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published");
    std::fs::create_dir_all(&folder).unwrap();
    let recorded = std::fs::read_to_string(root.join("bench/result.json")).unwrap();
    let count = recorded.matches("\"run\"").count();
    std::fs::write(folder.join("result.json"), &recorded).unwrap();
    let readme = "before\n<!-- tables -->\nold\n<!-- end of tables -->\nafter\n";
    std::fs::write(folder.join("README.md"), readme).unwrap();
    let _lock = ONE_AT_A_TIME.lock();
    let mut command = bench_run();
    command.args(["--debug", "--publish", "bench/result.json"]).arg(&folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let published = std::fs::read_to_string(folder.join("result.json")).unwrap();
    assert_eq!(published.matches("\"run\"").count(), count);
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.starts_with("before\n") && readme.ends_with("after\n"), "{readme}");
    assert!(readme.contains("| evenkeel |") && !readme.contains("old"), "{readme}");
    assert!(folder.join("charts/summary.svg").exists());
}

/// The kinds of work that measure a subject, with one figure of each.
fn figures_of(
    subject: &str,
    with_haproxy: bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let throughput = ["bulk", "upload", "keepalive", "connection", "beside"];
    let latencies = [("mixed", "windowed_p99"), ("latency-80", "p999")];
    let throughput = match subject {
        "haproxy-batch" => &[],
        "haproxy-splice-512k" => &throughput[..2],
        "evenkeel-open" => &throughput[2..4],
        _ => &throughput[..],
    };
    // The request rates of an open loop are fractions of the rate of HAProxy.
    let latencies = match (subject, with_haproxy) {
        ("haproxy-splice-512k" | "evenkeel-open", _) => &[],
        (_, false) => &latencies[..1],
        (_, true) => &latencies[..],
    };
    let throughput: Vec<_> = throughput.iter().map(|work| (*work, "rate")).collect();
    throughput.into_iter().chain(latencies.to_vec())
}

/// Rows that need addresses for many servers or a second core, with one figure of each: those that
/// the log does not report as left out.
fn rows_of_many_servers(log: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let left_out = |kind: &str| {
        let why = ["it needs", "this machine"].map(|why| format!("left out: {kind}: {why}"));
        why.iter().any(|line| log.contains(line))
    };
    let rows = [
        ("probes-50", "probes"),
        ("scrape-20", "bytes"),
        ("neighbours-silent-connection", "growth"),
        ("neighbours-resets-keepalive", "events"),
        ("neighbours-scrapes-keepalive", "busy"),
        ("neighbours-probes-connection", "growth"),
    ];
    let is_there = move |work: &str| work.split_once('-').is_none_or(|(kind, _)| !left_out(kind));
    rows.into_iter().filter(move |(work, _)| is_there(work))
}

/// The subjects that can run on this machine.
fn subjects() -> Vec<&'static str> {
    let mut subjects = vec!["direct", "evenkeel", "evenkeel-open", "tokio", "tokio-uring"];
    let peers = [
        ("haproxy", "haproxy", "haproxy"),
        ("haproxy-64k", "haproxy", "haproxy"),
        ("haproxy-splice", "haproxy", "haproxy"),
        ("haproxy-splice-512k", "haproxy", "haproxy"),
        ("haproxy-null", "haproxy", "haproxy"),
        ("haproxy-batch", "haproxy", "haproxy"),
        ("nginx", "nginx", "nginx libnginx-mod-stream"),
        ("pen", "pen", "pen"),
    ];
    for (subject, program, packages) in peers {
        if found(program) {
            subjects.push(subject);
        } else {
            skip(&format!("the benchmark without {subject}: apt-get install {packages}"));
        }
    }
    subjects
}

#[test]
fn an_unknown_kind_of_work_is_refused_with_the_known_ones() {
    let mut command = bench_run();
    let command = command.args(["--debug", "--subjects=direct", "keepalife"]);
    let output = command.output().unwrap();
    let log = text(&output.stderr);
    if log.contains("missing:") {
        skip(&log);
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(
        log.contains("keepalife") && log.contains("keepalive, connection, bulk, upload"),
        "{log}"
    );
}

/// bench/run, which runs cargo: without the variables that cargo sets for tests, for which build
/// scripts would run again, now and in the next build.
fn bench_run() -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/run"));
    command.stdin(Stdio::null());
    let names = std::env::vars_os().map(|(name, _)| name);
    let of_package = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"];
    for name in names.filter(|name| {
        let name = name.to_string_lossy();
        of_package.iter().any(|prefix| name.starts_with(prefix))
    }) {
        command.env_remove(name);
    }
    command
}

/// Whether bench/run finds a program.
fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

/// Reports what is not tested on standard error, where the test harness does not capture it.
fn skip(why: &str) {
    drop(writeln!(io::stderr(), "skipped: {why}"));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
