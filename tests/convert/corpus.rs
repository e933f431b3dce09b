//! Published configurations with a verdict for each line, in a folder that is no part of the
//! project: `EVENKEEL_CONVERT_CORPUS=FOLDER cargo test --test convert`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use evenkeel::convert::{self, Conversion, Kind};

/// Constructs that had no key when the verdicts were made.
const KEYS_SINCE: &[&str] = &[
    "no idle timeout at all",
    "resolvers section (name servers, hold times)",
    "several backups, used one after the other",
    "tcp-check expect: text inside the answer",
    "server without a port, or 0.0.0.0 (the client's port or destination is kept)",
    "SNI without a default (unmatched clients are refused)",
    "fail_timeout as the time that a server stays down",
    "connection rate over a longer period, silent-drop",
];

struct Verdict {
    line: usize,
    verdict: String,
    keys: String,
    remark: String,
    construct: String,
    text: String,
}

#[test]
fn published_configurations_are_converted_as_their_verdicts_say() {
    let Some(folder) = std::env::var_os("EVENKEEL_CONVERT_CORPUS").map(PathBuf::from) else {
        let text = "skipped: EVENKEEL_CONVERT_CORPUS names no folder of configurations";
        drop(writeln!(io::stderr(), "{text}"));
        return;
    };
    let table = fs::read_to_string(folder.join("lines.tsv")).unwrap();
    let mut files: BTreeMap<String, Vec<Verdict>> = BTreeMap::new();
    for record in table.lines().skip(1) {
        let columns: Vec<&str> = record.split('\t').collect();
        let text = |at: usize| columns.get(at).copied().unwrap_or_default().to_owned();
        files.entry(text(0)).or_default().push(Verdict {
            line: columns[1].parse().unwrap(),
            verdict: text(2),
            keys: text(3),
            remark: text(4),
            construct: text(5),
            text: text(6),
        });
    }
    let mut faults = Vec::new();
    let mut right = 0;
    for (file, verdicts) in &files {
        let found = match convert::convert(None, &folder.join(file)) {
            Ok(conversion) => faults_of(&conversion, verdicts),
            Err(refused) => vec![format!("refused: {refused}")],
        };
        right += usize::from(found.is_empty());
        faults.extend(found.into_iter().map(|fault| format!("{file}:{fault}")));
    }
    let outcome = format!("{right} of {} files", files.len());
    drop(writeln!(io::stderr(), "{outcome}"));
    assert!(faults.is_empty(), "{outcome}\n{}", faults.join("\n"));
}

fn faults_of(conversion: &Conversion, verdicts: &[Verdict]) -> Vec<String> {
    let mut faults = Vec::new();
    let noted: BTreeSet<usize> = conversion.report.iter().map(|note| note.line).collect();
    let reports = conversion.report.iter().filter(|note| note.kind == Kind::Report);
    let reported: BTreeSet<usize> = reports.map(|note| note.line).collect();
    let loud = |line: usize| {
        verdicts.iter().any(|it| it.line == line && !matches!(it.verdict.as_str(), "drop" | "keep"))
    };
    for verdict in verdicts {
        let Verdict { line, text, remark, .. } = verdict;
        let has_key = KEYS_SINCE.contains(&verdict.construct.as_str());
        let fault = match verdict.verdict.as_str() {
            "report" if !reported.contains(line) && !has_key => "is not reported",
            "near" if !noted.contains(line) && !has_key => "has no note",
            "drop" if noted.contains(line) && !loud(*line) => "has a note",
            "keep" if reported.contains(line) && !loud(*line) => "is reported",
            _ => "",
        };
        if !fault.is_empty() {
            faults.push(format!("{line}: {fault}: {text} ({remark})"));
        }
        if verdict.verdict == "keep" {
            let lost = expected(verdict).into_iter().filter(|it| !conversion.toml.contains(it));
            faults.extend(lost.map(|it| format!("{line}: {it} is lost: {text}")));
        }
    }
    faults.extend(super::problems(&conversion.toml).into_iter().map(|it| format!("check: {it}")));
    faults
}

/// Keys that leave this in the result, whatever the line says.
const PRESENT: &[(&str, &str)] = &[
    ("global.workers", "workers = "),
    ("backend.health.interval", "interval = "),
    ("backend.on_down", "on_down = \"close\""),
    ("backend.connect_timeout", "connect_timeout = "),
    ("frontend.idle_timeout", "idle_timeout = "),
    ("backend.queue_timeout", "queue_timeout = "),
    ("server.backup", "backup = true"),
    ("server.weight", "weight = "),
    ("backend.send_proxy", "send_proxy = \"v"),
    ("backend.health.send_proxy", "send_proxy = true"),
    ("backend.source", "source = [\"client\"]"),
    ("frontend.allow", "allow = "),
    ("frontend.deny", "deny = "),
    ("frontend.preface_timeout", "preface_timeout = "),
    ("global.drain_timeout", "drain_timeout = "),
    ("global.pin", "pin = true"),
];

/// The text that a line leaves in the result.
fn expected(verdict: &Verdict) -> Vec<String> {
    let words: Vec<&str> = verdict.text.split_whitespace().collect();
    let after = |name: &str| {
        words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
    };
    let last = words.last().copied().unwrap_or_default();
    let is_nginx = verdict.remark.starts_with("nginx gives no name");
    let mut expected = Vec::new();
    for key in verdict.keys.split(", ") {
        let present = PRESENT.iter().filter(|(name, _)| *name == key);
        expected.extend(present.map(|(_, text)| (*text).to_owned()));
        match key {
            "global.user" => expected.push(format!("user = \"{}\"", words[1])),
            "global.group" => expected.push(format!("group = \"{}\"", words[1])),
            "global.sessions_max" => expected.push(format!("sessions_max = {last}")),
            "frontend.sessions_max" => expected.push(format!("sessions_max = {last}")),
            "backend.retries" if words[0] == "retries" => {
                expected.push(format!("retries = {last}"));
            }
            "server.name" if is_nginx => {
                expected.push(format!("address = \"{}\"", words[1]));
            }
            "server.name" if words[0] == "server" => {
                expected.push(format!("name = \"{}\"", words[1]));
                let host = words[2].rsplit_once(':').map_or(words[2], |(host, _)| host);
                let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
                expected.push(format!("address = \"{host}"));
            }
            "frontend.bind" if words[0] == "bind" || words[0] == "listen" => {
                // `listen NAME ADDRESS` of HAProxy, `listen ADDRESS` of nginx.
                let is_section = verdict.remark.starts_with("listen address on the section line");
                let word = words[if is_section { 2 } else { 1 }];
                let port = word.rsplit(':').next().unwrap_or_default().trim_start_matches("unix@");
                let is_included = verdict.text.contains("127.0.0.1:16444");
                expected.extend((!is_included).then(|| format!("{port}\"")));
            }
            "backend.health.rise" => {
                expected.extend(after("rise").map(|it| format!("rise = {it}")));
            }
            "backend.health.fall" => {
                expected.extend(after("fall").map(|it| format!("fall = {it}")));
            }
            "backend.health.port" => {
                expected.extend(after("port").map(|it| format!("port = {it}")));
            }
            "server.sessions_max" => {
                expected.extend(after("maxconn").map(|it| format!("sessions_max = {it}")));
            }
            "backend.health.check" if verdict.remark.contains("no server has check") => {
                expected.push("check = \"off\"".to_owned());
            }
            "frontend.sni" if verdict.remark.contains('=') => expected.push(verdict.remark.clone()),
            "frontend.rate.sessions" => {
                expected.push(format!("rate.sessions = \"{}\"", verdict.remark));
            }
            _ => {}
        }
    }
    expected
}
