//! What is wrong with a configuration: collected with its place, sorted, and printed a line each.

use std::cell::RefCell;
use std::fmt;

use super::keys::{instead_of, is_key};
use crate::control::config::Place;

/// Problems that are printed; the rest is counted. More than a screen helps nobody.
const SHOWN_MAX: usize = 100;

/// Bytes between two marks of a [`Sink`].
const MARK: usize = 1024;

/// One problem: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; line 0 when it is of the whole file or of the command line.
    pub place: Place,
    /// "what is wrong; what to do"
    pub text: String,
}

/// Every problem of a configuration, in the order of the file; at least one.
///
/// Displays as lines `FILE:LINE:COL: what is wrong; what to do`, without a newline at the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    name: String,
    found: Vec<Problem>,
}

impl Problems {
    /// One problem of the file `name`.
    pub(super) fn one(name: &str, place: Place, text: String) -> Self {
        Self { name: name.to_owned(), found: vec![Problem { place, text }] }
    }

    /// Each problem, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    /// The lines of the display, one a problem, for a log that takes lines.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let shown = self.found.iter().take(SHOWN_MAX).map(|problem| self.line(problem));
        let more = self.found.len().saturating_sub(SHOWN_MAX);
        let rest = (more > 0).then(|| format!("{}: and {more} problems more", self.name));
        shown.chain(rest)
    }

    fn line(&self, problem: &Problem) -> String {
        let Problem { place: Place { line, column }, text } = problem;
        match (self.name.as_str(), *line) {
            ("", _) => text.clone(),
            (name, 0) => format!("{name}: {text}"),
            (name, line) => format!("{name}:{line}:{column}: {text}"),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{line}")?;
        }
        Ok(())
    }
}

/// Takes problems while a configuration is walked, and knows lines and columns.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    name: &'a str,
    text: &'a str,
    /// The offset of the start of each line.
    lines: Vec<usize>,
    /// How many characters begin before each [`MARK`]th byte: a file may be one long line.
    marks: Vec<usize>,
    found: RefCell<Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    problem: Problem,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The text is not TOML here.
    Syntax,
    /// Something is not there. It may be where a syntax error hides it.
    Missing,
    /// A key or a value that is wrong in itself.
    Wrong,
}

impl<'a> Sink<'a> {
    /// For `text`, which problems call `name`; an empty name is the command line.
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        let mut marks = vec![0];
        for (index, block) in text.as_bytes().chunks(MARK).enumerate() {
            marks.push(marks[index] + characters(block));
        }
        Self { name, text, lines, marks, found: RefCell::new(Vec::new()) }
    }

    /// Line and column of an offset in bytes.
    pub(super) fn place(&self, offset: usize) -> Place {
        if self.name.is_empty() {
            return Place::default();
        }
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let column = self.characters_before(offset) - self.characters_before(start);
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Place { line: count(line), column: count(column + 1) }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let mark = (offset / MARK).min(self.marks.len() - 1);
        let rest = self.text.as_bytes().get(mark * MARK..offset).unwrap_or_default();
        self.marks[mark] + characters(rest)
    }

    /// Whether there are more problems than are shown: then no effort is made for the next.
    pub(super) fn is_crowded(&self) -> bool {
        self.found.borrow().len() > SHOWN_MAX
    }

    /// A key or a value is wrong: "what is wrong; what to do".
    pub(super) fn wrong(&self, offset: usize, text: impl Into<String>) {
        self.push(self.place(offset), text.into(), Kind::Wrong);
    }

    /// As [`Sink::wrong`], for what has kept its place.
    pub(super) fn wrong_at(&self, place: Place, text: impl Into<String>) {
        self.push(place, text.into(), Kind::Wrong);
    }

    /// Something that must be there is not.
    pub(super) fn missing(&self, offset: usize, text: impl Into<String>) {
        self.push(self.place(offset), text.into(), Kind::Missing);
    }

    /// The TOML parser's word.
    pub(super) fn syntax(&self, offset: usize, message: &str) {
        let place = self.place(offset);
        let message = message.trim().trim_end_matches('.');
        let text = if message.contains("duplicate") {
            match self.server_header(place.line) {
                Some(path) => format!("[{path}] is there already; write each server as [[{path}]]"),
                None => format!("{message}; keep one of them"),
            }
        } else if message.contains("recurs") {
            format!("{message}; no configuration is nested that deep")
        } else if let Some(remedy) = haproxys(self.line(place.line)) {
            format!("not TOML, but as HAProxy has it; {remedy}")
        } else {
            format!("not TOML: {message}; look for a missing value, quote, bracket or =")
        };
        self.push(place, text, Kind::Syntax);
    }

    /// A line, without leading blanks.
    fn line(&self, line: u32) -> &str {
        let line = line as usize;
        let start = line.checked_sub(1).and_then(|before| self.lines.get(before));
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        start.and_then(|start| self.text.get(*start..end)).unwrap_or_default().trim_start()
    }

    /// Of a line that is `[backend.NAME.server]`, in single brackets, what is in them.
    fn server_header(&self, line: u32) -> Option<&str> {
        let path = self.line(line).strip_prefix('[').and_then(|rest| rest.split(']').next());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let path = path.filter(|path| path.starts_with("backend.") && path.ends_with(".server"))?;
        path.chars().all(is_plain).then_some(path)
    }

    fn push(&self, place: Place, text: String, kind: Kind) {
        self.found.borrow_mut().push(Found { problem: Problem { place, text }, kind });
    }

    /// Nothing was found.
    ///
    /// # Errors
    /// All that was found. Beside syntax errors, what they may have caused is left out.
    pub(super) fn finish(self) -> Result<(), Problems> {
        let mut found = self.found.take();
        if found.is_empty() {
            return Ok(());
        }
        let is_broken = found.iter().any(|found| found.kind == Kind::Syntax);
        found.retain(|found| found.kind != Kind::Missing || !is_broken);
        found.sort_by_key(|found| (found.problem.place.line, found.problem.place.column));
        let found = found.into_iter().map(|found| found.problem).collect();
        Err(Problems { name: self.name.to_owned(), found })
    }
}

/// What to do about a line of HAProxy's configuration; none for one that is none.
fn haproxys(line: &str) -> Option<&'static str> {
    let line = line.split('#').next()?;
    let mut words = line.split_whitespace();
    let (word, second) = (words.next()?, words.next());
    // A header, or a key whose "=" was forgotten.
    if line.starts_with('[') || line.contains('=') || second.is_some_and(|it| it.starts_with('"')) {
        return None;
    }
    let Some(second) = second else {
        return match word {
            "global" => Some("write [global]"),
            "defaults" | "daemon" => instead_of(word),
            _ => None,
        };
    };
    match word {
        "frontend" => Some("write [frontend.NAME]"),
        "backend" => Some("write [backend.NAME]"),
        "server" => Some(
            "write [[backend.NAME.server]], and below it its name and address; it is checked \
             unless [backend.NAME.health] says check = \"off\"",
        ),
        "bind" => Some("write bind = [\"0.0.0.0:PORT\", \"[::]:PORT\"]"),
        "balance" if second == "roundrobin" => Some("write balance = \"roundrobin\""),
        "balance" => Some("write balance = \"roundrobin\"; no other is supported yet"),
        "log" => Some("remove it: records go to standard output; [observe.log] has their format"),
        _ => instead_of(&format!("{word}_{second}"))
            .or_else(|| instead_of(word))
            .or_else(|| is_key(word).then_some("write it as KEY = VALUE")),
    }
}

/// How many characters of UTF-8 begin in `bytes`.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// A word of the file as a message shows it: in quotes, control characters escaped, not endless.
pub(super) fn shown(word: &str) -> String {
    const SHOWN: usize = 60;
    let mut start: String = word.chars().take(SHOWN).collect();
    if start.len() < word.len() {
        start.push_str("...");
    }
    format!("{start:?}")
}

/// The one of `words` that `word` was meant to be, if any is near enough.
pub(super) fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // Long words are compared by their start only: the distance costs the product of both.
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    words
        .map(|known| (strsim::damerau_levenshtein(&word, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
