//! Reads the source of the project for the rules in `tests/tidy.rs`.

pub(crate) mod dependencies;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of `src` whose files are modules of their own. Other folders are one module each.
pub(crate) const PLANES: &[&str] = &["control", "observe", "proxy", "shared", "sys"];

/// A file of the program.
pub(crate) struct Source {
    /// From the root of the project.
    pub(crate) path: String,
    /// `plane::module`, or `module` outside the planes.
    pub(crate) module: String,
    /// `module` and all below it.
    full: Vec<String>,
    /// Its module is declared under `#[cfg(test)]`.
    pub(crate) only_tests: bool,
    pub(crate) text: String,
}

impl Source {
    /// `path` from the root of the project, in a folder of [`crate::CRATES`].
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (path, text) = (path.to_owned(), text.to_owned());
        let folder = crate::CRATES.iter().find(|folder| path.starts_with(&format!("{folder}/")));
        let inner = path.strip_prefix(folder.unwrap()).unwrap().trim_end_matches(".rs");
        let full: Vec<String> =
            inner.trim_end_matches("/mod").split('/').skip(1).map(ToOwned::to_owned).collect();
        let in_plane = full.first().is_some_and(|room| PLANES.contains(&room.as_str()));
        let depth = if in_plane { 2 } else { 1 };
        let module = full[..full.len().min(depth)].join("::");
        Self { path, module, full, only_tests: false, text }
    }

    /// The folder of `src` that it is in, or its own name.
    pub(crate) fn room(&self) -> &str {
        room_of(&self.full).unwrap()
    }

    pub(crate) fn position(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }

    /// The first sentence of its description.
    pub(crate) fn introduction(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//! "));
        let text = lines.collect::<Vec<_>>().join(" ");
        text.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
    }

    /// The lines without unit tests, which are at the end, numbered from 0.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..if self.only_tests { 0 } else { tests }].lines().enumerate()
    }

    /// As `shipped`, without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.shipped().map(|(index, line)| (index, line.trim()));
        lines.filter(|(_, line)| !line.starts_with("//"))
    }

    /// Rooms of the crate that the file names, its unit tests included.
    pub(crate) fn rooms_used(&self) -> BTreeSet<String> {
        let code = self.text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let paths = self.paths(&code.flat_map(|line| [line, " "]).collect::<String>());
        paths.iter().filter_map(|path| room_of(path)).map(ToOwned::to_owned).collect()
    }

    /// Paths from the root of the crate that `code`, in this file, names.
    fn paths(&self, code: &str) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        for (start, keyword) in path_starts(code, &["crate", "evenkeel", "super", "self"]) {
            let mut rest = &code[start + keyword.len() + 2..];
            let mut prefix = Vec::new();
            if matches!(keyword, "super" | "self") {
                prefix.clone_from(&self.full);
            }
            // In a unit test, `super::*` is the file itself.
            if keyword == "super" && rest.starts_with('*') {
                continue;
            }
            if keyword == "super" {
                prefix.pop();
                while let Some(further) = rest.strip_prefix("super::") {
                    prefix.pop();
                    rest = further;
                }
            }
            branches(rest, &prefix, &mut paths);
        }
        // A path to a module that the file declares begins with the name of the module.
        let declared: Vec<&str> = code.split("mod ").skip(1).filter_map(child).collect();
        let folder = if self.is_root() { &[] } else { &*self.full };
        for (start, name) in path_starts(code, &declared) {
            let prefix = [folder, &[name.to_owned()]].concat();
            branches(&code[start + name.len() + 2..], &prefix, &mut paths);
        }
        paths
    }

    fn is_root(&self) -> bool {
        self.full.is_empty() || self.full == ["lib"] || self.full == ["main"]
    }
}

fn room_of(path: &[String]) -> Option<&str> {
    path.first().map(String::as_str)
}

/// Cycles of imports: the files of each, in the order of their names. Unit tests are left out.
pub(crate) fn cycles(sources: &[Source]) -> Vec<Vec<String>> {
    let by_module: BTreeMap<&[String], &str> =
        sources.iter().map(|source| (&*source.full, &*source.path)).collect();
    let uses = |source: &Source| -> BTreeSet<&str> {
        let code: String = source.code().flat_map(|(_, line)| [line, " "]).collect();
        let file = |path: &Vec<String>| {
            let mut prefixes = (1..=path.len()).rev().map(|length| &path[..length]);
            prefixes.find_map(|prefix| by_module.get(prefix).copied())
        };
        source.paths(&code).iter().filter_map(file).filter(|used| *used != source.path).collect()
    };
    let graph: BTreeMap<&str, BTreeSet<&str>> =
        sources.iter().map(|source| (&*source.path, uses(source))).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (*file, reach(&graph, file))).collect();
    let cycle = |file: &str| -> Vec<String> {
        let both = reached[file].iter().filter(|other| reached[**other].contains(file));
        both.map(|other| (*other).to_owned()).collect()
    };
    let cycles: BTreeSet<Vec<String>> = graph.keys().map(|file| cycle(file)).collect();
    cycles.into_iter().filter(|files| !files.is_empty()).collect()
}

/// All files that a file imports, directly or indirectly.
fn reach<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut found, mut pending) = (BTreeSet::new(), vec![from]);
    while let Some(file) = pending.pop() {
        pending.extend(graph[file].iter().filter(|used| found.insert(**used)));
    }
    found
}

/// The name of a declared module that is a file of its own.
fn child(after_mod: &str) -> Option<&str> {
    let end = after_mod.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    after_mod[end..].starts_with(';').then_some(&after_mod[..end])
}

/// A file of the project of any kind.
pub(crate) struct Text {
    /// From the root of the project.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Text {
    pub(crate) fn read(path: &str) -> Self {
        let bytes = fs::read(root().join(path)).unwrap();
        Self { path: path.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    pub(crate) fn position(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of `src`.
pub(crate) fn sources() -> Vec<Source> {
    let sources = sources_of("src");
    assert!(sources.iter().any(|source| source.module == "main"), "src/ was not found");
    sources
}

/// All files of a folder of [`crate::CRATES`].
pub(crate) fn sources_of(folder: &str) -> Vec<Source> {
    let inside = format!("{folder}/");
    let files = texts().into_iter();
    let files = files.filter(|file| file.path.starts_with(&inside) && file.has_extension("rs"));
    let mut sources: Vec<Source> =
        files.map(|Text { path, text }| Source::new(&path, &text)).collect();
    let tests: BTreeSet<Vec<String>> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.only_tests = tests.iter().any(|module| source.full.starts_with(module));
    }
    sources
}

/// All files of the project, without build results and the files of Git.
pub(crate) fn texts() -> Vec<Text> {
    let (mut found, mut pending) = (Vec::new(), vec![root()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_symlink() || matches!(name, ".git" | "target" | "Cargo.lock") {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(Text::read(path.strip_prefix(root()).unwrap().to_str().unwrap()));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The files that a file declares for its tests.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let declared = source.text.split("#[cfg(test)]\n").skip(1).filter_map(|after| {
        let (_, name) = after.lines().next()?.strip_suffix(';')?.split_once("mod ")?;
        let folder = if source.is_root() { &[] } else { &*source.full };
        Some([folder, &[name.to_owned()]].concat())
    });
    declared.collect()
}

/// The positions of paths that begin with one of `words`, each with the word.
fn path_starts<'a>(code: &str, words: &[&'a str]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for word in words {
        for (start, _) in code.match_indices(word) {
            let before = code[..start].chars().next_back();
            let inside = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            if !inside && code[start + word.len()..].starts_with("::") {
                found.push((start, *word));
            }
        }
    }
    found
}

/// Adds a path, or each path of a group in braces, to `found`. Returns the rest of the text.
fn branches<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        rest = group;
        loop {
            rest = branches(rest, prefix, found).trim_start();
            match rest.chars().next() {
                Some(',') => rest = &rest[1..],
                Some('}') => return &rest[1..],
                _ => return rest,
            }
        }
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let mut path = prefix.to_vec();
    if !word.is_empty() && word != "self" {
        path.push(word.to_owned());
    }
    if let Some(deeper) = after.strip_prefix("::") {
        return branches(deeper, &path, found);
    }
    found.push(path);
    let alias = after.trim_start().strip_prefix("as ");
    alias.map_or(after, |alias| alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
}
