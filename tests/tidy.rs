//! Rules of the project that the compiler does not check. They run with every `cargo test`, and
//! each reports every violation. `tests/house/mod.rs` reads the source for them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod house;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use house::{PLANES, Source, Text, dependencies, root, sources, texts};

/// The rooms of `src`, lowest row first: folders, and files beside them. A file imports from its
/// own room and from lower rows. The rooms of one row do not import each other.
const ROOMS: &[&[&str]] = &[
    &["terms"],
    &["sys"],
    &["config"],
    &["shared"],
    &["proxy", "control", "observe"],
    &["run", "demo", "convert"],
    &["doctor", "fuzzing"],
    &["cli"],
    &["lib", "main"],
];

/// Crates of more than one file, by folder: their imports have no cycles.
const CRATES: &[&str] = &[
    "src",
    "tests/blackbox",
    "tests/cluster",
    "tests/common",
    "tests/dashboard",
    "tests/faults",
    "tests/mixed_load",
    "tests/simulation",
    "tests/system",
];

/// Modules that get the time as an argument, so that a test controls it.
const PURE: &[&str] = &[
    "terms",
    "config",
    "control::health",
    "control::probe_schedule",
    "control::cluster",
    "proxy::accept",
    "proxy::close",
    "proxy::connect",
    "proxy::copy",
    "proxy::io",
    "proxy::preface",
    "proxy::pump",
    "proxy::queue",
    "proxy::relay",
    "proxy::session",
    "proxy::slots",
    "proxy::splice",
    "proxy::state",
    "proxy::timer_wheel",
    "proxy::user_data",
    "shared::counters",
    "shared::limit",
    "shared::phase",
    "shared::proxy_header",
    "shared::routes",
    "shared::schedule",
    "shared::state",
    "shared::table",
];

/// The limits of lines in a file: without unit tests at its end, and with them.
const LINES_MAX: [usize; 2] = [350, 450];

/// As in `rustfmt.toml`, which does not wrap comments and strings.
const COLUMNS_MAX: usize = 100;

#[test]
fn imports_point_down() {
    let sources = sources();
    none(upward_imports(&sources));
    for module in PURE {
        let exists = sources.iter().any(|source| source.module == *module);
        assert!(exists, "tests/tidy.rs names {module}, which does not exist");
    }
}

#[test]
fn an_import_of_one_plane_by_another_is_found() {
    for (path, text) in [
        ("src/observe/planted.rs", "use crate::control::health::Health;"),
        ("src/observe/planted/inner.rs", "use super::super::super::proxy::{self, worker};"),
        ("src/control/planted.rs", "use crate::{observe::{log, page}, terms};"),
        ("src/control/planted.rs", "fn f() { crate::observe::log::start_writer(); }"),
        ("src/control/planted.rs", "#[cfg(test)]\nmod tests {\n use crate::proxy::route;\n}"),
        ("src/proxy/planted.rs", "use crate::control::{\n    health::Health,\n};"),
        ("src/shared/planted.rs", "use crate::proxy::worker::Worker;"),
        ("src/planted/mod.rs", "//! A room without a row."),
    ] {
        let planted = Source::new(path, text);
        assert_eq!(upward_imports(&[planted]).len(), 1, "{path}: {text}");
    }
    let fine = "use crate::shared::table::Table;\nuse super::probe;\n// crate::proxy::worker";
    assert_eq!(upward_imports(&[Source::new("src/control/fine.rs", fine)]).len(), 0);
}

#[test]
fn imports_have_no_cycles() {
    none(CRATES.iter().flat_map(|folder| {
        let cycles = house::cycles(&house::sources_of(folder));
        cycles.into_iter().map(|files| files.join(" -> "))
    }));
}

#[test]
fn a_cycle_of_files_is_found() {
    let cycles = |files: &[(&str, &str)]| {
        let sources = files.iter().map(|(path, text)| Source::new(path, text));
        house::cycles(&sources.collect::<Vec<_>>())
    };
    let (a, b) = ("src/control/a.rs", "src/control/b.rs");
    let one = (a, "use crate::control::b::B;");
    assert_eq!(cycles(&[one, (b, "use super::a::{A, C};")]), [[a, b]]);
    assert_eq!(cycles(&[one, (b, "pub struct B;")]), Vec::<Vec<String>>::new());
    assert_eq!(cycles(&[one, (b, "#[cfg(test)]\nmod tests {\n use super::super::a;\n}")]).len(), 0);
    let (parent, child) = ("src/control/m/mod.rs", "src/control/m/child.rs");
    let declares = (parent, "mod child;\nuse child::Child;");
    assert_eq!(cycles(&[declares, (child, "use crate::control::m::Parent;")]), [[child, parent]]);
    assert_eq!(cycles(&[(parent, "mod child;"), (child, "use super::Parent;")]).len(), 0);
    let c = "src/sys/c.rs";
    let three = [one, (b, "use crate::sys::c;"), (c, "fn f() { crate::control::a::g(); }")];
    assert_eq!(cycles(&three), [[a, b, c]]);
}

#[test]
fn pure_modules_do_not_read_the_clock() {
    let sources = sources();
    let pure = sources.iter().filter(|source| PURE.contains(&source.module.as_str()));
    none(pure.flat_map(|source| {
        let reads_clock = |line: &str| line.contains("::now(") || line.contains(".elapsed()");
        source.code().filter(move |(_, line)| reads_clock(line)).map(|(at, _)| source.position(at))
    }));
}

#[test]
fn unsafe_lives_in_sys() {
    let sources = sources();
    let safe = sources.iter().filter(|source| source.room() != "sys");
    none(safe.flat_map(|source| {
        // Not "unsafe-inline", nor unsafe_code.
        let has = |line: &str| line.split_inclusive([' ', '(', '{']).any(is_unsafe);
        source.code().filter(move |(_, line)| has(line)).map(|(at, _)| source.position(at))
    }));
}

#[test]
fn files_of_src_are_not_too_long() {
    none(sources().iter().filter_map(|source| {
        let lines = [source.shipped().count(), source.text.lines().count()];
        let fits = lines.iter().zip(LINES_MAX).all(|(lines, max)| *lines <= max);
        (!fits).then(|| format!("{}: {lines:?} lines, without unit tests and with", source.path))
    }));
}

#[test]
fn files_begin_with_a_description_and_lines_are_not_too_long() {
    let texts = texts();
    let mut broken = Vec::new();
    for file in texts.iter().filter(|file| file.has_extension("rs")) {
        if !file.text.starts_with("//! ") {
            broken.push(format!("{}: does not begin with a description (//!)", file.path));
        }
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                broken.push(format!("{}: {columns} columns", file.position(index)));
            }
        }
    }
    none(broken);
}

#[test]
fn architecture_names_every_file_of_src() {
    let map = Text::read("ARCHITECTURE.md");
    let named: BTreeSet<&str> = names(&map.text).collect();
    let mut broken = Vec::new();
    for source in sources() {
        // A row may name the folder of a module, but not a plane.
        let folder = format!("src/{}/", source.module.replace("::", "/"));
        let by_folder = !PLANES.contains(&source.module.as_str()) && named.contains(&*folder);
        if !by_folder && !named.contains(&*source.path) {
            broken.push(format!("not named: | `{}` | {} |", source.path, source.introduction()));
        }
    }
    none(broken);
}

#[test]
fn documents_name_files_that_exist() {
    let folders = ["src/", "tests/", "bench/", "deploy/", "grafana/"];
    let mut broken = BTreeSet::new();
    for document in texts().iter().filter(|file| file.has_extension("md")) {
        let named = names(&document.text);
        let named = named.filter(|name| folders.iter().any(|folder| name.starts_with(folder)));
        let here = Path::new(&document.path).parent().unwrap();
        let linked = links(&document.text).map(|link| here.join(link));
        for path in named.map(PathBuf::from).chain(linked) {
            if !root().join(&path).exists() {
                broken.insert(format!("{}: {}", document.path, path.display()));
            }
        }
    }
    none(broken);
}

#[test]
fn metrics_on_the_dashboard_and_in_documents_exist() {
    let sources = sources();
    let exposed: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.module == "observe::exposition")
        .flat_map(|source| words(&source.text))
        .collect();
    let mut broken = BTreeSet::new();
    let documents = texts();
    for file in documents.iter().filter(|file| file.has_extension("md")) {
        for name in words(&file.text).filter(|word| word.starts_with("evenkeel_")) {
            broken.insert((file.path.clone(), name.to_owned()));
        }
    }
    for file in documents.iter().filter(|file| file.has_extension("json")) {
        let dashboard = serde_json::from_str(&file.text).unwrap();
        for name in queries(&dashboard).iter().flat_map(|query| words(query)) {
            if name.starts_with("evenkeel_") {
                broken.insert((file.path.clone(), name.to_owned()));
            }
        }
    }
    broken.retain(|(_, name)| {
        let parts = ["_bucket", "_sum", "_count"]; // of a histogram
        let whole = parts.iter().find_map(|part| name.strip_suffix(part));
        !exposed.contains(name.as_str()) && !whole.is_some_and(|whole| exposed.contains(whole))
    });
    none(broken.into_iter().map(|(path, name)| format!("{path}: {name}")));
}

#[test]
fn no_work_is_left_open_and_no_path_of_a_machine_is_named() {
    // In two parts each, so that this file is not a violation.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut broken = Vec::new();
    for file in texts() {
        for (index, line) in file.text.lines().enumerate() {
            let mark = words(line).find(|word| marks.contains(word));
            // A path of a machine, unless it is a folder of that name below another one.
            let path = paths.iter().find(|path| {
                line.match_indices(**path).any(|(start, _)| {
                    !line[..start].ends_with(|c: char| c.is_alphanumeric() || "_-.}".contains(c))
                })
            });
            if let Some(found) = mark.or_else(|| path.copied()) {
                broken.push(format!("{}: {found}", file.position(index)));
            }
        }
    }
    none(broken);
}

#[test]
fn skipped_tests_are_reported_on_standard_error() {
    let texts = texts();
    none(texts.iter().filter(|file| file.has_extension("rs")).flat_map(|file| {
        // The test harness captures the output of eprintln! in a test that passes.
        let hidden = concat!("eprintln!(\"ski", "pped");
        let lines = file.text.lines().enumerate().filter(move |(_, line)| line.contains(hidden));
        lines
            .map(|(index, _)| format!("{}: drop(writeln!(io::stderr(), ..))", file.position(index)))
    }));
}

#[test]
fn scripts_can_be_run_and_stop_at_the_first_failure() {
    let mut broken = Vec::new();
    for file in texts().iter().filter(|file| file.text.starts_with("#!")) {
        let mode = root().join(&file.path).metadata().unwrap().permissions().mode();
        if mode & 0o111 == 0 {
            broken.push(format!("{}: chmod +x", file.path));
        }
        if file.text.contains("bash\n") && !file.text.contains("\nset -euo pipefail\n") {
            broken.push(format!("{}: set -euo pipefail", file.path));
        }
    }
    none(broken);
}

#[test]
fn dependencies_follow_the_rules_of_deny_toml() {
    let (rules, packages) = (dependencies::Rules::read(), dependencies::packages());
    assert!(packages.len() > 50, "{} packages", packages.len());
    let wrong = [rules.licences(&packages), rules.duplicates(&packages)];
    none(wrong.into_iter().flatten().chain(dependencies::foreign(&packages)));
}

#[test]
fn a_dependency_that_breaks_a_rule_is_found() {
    let rules = dependencies::Rules {
        allowed: vec!["MIT".to_owned(), "Zlib".to_owned()],
        skipped: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "0.1".to_owned())],
    };
    for (expression, is_allowed) in [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("GPL-3.0 OR MIT AND Zlib", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", false),
        ("MIT WITH exception", false),
        ("MIT Zlib", false),
        ("", false),
    ] {
        assert_eq!(rules.allows(expression), is_allowed, "{expression}");
    }
    let package = |name: &str, version: &str| dependencies::Package {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: "MIT".to_owned(),
        source: String::new(),
    };
    let fine = [package("a", "1.0.0"), package("a", "2.0.0"), package("b", "0.1.7")];
    assert_eq!(rules.duplicates(&fine), Vec::<String>::new());
    assert_eq!(rules.duplicates(&fine[..2]), ["b 0.1 is not used"]);
    let third = [&fine[..], &[package("a", "10.0.0")]].concat();
    assert_eq!(rules.duplicates(&third), ["a: 2.0.0, 10.0.0"]);
    let foreign = dependencies::Package { source: "git+https://x".to_owned(), ..fine[0].clone() };
    assert_eq!(dependencies::foreign(&[foreign]), ["a: git+https://x"]);
}

/// Fails with a list of all violations.
fn none(broken: impl IntoIterator<Item = String>) {
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "{} times:\n  {}", broken.len(), broken.join("\n  "));
}

/// Imports, by unit tests too, of a room that is not below the file's own.
fn upward_imports(sources: &[Source]) -> BTreeSet<String> {
    let mut broken = BTreeSet::new();
    for source in sources {
        let Some(own) = row(source.room()) else {
            broken.insert(format!("{}: {} has no row in ROOMS", source.path, source.room()));
            continue;
        };
        for used in source.rooms_used() {
            if used != source.room() && row(&used).is_some_and(|row| row >= own) {
                broken.insert(format!("{} uses {used}, which is not below it", source.path));
            }
        }
    }
    broken
}

fn is_unsafe(word: &str) -> bool {
    word.trim_end_matches([' ', '(', '{']) == "unsafe"
}

fn row(room: &str) -> Option<usize> {
    ROOMS.iter().position(|row| row.contains(&room))
}

/// Identifiers and numbers.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Names of files and folders, as a document writes them.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let outside = |c: char| !c.is_alphanumeric() && !matches!(c, '/' | '.' | '_' | '-');
    text.split(outside).map(|name| name.trim_end_matches('.')).filter(|name| name.contains('/'))
}

/// Targets of Markdown links that point into the project.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// The queries of a dashboard.
fn queries(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Array(items) => items.iter().flat_map(queries).collect(),
        serde_json::Value::Object(fields) => {
            let each = fields.iter().flat_map(|(key, value)| match value.as_str() {
                Some(text) if matches!(&**key, "expr" | "query" | "definition") => {
                    vec![text.to_owned()]
                }
                _ => queries(value),
            });
            each.collect()
        }
        _ => Vec::new(),
    }
}
