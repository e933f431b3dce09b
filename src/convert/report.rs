//! The notes of a conversion: lines without an equivalent, lines whose meaning changes, and files
//! that are refused.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// The outcome for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was converted, and the meaning differs.
    Near,
    /// It has no equivalent.
    Report,
}

/// A remark about a line of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file of the line.
    pub file: String,
    /// Its number, from 1.
    pub line: usize,
    /// The outcome.
    pub kind: Kind,
    /// The line, without comments and passwords.
    pub text: String,
    /// The reason.
    pub reason: String,
    /// Whether an operator has to know it before the result is used.
    pub is_urgent: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Near => "differs",
            Kind::Report => "not converted",
        };
        let Self { file, line, text, reason, .. } = self;
        write!(f, "{file}:{line}: {kind}: {text}: {reason}")
    }
}

/// A file that the balancer it was written for refuses, or that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Each is `FILE:LINE: what is wrong; what to do`.
    pub problems: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Refused {}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Place {
    /// Position in the list of files: 0 is the one that was named, others are included by it.
    pub(super) file: usize,
    /// From 1.
    pub(super) line: usize,
}

/// Problems of a file that are listed; the rest is counted.
const PROBLEMS_MAX: usize = 100;

/// Collects notes and problems. Each is kept once.
#[derive(Debug)]
pub(super) struct Report {
    files: RefCell<Vec<(String, Vec<String>)>>,
    notes: RefCell<Vec<(Place, Note)>>,
    /// Of `notes`, so that a line of `defaults` is noted once, not once for each proxy.
    noted: RefCell<HashSet<(Place, String)>>,
    problems: RefCell<Vec<(Place, String)>>,
    refused: RefCell<HashSet<(Place, String)>>,
}

impl Report {
    /// `name` is the file as messages show it.
    pub(super) fn new(name: &str, text: &str) -> Self {
        let report = Self {
            files: RefCell::default(),
            notes: RefCell::default(),
            noted: RefCell::default(),
            problems: RefCell::default(),
            refused: RefCell::default(),
        };
        report.add_file(name, text);
        report
    }

    /// Adds an included file, and returns its position in the list.
    pub(super) fn add_file(&self, name: &str, text: &str) -> usize {
        let lines = text.lines().map(ToOwned::to_owned).collect();
        let mut files = self.files.borrow_mut();
        files.push((name.to_owned(), lines));
        files.len() - 1
    }

    /// A line that was converted, with another meaning.
    pub(super) fn near(&self, place: Place, reason: impl Into<String>) {
        self.add(place, Kind::Near, reason.into(), false);
    }

    /// A line without an equivalent.
    pub(super) fn report(&self, place: Place, reason: impl Into<String>) {
        self.add(place, Kind::Report, reason.into(), false);
    }

    /// A line without an equivalent that must be known before the result is used.
    pub(super) fn urgent(&self, place: Place, reason: impl Into<String>) {
        self.add(place, Kind::Report, reason.into(), true);
    }

    fn add(&self, place: Place, kind: Kind, reason: String, is_urgent: bool) {
        let reason = shortened(reason);
        if !self.noted.borrow_mut().insert((place, reason.clone())) {
            return;
        }
        let files = self.files.borrow();
        let (file, lines) = &files[place.file];
        let source = lines.get(place.line.saturating_sub(1)).map_or("", String::as_str);
        let text = shown(source);
        let note = Note { file: file.clone(), line: place.line, kind, text, reason, is_urgent };
        self.notes.borrow_mut().push((place, note));
    }

    /// A line that is refused.
    pub(super) fn refuse(&self, place: Place, problem: impl Into<String>) {
        let problem = shortened(problem);
        if self.refused.borrow_mut().insert((place, problem.clone())) {
            self.problems.borrow_mut().push((place, problem));
        }
    }

    /// Fails if a line was refused.
    ///
    /// # Errors
    /// Every refused line.
    pub(super) fn accepted(&self) -> Result<(), Refused> {
        let mut problems = self.problems.borrow().clone();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort();
        let files = self.files.borrow();
        let text = |(place, problem): &(Place, String)| {
            format!("{}:{}: {problem}", files[place.file].0, place.line)
        };
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        let mut problems: Vec<String> = problems.iter().take(PROBLEMS_MAX).map(text).collect();
        if more > 0 {
            problems.push(format!("{}: and {more} more problems", files[0].0));
        }
        Err(Refused { problems })
    }

    /// The notes in the order of the input.
    pub(super) fn notes(&self) -> Vec<(Place, Note)> {
        let mut notes = self.notes.borrow().clone();
        notes.sort_by_key(|(place, _)| *place);
        notes
    }
}

/// A reason or a problem, without the length that words of the file may give it.
fn shortened(text: impl Into<String>) -> String {
    const LENGTH_MAX: usize = 300;
    let text: String = text.into();
    let text = plain(&text);
    let start: String = text.chars().take(LENGTH_MAX).collect();
    if start.len() < text.len() { start + " ..." } else { text }
}

/// Without control characters, which a terminal would interpret.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A line as a message shows it: without indentation, comment, passwords and great length.
fn shown(line: &str) -> String {
    const LENGTH_MAX: usize = 120;
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        if word.starts_with('#') {
            break;
        }
        let is_secret = words.last().is_some_and(|before: &String| {
            matches!(before.as_str(), "password" | "insecure-password" | "ca-sign-pass")
        });
        words.push(if is_secret { "***".to_owned() } else { word.to_owned() });
    }
    if let [stats, auth, account, ..] = words.as_mut_slice()
        && stats == "stats"
        && auth == "auth"
    {
        let user = account.split(':').next().unwrap_or_default();
        *account = format!("{user}:***");
    }
    let text = words.join(" ");
    let short: String = plain(&text).chars().take(LENGTH_MAX).collect();
    let cut = if text.chars().count() > LENGTH_MAX { " ..." } else { "" };
    let trimmed = short.trim_end_matches(';').trim_end();
    format!("{trimmed}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_repeated() {
        assert_eq!(shown("  stats auth admin:pa:ss # x"), "stats auth admin:***");
        assert_eq!(shown("user a insecure-password pw"), "user a insecure-password ***");
        assert_eq!(shown("\tlisten 80 ssl; # TLS"), "listen 80 ssl");
    }
}
