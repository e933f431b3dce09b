//! Reads the project as text, for the house rules.

use std::collections::BTreeSet;
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
    pub(crate) fn plane(&self) -> &str {
        self.module.split("::").next().unwrap()
    }

    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }

    /// The first sentence that the file says of itself.
    pub(crate) fn introduction(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//! "));
        let text = lines.collect::<Vec<_>>().join(" ");
        text.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
    }

    /// The lines that end in the program, numbered from 0: unit tests stand last, and don't.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..if self.only_tests { 0 } else { tests }].lines().enumerate()
    }

    /// The same, without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.shipped().map(|(index, line)| (index, line.trim()));
        lines.filter(|(_, line)| !line.starts_with("//"))
    }

    /// Modules of the crate that the code names, its own included.
    pub(crate) fn uses(&self, modules: &BTreeSet<&str>) -> BTreeSet<String> {
        let code: String = self.code().flat_map(|(_, line)| [line, " "]).collect();
        let mut paths = Vec::new();
        for (start, keyword) in path_starts(&code) {
            let mut rest = &code[start + keyword.len() + 2..];
            let mut prefix = Vec::new();
            if keyword == "super" {
                prefix.clone_from(&self.full);
                prefix.pop();
                while let Some(further) = rest.strip_prefix("super::") {
                    prefix.pop();
                    rest = further;
                }
            }
            branches(rest, &prefix, &mut paths);
        }
        paths.iter().filter_map(|path| module_of(path, modules)).collect()
    }
}

/// A file of the project, of whatever kind.
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

    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the program.
pub(crate) fn sources() -> Vec<Source> {
    let files = texts().into_iter();
    let files = files.filter(|file| file.path.starts_with("src/") && file.has_extension("rs"));
    let mut sources: Vec<Source> = files.map(|Text { path, text }| source(path, text)).collect();
    let tests: BTreeSet<Vec<String>> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.only_tests = tests.contains(&source.full);
    }
    assert!(sources.iter().any(|source| source.module == "main"), "src/ was not found");
    sources
}

/// All files that people wrote: not what is built, not what Git keeps.
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

fn source(path: String, text: String) -> Source {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let full: Vec<String> =
        inner.trim_end_matches("/mod").split('/').map(ToOwned::to_owned).collect();
    let depth = if PLANES.contains(&&*full[0]) { 2 } else { 1 };
    let module = full[..full.len().min(depth)].join("::");
    Source { path, module, full, only_tests: false, text }
}

/// The files that a file declares for its tests.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let declared = source.text.split("#[cfg(test)]\n").skip(1).filter_map(|after| {
        let (_, name) = after.lines().next()?.strip_suffix(';')?.split_once("mod ")?;
        let folder = if source.full == ["lib"] { &[] } else { &*source.full };
        Some([folder, &[name.to_owned()]].concat())
    });
    declared.collect()
}

/// Where a path from this crate begins, and with which word.
fn path_starts(code: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for keyword in ["crate", "super", "evenkeel"] {
        for (start, _) in code.match_indices(keyword) {
            let before = code[..start].chars().next_back();
            let inside = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            if !inside && code[start + keyword.len()..].starts_with("::") {
                found.push((start, keyword));
            }
        }
    }
    found
}

/// Follows a path, and each branch of its braces, to the end. Returns what comes after it.
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

/// The module that a path leads into.
fn module_of(path: &[String], modules: &BTreeSet<&str>) -> Option<String> {
    let deep = path.get(..2).map(|two| two.join("::"));
    let deep = deep.filter(|module| modules.contains(module.as_str()));
    deep.or_else(|| path.first().filter(|module| modules.contains(module.as_str())).cloned())
}
