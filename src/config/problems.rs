//! What is wrong with a configuration: collected with line and column, sorted, one line each.

use std::cell::RefCell;
use std::fmt;

use toml::de::DeValue;

/// Problems that are printed; the rest is counted.
const SHOWN_MAX: usize = 100;

/// Bytes between two marks of a [`Sink`].
const MARK: usize = 1024;

/// A position in the file. An error that shows later (a port in use, an unknown name) names it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// From 1; 0: not from a file.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// One problem: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; line 0: the whole file, or the command line.
    pub span: Span,
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
    pub(super) fn one(name: &str, span: Span, text: String) -> Self {
        Self { name: name.to_owned(), found: vec![Problem { span, text }] }
    }

    /// Each problem, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    /// The lines of the display, one for each problem.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let shown = self.found.iter().take(SHOWN_MAX).map(|problem| self.line(problem));
        let more = self.found.len().saturating_sub(SHOWN_MAX);
        let rest = (more > 0).then(|| format!("{}: and {more} more problems", self.name));
        shown.chain(rest)
    }

    fn line(&self, problem: &Problem) -> String {
        let Problem { span: Span { line, column }, text } = problem;
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

/// Collects problems while a configuration is read, and turns offsets into lines and columns.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    name: &'a str,
    text: &'a str,
    /// The offset of the start of each line.
    lines: Vec<usize>,
    /// How many characters begin before each [`MARK`]th byte: a file may be one long line.
    marks: Vec<usize>,
    found: RefCell<Vec<Problem>>,
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
    pub(super) fn span(&self, offset: usize) -> Span {
        if self.name.is_empty() {
            return Span::default();
        }
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let column = self.characters_before(offset) - self.characters_before(start);
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Span { line: count(line), column: count(column + 1) }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let mark = (offset / MARK).min(self.marks.len() - 1);
        let rest = self.text.as_bytes().get(mark * MARK..offset).unwrap_or_default();
        self.marks[mark] + characters(rest)
    }

    /// Whether there are more problems than are shown: no suggestions are searched for any more.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().len() > SHOWN_MAX
    }

    /// A problem at an offset: "what is wrong; what to do".
    pub(super) fn push(&self, offset: usize, text: impl Into<String>) {
        self.push_at(self.span(offset), text);
    }

    /// A problem at a position. A control character, which a terminal would interpret, is left out:
    /// messages repeat words of the file.
    pub(super) fn push_at(&self, span: Span, text: impl Into<String>) {
        let mut text = text.into();
        text.retain(|c| !c.is_control());
        self.found.borrow_mut().push(Problem { span, text });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Nothing was found.
    ///
    /// # Errors
    /// All that was found, in the order of the file.
    pub(super) fn finish(self) -> Result<(), Problems> {
        let mut found = self.found.take();
        found.sort_by_key(|problem| (problem.span.line, problem.span.column));
        if found.is_empty() { Ok(()) } else { Err(Problems { name: self.name.to_owned(), found }) }
    }
}

/// How many characters of UTF-8 begin in `bytes`.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// A string of the file as a message shows it: in quotes, escaped, shortened.
pub(super) fn shown(word: &str) -> String {
    const SHOWN: usize = 60;
    let mut start: String = word.chars().take(SHOWN).collect();
    if start.len() < word.len() {
        start.push_str("...");
    }
    format!("{start:?}")
}

/// The known word that `word` probably means.
#[must_use]
pub fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // The cost of the distance is the product of both lengths.
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    words
        .map(|known| (strsim::damerau_levenshtein(&word, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The word that `text` probably means: the only one that begins so, or the nearest one if no other
/// is as near.
pub(super) fn meant<'w>(text: &str, known: &[&'w str]) -> Option<&'w str> {
    let mut begin = known.iter().filter(|word| text.len() >= 3 && word.starts_with(text));
    if let (Some(only), None) = (begin.next(), begin.next()) {
        return Some(only);
    }
    let near = nearest(text, known.iter().copied())?;
    let others = known.iter().copied().filter(|word| *word != near);
    let is_as_near = |other: &str| {
        let distance = |word: &str| strsim::damerau_levenshtein(&text.to_lowercase(), word);
        distance(other) == distance(near)
    };
    (!others.into_iter().any(is_as_near)).then_some(near)
}

/// The TOML type of a value, with its article.
pub(super) const fn toml_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A value as a message shows it.
pub(super) fn literal(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shown(text),
        DeValue::Integer(number) => shortened(number),
        DeValue::Float(number) => shortened(number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    }
}

/// A key as TOML writes it: in quotes unless it is bare.
pub(super) fn as_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(bare) { shortened(name) } else { shown(name) }
}

fn shortened(text: impl fmt::Display) -> String {
    text.to_string().chars().take(40).collect()
}
