//! `tests/README.md` names a test for each of the 100 faults that evenkeel is tested against, or
//! says why there is none. Every test that it names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{cells, matrix};

/// The number of faults in the list.
const FAULTS: usize = 100;

/// Whether the file, from the root of the project, has this function.
pub(crate) fn has_function(file: &str, function: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).unwrap_or_default();
    text.contains(&format!("fn {function}("))
}

/// A row of the lists.
#[derive(Debug)]
struct Row {
    /// The number of a fault, or the name of a limit.
    label: String,
    /// Words in backquotes in the last column.
    names: Vec<String>,
    /// The last column without them.
    rest: String,
}

/// The rows `| 1 | fault | tests |` and `| limit | beyond it | tests |` of a text.
fn rows(text: &str) -> Vec<Row> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let row = |cells: &str| {
        let (label, rest) = cells.split_once(" | ")?;
        let (_, tests) = rest.rsplit_once(" | ")?;
        let parts: Vec<&str> = tests.split('`').collect();
        let names = parts.iter().skip(1).step_by(2).map(|name| (*name).to_owned()).collect();
        let rest = parts.iter().step_by(2).copied().collect();
        Some(Row { label: label.to_owned(), names, rest })
    };
    cells.filter_map(row).collect()
}

/// What is wrong with the lists.
fn problems(text: &str) -> Vec<String> {
    let rows = rows(text);
    let mut found = Vec::new();
    for number in 1..=FAULTS {
        let label = number.to_string();
        let count = rows.iter().filter(|row| row.label == label).count();
        if count != 1 {
            found.push(format!("fault {number} has {count} rows"));
        }
    }
    let cells: BTreeSet<String> = cells::rows()
        .iter()
        .filter(|(_, cover)| matches!(cover, matrix::Cover::Run(_)))
        .map(|(cell, _)| cell.to_string())
        .collect();
    for Row { label, names, rest } in &rows {
        if ["#", "limit", "---"].contains(&label.as_str()) {
            continue;
        }
        let is_file = |name: &&String| name.ends_with(".rs");
        let mut file = None;
        for name in names {
            if is_file(&name) {
                file = Some(name);
            } else if name.contains('/') {
                if !cells.contains(name) {
                    found.push(format!("{label}: the matrix does not run {name}"));
                }
            } else if name.contains('_') && !file.is_some_and(|file| has_function(file, name)) {
                found.push(format!("{label}: {name} is not in {file:?}"));
            }
        }
        if names.is_empty() && !rest.starts_with("Not here: ") {
            found.push(format!("{label}: neither a test nor a reason"));
        }
    }
    found
}

/// A file of the project, by its path from the root.
fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_lists_of_faults_and_limits_name_tests_that_exist() {
    let problems = problems(&file("tests/README.md"));
    assert!(problems.is_empty(), "tests/README.md:\n  {}", problems.join("\n  "));
}

/// The keys of the reference that are limits, such as `backend.server.sessions_max`.
fn limits(reference: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut limits = BTreeSet::new();
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            section = name.replace(".NAME", "");
        }
        let row = line.strip_prefix("| ").and_then(|row| row.split_once(" | "));
        if let Some((key, _)) = row
            && (key.ends_with("_max") || key.ends_with("timeout"))
        {
            limits.insert(format!("{section}.{key}"));
        }
    }
    limits
}

#[test]
fn the_list_of_limits_has_every_key_that_is_a_limit() {
    let listed = rows(&file("tests/README.md"));
    let limits = limits(&file("docs/configuration.md"));
    assert!(limits.len() > 10, "{limits:?}");
    let is_listed = |key: &String| listed.iter().any(|row| row.label == *key);
    let missing: Vec<_> = limits.iter().filter(|key| !is_listed(key)).collect();
    assert!(missing.is_empty(), "tests/README.md has no test beyond {missing:?}");
}

#[test]
fn a_missing_fault_and_a_wrong_name_are_found() {
    let list = |change: &dyn Fn(usize) -> Option<String>| -> String {
        let row = |number: usize| {
            let tests = change(number)?;
            Some(format!("| {number} | what happens | {tests} |\n"))
        };
        (1..=FAULTS).filter_map(row).collect()
    };
    let good = "`tests/faults/catalogue.rs`: `a_missing_fault_and_a_wrong_name_are_found`";
    let changed = |number: usize, tests: Option<&str>| {
        problems(&list(&|own| {
            let tests = if own == number { tests } else { Some(good) };
            tests.map(ToOwned::to_owned)
        }))
    };
    assert_eq!(changed(0, None), Vec::<String>::new());
    assert_eq!(changed(7, None), ["fault 7 has 0 rows"]);
    assert_eq!(changed(8, Some("Not here: no such kernel.")), Vec::<String>::new());
    assert_eq!(changed(8, Some("later")).len(), 1);
    assert_eq!(changed(9, Some("`tests/faults/catalogue.rs`: `no_such_test`")).len(), 1);
    assert_eq!(changed(9, Some("`relaying/client/RST`")), Vec::<String>::new());
    assert_eq!(changed(9, Some("`relaying/network/garbage`")).len(), 1);
}
