//! The bench at its smallest, so that it does not rot. Its figures mean nothing here.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Runs of the bench share a folder.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn the_bench_runs_and_gives_a_figure_for_every_kind_of_work_and_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !found("ip") || !found("unshare") {
        skip("needs ip and unshare: apt-get install iproute2 util-linux");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock();
    let with_haproxy = found("haproxy");
    let subjects = subjects();
    let output = Command::new(root.join("bench/run"))
        .args(["--debug", "--small", "--rounds", "1", "--seconds", "0.1"])
        .arg(format!("--subjects={}", subjects.join(",")))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (table, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{table}{log}");

    let (_, file) = log.rsplit_once("written to ").unwrap_or_else(|| panic!("no file: {log}"));
    let report = std::fs::read_to_string(root.join(file.trim())).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for key in ["kernel", "cpu", "commit", "evenkeel"] {
        assert!(report["machine"][key].is_string(), "{key}: {report}");
    }
    let has = |list: &str, work: &str, subject: &str, figure: &str| {
        let rows = report[list].as_array().unwrap();
        let row = rows.iter().find(|row| row["work"] == work && row["subject"] == subject);
        let figure = row.and_then(|row| row[figure]["median"].as_f64());
        assert!(figure.is_some_and(|figure| figure > 0.0), "{work}, {subject}: {log}{report}");
    };
    for subject in &subjects {
        assert!(table.contains(&format!("| {subject} |")), "{table}");
        for work in ["bulk", "upload"] {
            has("rows", work, subject, "rate");
        }
        if *subject == "haproxy-splice-512k" {
            continue;
        }
        for work in ["keepalive", "connection", "beside"] {
            has("rows", work, subject, "rate");
        }
        has("latencies", "mixed", subject, "p99");
        if with_haproxy {
            has("latencies", "latency-80", subject, "p999");
        }
    }
    for work in ["growth-connections-50", "growth-frontends-5", "growth-servers-20"] {
        // Where no namespace is allowed, there are no addresses for many servers.
        if !log.contains("growth with servers") || !work.contains("servers") {
            has("rows", work, "evenkeel", "rate");
        }
    }
    // Nor hosts of its own, where it says so.
    if !log.contains("left out: pi: ") || log.contains("CPU quota") {
        has("rows", "pi-bulk", "evenkeel", "rate");
    }
    let weighed = report["idle"].as_array().unwrap().iter();
    assert!(weighed.clone().any(|row| row["subject"] == "evenkeel"), "{report}");
    assert_eq!(report["targets"].as_array().unwrap().len(), if with_haproxy { 4 } else { 1 });

    let charts = root.join(file.trim()).with_file_name("charts");
    let mut command = Command::new(root.join("bench/run"));
    command.args(["--debug", "--charts"]).arg(root.join(file.trim())).arg(&charts);
    assert!(command.stdin(Stdio::null()).status().unwrap().success());
    let bulk = std::fs::read_to_string(charts.join("bulk.svg")).unwrap();
    for subject in &subjects {
        assert!(bulk.contains(subject), "{bulk}");
    }
}

#[test]
fn a_ratio_that_fell_by_more_than_a_fifth_since_it_was_recorded_is_a_failure() {
    if !found("ip") || !found("unshare") || !found("haproxy") {
        skip("needs ip, unshare and haproxy: apt-get install iproute2 util-linux haproxy");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let record = |ratio: f64| {
        let file = folder.join(format!("recorded-{ratio}.json"));
        let row = serde_json::json!({
            "work": "keepalive", "subject": "evenkeel", "ratio": { "median": ratio },
        });
        std::fs::write(&file, serde_json::json!({ "rows": [row] }).to_string()).unwrap();
        format!("--against={}", file.display())
    };
    let (low, high) = (record(0.001), record(1000.0));
    for (recorded, code, verdict) in
        [(vec![&low], 0, ": met"), (vec![&high], 1, ": NOT met"), (vec![&high, &low], 0, ": met")]
    {
        let output = Command::new(root.join("bench/run"))
            .args(["--debug", "--small", "--rounds", "1", "--seconds", "0.1"])
            .args(["--subjects=direct,evenkeel,haproxy", "keepalive"])
            .args(recorded)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (table, log) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{table}{log}");
        let judged = table.lines().find(|line| line.contains("when it was recorded"));
        assert!(judged.is_some_and(|line| line.ends_with(verdict)), "{table}");
    }
}

/// Those that can be run here.
fn subjects() -> Vec<&'static str> {
    let mut subjects = vec!["direct", "evenkeel", "tokio", "tokio-uring"];
    let peers = [
        ("haproxy", "haproxy", "haproxy"),
        ("haproxy-64k", "haproxy", "haproxy"),
        ("haproxy-splice", "haproxy", "haproxy"),
        ("haproxy-splice-512k", "haproxy", "haproxy"),
        ("haproxy-null", "haproxy", "haproxy"),
        ("nginx", "nginx", "nginx libnginx-mod-stream"),
        ("pen", "pen", "pen"),
    ];
    for (subject, program, packages) in peers {
        if found(program) {
            subjects.push(subject);
        } else {
            skip(&format!("the bench without {subject}: apt-get install {packages}"));
        }
    }
    subjects
}

#[test]
fn a_mistyped_kind_of_work_is_refused_with_those_there_are() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/run");
    let mut command = Command::new(run);
    let command = command.args(["--debug", "--subjects=direct", "keepalife"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
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

/// Is it a program that bench/run would find?
fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

/// Says what is not tested, past the capture of the test harness.
fn skip(why: &str) {
    drop(writeln!(io::stderr(), "skipped: {why}"));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
