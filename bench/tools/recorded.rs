//! Results of earlier runs, and what has fallen since.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::Value;

use crate::report::{Report, Target};
use crate::subject::Subject;
use crate::targets::memory_to_haproxy;

/// What may be left of a ratio that was recorded once.
const FALL: f64 = 0.8;

/// Results that were recorded on such a machine. What a byte costs to copy, and so the ratio of
/// bulk to who copies, is the processor's: 3.5 on one and 4.4 on another, of the same program.
pub(crate) struct Recorded(Vec<Value>);

impl Recorded {
    /// Reads the results in `files`.
    ///
    /// # Errors
    /// A file cannot be read, or is no result.
    pub(crate) fn read(files: &[PathBuf], cpu: &str) -> io::Result<Self> {
        let results = files.iter().map(|file| {
            let result = fs::read_to_string(file)
                .and_then(|text| serde_json::from_str(&text).map_err(io::Error::from));
            result.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", file.display()))
            })
        });
        Ok(Self::of(results.collect::<io::Result<_>>()?, cpu))
    }

    /// Those of a processor by the name of `cpu`; if there are none, all.
    fn of(mut results: Vec<Value>, cpu: &str) -> Self {
        let is_alike = |result: &Value| result["machine"]["cpu"] == cpu;
        if results.iter().any(is_alike) {
            results.retain(is_alike);
        }
        Self(results)
    }

    fn least(&self, figure: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
        self.0.iter().filter_map(figure).min_by(f64::total_cmp)
    }

    fn most(&self, figure: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
        self.0.iter().filter_map(figure).max_by(f64::total_cmp)
    }
}

/// A median in one of the lists of a result.
fn median_of(
    result: &Value,
    list: &str,
    work: &str,
    subject: Subject,
    figure: &str,
) -> Option<f64> {
    let is_it = |row: &&Value| {
        row["subject"] == subject.name() && (row["work"].is_null() || row["work"] == work)
    };
    result[list].as_array()?.iter().find(is_it)?[figure]["median"].as_f64()
}

/// The same, as a part of plain `HAProxy`'s.
fn part_of(result: &Value, list: &str, work: &str, figure: &str) -> Option<f64> {
    let of = |subject| median_of(result, list, work, subject, figure);
    Some(of(Subject::Evenkeel)? / of(Subject::Haproxy)?)
}

/// What has fallen by more than a fifth, to `HAProxy`, since the weakest of the results.
pub(crate) fn not_fallen(report: &Report, recorded: &Recorded) -> Vec<Target> {
    let own = Subject::Evenkeel;
    let mut targets = Vec::new();
    for row in report.rows.iter().filter(|row| row.subject == own.name()) {
        let before = recorded.least(|result| median_of(result, "rows", &row.work, own, "ratio"));
        let reached = row.ratio.map(|ratio| ratio.median);
        targets.extend(reached.zip(before).map(|(reached, before)| {
            let what = format!("x HAProxy, {before:.2} when it was recorded");
            Target::at_least(&row.work, &what, reached, before * FALL)
        }));
    }
    // Of latencies only the median repeats well enough in short turns.
    for row in report.latencies.iter().filter(|row| row.subject == own.name()) {
        let peer = Subject::Haproxy.name();
        let now = report.latencies.iter().find(|it| it.work == row.work && it.subject == peer);
        let reached = now.map(|peer| row.p50.median / peer.p50.median);
        let before = recorded.most(|result| part_of(result, "latencies", &row.work, "p50"));
        targets.extend(reached.zip(before).map(|(reached, before)| {
            let what = format!("x the p50 of HAProxy, {before:.2} when it was recorded");
            Target::at_most(&row.work, &what, reached, before / FALL)
        }));
    }
    let before = recorded.most(|result| part_of(result, "idle", "", "session"));
    targets.extend(memory_to_haproxy(report).zip(before).map(|(reached, before)| {
        let what = format!("x HAProxy's user memory a session, {before:.2} when recorded");
        Target::at_most("idle", &what, reached, before / FALL)
    }));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(cpu: &str, ratio: f64) -> Value {
        let row = serde_json::json!({
            "work": "bulk", "subject": "evenkeel", "ratio": { "median": ratio },
        });
        serde_json::json!({ "machine": { "cpu": cpu }, "rows": [row] })
    }

    #[test]
    fn a_machine_is_held_to_what_its_like_has_recorded_and_another_to_the_weakest() {
        let asked = |cpu: &str| {
            let results = vec![result("slow", 4.4), result("fast", 3.5), result("slow", 4.2)];
            let recorded = Recorded::of(results, cpu);
            recorded.least(|result| median_of(result, "rows", "bulk", Subject::Evenkeel, "ratio"))
        };
        assert_eq!(asked("slow"), Some(4.2));
        assert_eq!(asked("fast"), Some(3.5));
        assert_eq!(asked("new"), Some(3.5));
    }
}
