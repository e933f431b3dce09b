//! The bench at its smallest, so that it does not rot. Its figures mean nothing here.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_bench_runs_and_gives_a_figure_for_every_kind_of_work_and_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let with_haproxy = found("haproxy");
    let subjects: &[&str] = if with_haproxy {
        &["direct", "evenkeel", "haproxy", "haproxy-splice", "haproxy-null"]
    } else {
        eprintln!("without HAProxy, which is not installed: apt-get install haproxy");
        &["direct", "evenkeel"]
    };
    if !found("ip") || !found("unshare") {
        drop(writeln!(
            io::stderr(),
            "skipped: needs ip and unshare: apt-get install iproute2 util-linux"
        ));
        return;
    }
    let output = Command::new(root.join("bench/run"))
        .args(["--debug", "--rounds", "1", "--seconds", "0.1"])
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
    for work in ["keepalive", "connection", "bulk"] {
        for subject in subjects {
            if *subject == "haproxy-splice" && work != "bulk" {
                continue;
            }
            let rows = report["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["work"] == work && row["subject"] == *subject);
            let rate = row.and_then(|row| row["rate"]["median"].as_f64());
            assert!(rate.is_some_and(|rate| rate > 0.0), "{work}, {subject}: {report}");
            assert!(table.contains(&format!("| {subject} |")), "{table}");
        }
    }
    let weighed = if with_haproxy { 2 } else { 1 };
    assert_eq!(report["idle"].as_array().unwrap().len(), weighed, "{report}");
    assert_eq!(report["targets"].as_array().unwrap().len(), if with_haproxy { 4 } else { 1 });
}

#[test]
fn a_mistyped_kind_of_work_is_refused_with_those_there_are() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/run");
    let mut command = Command::new(run);
    let command = command.args(["--debug", "--subjects=direct", "keepalife"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let log = text(&output.stderr);
    if log.contains("missing:") {
        drop(writeln!(io::stderr(), "skipped: {log}"));
        return;
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(log.contains("keepalife") && log.contains("keepalive, connection, bulk"), "{log}");
}

/// Is it a program that bench/run would find?
fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
