//! The fault matrix: every fault at every step of a connection, as data. `matrix` says what the
//! cells are, `cells` what happens in each, `words` and `scene` how a script is played, `ledger`
//! what must be left of it. `canary` proves that faults are injected and that a wrong outcome is
//! found.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../common/mod.rs"]
mod common;

mod matrix;
mod cells;
mod run;
mod scene;
mod words;
mod ledger;
mod world;
mod peer;
mod proxy;
mod network;
mod canary;
mod catalogue;
mod beside;

use std::collections::BTreeMap;
use std::io::Write;

use matrix::{Cell, Cover, Fault, Step, Verdict};

#[test]
fn every_fault_at_every_step_ends_as_the_matrix_says() {
    let rows = cells::rows();
    let verdicts = run::all(&rows);
    // Directly: the test harness captures the output of macros in a test that passes.
    let shown = matrix::table(&rows, &verdicts);
    drop(writeln!(std::io::stderr(), "\n{shown}"));
    let holes = matrix::holes(&rows);
    assert!(holes.is_empty(), "holes in the matrix: {holes:#?}");
    let failed: Vec<String> =
        verdicts.values().flat_map(|verdict| verdict.failed.iter().cloned()).collect();
    assert!(failed.is_empty(), "{} failed:\n  {}", failed.len(), failed.join("\n  "));
}

#[test]
fn a_cell_without_a_row_or_with_two_is_found_and_shown() {
    let mut rows = cells::rows();
    assert_eq!(rows.len(), Step::ALL.len() * Fault::all().len());
    assert_eq!(matrix::holes(&rows), Vec::<String>::new());
    let (missing, cover) = rows.remove(100);
    assert_eq!(matrix::holes(&rows), [format!("{missing} has 0 rows")]);
    assert!(matrix::table(&rows, &BTreeMap::new()).contains("HOLE"));
    rows.push((missing, cover));
    rows.push((missing, Cover::Never("twice")));
    assert_eq!(matrix::holes(&rows), [format!("{missing} has 2 rows")]);
    rows.pop();
    rows.pop();
    rows.push((missing, Cover::Run(&[])));
    assert_eq!(matrix::holes(&rows), [format!("{missing} has an empty row")]);
}

#[test]
fn a_cell_that_a_test_elsewhere_covers_names_a_test_that_exists() {
    for (cell, cover) in cells::rows() {
        if let Cover::Elsewhere(file, function) = cover {
            assert!(catalogue::has_function(file, function), "{cell}: {file}: {function}");
        }
    }
}

#[test]
fn a_failed_and_a_skipped_cell_are_shown_as_such() {
    let rows = cells::rows();
    let run = rows.iter().filter(|(_, cover)| matches!(cover, Cover::Run(_)));
    let cells: Vec<Cell> = run.map(|(cell, _)| *cell).take(2).collect();
    let failed = Verdict { failed: vec!["planted".to_owned()], ..Verdict::default() };
    let skipped = Verdict { skipped: 1, ..Verdict::default() };
    let verdicts = BTreeMap::from([(cells[0], failed), (cells[1], skipped)]);
    let shown = matrix::table(&rows, &verdicts);
    let marks = |mark: &str| shown.matches(&format!("{mark}  ")).count();
    assert_eq!((marks("FAIL"), marks("skip")), (1, 1), "{shown}");
    assert!(!shown.contains("HOLE  "), "{shown}");
}
