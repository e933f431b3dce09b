//! `evenkeel convert`: a configuration of HAProxy, or the `stream` block of nginx, as TOML.
//!
//! A file is read as its balancer reads it (`haproxy`, `nginx`) and becomes a draft, which `finish`
//! makes one that `evenkeel check` accepts. Tables of keywords hold the treatment of each line.

mod binding;
mod draft;
mod finish;
mod first_match;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod haproxy;
mod keyword;
mod literal;
mod majority;
mod networks;
mod nginx;
mod refused;
mod report;
mod write;

use std::path::Path;

use keyword::{Table, Treatment};
use report::Report;

use crate::config;

pub use report::{Kind, Note, Refused};

/// The largest file that is read.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Instead of the notes on lines, where the result would be longer than evenkeel reads.
const LEFT_OUT: &str = "# The notes on lines are on standard error only: with them, this file \
                        would be longer than evenkeel reads.\n";

/// The balancer that a file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// haproxy.cfg
    Haproxy,
    /// nginx.conf, or a file that its `stream` block includes.
    Nginx,
}

/// A file of another balancer, converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The configuration.
    pub toml: String,
    /// Lines without an equivalent, or with another meaning, in the order of the input.
    pub report: Vec<Note>,
}

impl Conversion {
    /// Whether a line has no equivalent.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.report.iter().any(|note| note.kind == Kind::Report)
    }
}

impl Format {
    /// The format of a text: nginx ends directives with `;`, HAProxy begins sections with words.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let sections = ["global", "defaults", "frontend", "backend", "listen", "resolvers"];
        let begins = |line: &str| {
            let word = line.split_whitespace().next().unwrap_or_default();
            sections.contains(&word) && !line.contains(['{', ';'])
        };
        if text.lines().any(begins) { Self::Haproxy } else { Self::Nginx }
    }
}

/// Converts a file; without a format, the text tells it.
///
/// # Errors
/// The file cannot be read, or its balancer refuses it: each problem with its line.
pub fn convert(format: Option<Format>, file: &Path) -> Result<Conversion, Refused> {
    let name = file.display().to_string();
    let cannot = |problem: &str| Refused { problems: vec![format!("{name}: {problem}")] };
    let size = std::fs::metadata(file)
        .map_err(|error| cannot(&format!("cannot be read ({error}); name an existing file")))?;
    if !size.is_file() {
        return Err(cannot("is not a regular file; name a file"));
    }
    if size.len() > FILE_MAX {
        return Err(cannot("is longer than 4 MiB; is it the right file?"));
    }
    let bytes = std::fs::read(file)
        .map_err(|error| cannot(&format!("cannot be read ({error}); make it readable")))?;
    // Old files have comments in other encodings; they have no effect.
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let is_header = |line: &str| line.starts_with("[frontend.") || line.starts_with("[backend.");
    if format.is_none() && text.lines().any(|line| is_header(line.trim_start())) {
        return Err(cannot("is a configuration of evenkeel already (TOML); use it as it is"));
    }
    let variables = |name: &str| std::env::var(name).ok();
    convert_text(format.unwrap_or_else(|| Format::of(text)), text, file, &variables)
}

/// Converts a text, as if it were the file at `path`, with these environment variables.
///
/// # Errors
/// Its balancer refuses it: each problem with its line.
pub fn convert_text(
    format: Format,
    text: &str,
    path: &Path,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Conversion, Refused> {
    let name = path.display().to_string();
    let report = Report::new(&name, text);
    let mut draft = match format {
        Format::Haproxy => haproxy::convert(text, variables, &report)?,
        Format::Nginx => nginx::convert(text, path, &report)?,
    };
    finish::finish(&mut draft, &report);
    if draft.frontends.is_empty() {
        let problem = "no frontend that can be converted; is it the right file?";
        let mut problems = vec![format!("{name}: {problem}")];
        problems.extend(report.notes().iter().map(|(_, note)| note.to_string()));
        return Err(Refused { problems });
    }
    refused::leave_out(&mut draft, &report);
    let notes = report.notes();
    let is_too_long = |toml: &str| toml.len() as u64 > config::FILE_MAX;
    let mut toml = write::write(&draft, &notes, &name).toml;
    if is_too_long(&toml) {
        let urgent: Vec<_> = notes.iter().filter(|(_, note)| note.is_urgent).cloned().collect();
        toml = format!("{LEFT_OUT}{}", write::write(&draft, &urgent, &name).toml);
    }
    if is_too_long(&toml) {
        let (length, max) = (toml.len(), config::FILE_MAX);
        let problem = format!(
            "{name}: the result has {length} bytes, and evenkeel reads at most {max}; convert its \
             sections in several files"
        );
        return Err(Refused { problems: vec![problem] });
    }
    Ok(Conversion { toml, report: notes.into_iter().map(|(_, note)| note).collect() })
}

/// The tables of every keyword, as Markdown: the part of docs/coming-from-haproxy.md that a test
/// compares with the program.
#[must_use]
pub fn reference(format: Format) -> String {
    let tables = match format {
        Format::Haproxy => haproxy::TABLES,
        Format::Nginx => nginx::TABLES,
    };
    let tables: Vec<String> = tables.iter().map(markdown).collect();
    tables.join("\n")
}

fn markdown(table: &Table) -> String {
    let mut text =
        format!("### {}\n\n| keyword | in evenkeel | remark |\n|---|---|---|\n", table.title);
    for keyword in table.keywords {
        let names: Vec<String> = keyword.names().map(|name| format!("`{name}`")).collect();
        let key = match keyword.treatment {
            Treatment::Keep | Treatment::Near => keyword.key.to_owned(),
            Treatment::Report => "none: reported".to_owned(),
            Treatment::Http => "none: reported in mode http".to_owned(),
            Treatment::Drop => "none needed".to_owned(),
        };
        let escaped = keyword.text.replace('|', "\\|");
        text.push_str(&format!("| {} | {key} | {escaped} |\n", names.join(", ")));
    }
    text
}
