//! A file that is not TOML: its first syntax error, or every duplicate key, with a remedy.

use toml::de::{DeTable, Error};

use super::haproxy;
use super::problems::{Sink, shown};
use super::settings::Config;

/// What a header may have around and between its names.
const PATH_NOISE: [char; 5] = ['[', ']', ' ', '\t', '"'];

/// The document; none: it is not TOML, and the sink knows why. A duplicate key breaks no other
/// line: then the rest of the document is checked as well.
pub(super) fn parse<'a>(text: &'a str, sink: &Sink<'_>) -> Option<DeTable<'a>> {
    let error = match DeTable::parse(text) {
        Ok(table) => return Some(table.into_inner()),
        Err(error) => error,
    };
    if !is_duplicate(&error) {
        report(text, &first(text, error), sink);
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        if sink.is_full() {
            break;
        }
        if is_duplicate(error) {
            duplicate(text, error, sink);
        } else {
            report(text, error, sink);
        }
    }
    errors.iter().all(is_duplicate).then(|| table.into_inner())
}

/// The parser reports errors of values after those of the grammar: one may be in a line before.
fn first(text: &str, error: Error) -> Error {
    let before = &text[..line_of(text, start(&error)).0];
    // Of a value that the cut left open, nothing is known.
    let is_cut =
        |error: &Error| ["unclosed", "multi-line"].iter().any(|it| error.message().contains(it));
    match DeTable::parse(before) {
        Err(earlier) if !is_cut(&earlier) => earlier,
        _ => error,
    }
}

fn is_duplicate(error: &Error) -> bool {
    error.message().starts_with("duplicate key")
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn report(text: &str, error: &Error, sink: &Sink<'_>) {
    let offset = start(error);
    let (line_start, line) = line_of(text, offset);
    if let Some(text) = other_format(text, line) {
        return sink.push(line_start, text);
    }
    if haproxy::line(Config::SECTION, line).is_some() {
        return haproxy_lines(text, line_start, sink);
    }
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    if message.starts_with("missing comma between array") || message.contains("in array") {
        // The parser reports the next token, which may be lines below the end of the array.
        let end = if message.contains("`=`") { line_start } else { offset };
        let what = "an array is not closed, or a comma is missing; add ] or a comma";
        return sink.push(end_of_code(text, end), format!("TOML syntax error: {what}"));
    }
    let at_end = text[offset..].trim_start_matches([' ', '\t']).starts_with(['\n', '\r', '#']);
    let expected = message.rsplit_once(", expected `").and_then(|(_, rest)| rest.strip_suffix('`'));
    let what = if line.trim_start().starts_with([';', '/']) {
        "a comment begins with #; write # before it".to_owned()
    } else if line.contains(['\u{201c}', '\u{201d}']) {
        "curly quotes; write \" instead of each".to_owned()
    } else if message.contains("recurs") {
        format!("{message}; use fewer levels of tables and arrays")
    } else if let Some(word) = unquoted(text, offset).filter(|_| !message.starts_with("unclosed")) {
        format!("text without quotes; write {}", shown(word))
    } else if at_end && message.starts_with("string values must be quoted") {
        "no value after =; write a value".to_owned()
    } else if let Some(expected) = expected {
        format!("{message}; add {expected}")
    } else {
        format!("{message}; look for a missing value, quote, bracket or =")
    };
    sink.push(offset, format!("TOML syntax error: {what}"));
}

/// The word at an offset that needs quotes: an address, a name or a path, but no number. None: it
/// is something else.
fn unquoted(text: &str, offset: usize) -> Option<&str> {
    let (line_start, line) = line_of(text, offset);
    let at = offset - line_start;
    let belongs = |c: char| c.is_alphanumeric() || ".:/_*%-".contains(c);
    let before = line.get(..at)?;
    let start = before
        .rfind(|c| !belongs(c))
        .map_or(0, |index| index + before[index..].chars().next().map_or(1, char::len_utf8));
    let rest = &line[start..];
    let word = &rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())];
    let is_key = rest[word.len()..].trim_start().starts_with('=');
    let is_value = before[..start].trim_end().ends_with(['=', '[', ',']);
    let is_text = word.contains(|c: char| c.is_alphabetic() || ":/*".contains(c))
        || word.matches('.').count() > 1;
    // A key has letters, digits, - and _; others need quotes.
    let needs = if is_key { word.contains([':', '/', '*', '%']) } else { is_value && is_text };
    (needs && !word.is_empty()).then_some(word)
}

/// Every line that HAProxy would understand, with what to write instead. The first begins at
/// `offset` (not where the error is: that may be the end of the text, behind every line).
fn haproxy_lines(text: &str, offset: usize, sink: &Sink<'_>) {
    let mut end = 0;
    let mut hint = "; `evenkeel convert` turns a whole file into TOML";
    for line in text.split_inclusive('\n') {
        let begin = end + line.len() - line.trim_start().len();
        end += line.len();
        if end > offset
            && !sink.is_full()
            && let Some(remedy) = haproxy::line(Config::SECTION, line)
        {
            sink.push(begin, format!("HAProxy syntax, not TOML; {remedy}{hint}"));
            hint = "";
        }
    }
}

/// What to do about a text of another format, if its first faulty line shows it.
fn other_format(text: &str, line: &str) -> Option<String> {
    let is_block = line.trim_end().ends_with('{') && !line.contains('=');
    let format = if is_yaml(text, line) {
        "YAML"
    } else if is_block && text.trim_start().starts_with('{') {
        "JSON"
    } else if is_block && text.contains(';') {
        let remedy = "`evenkeel convert FILE` turns it into TOML";
        return Some(format!("configuration of nginx, not TOML; {remedy}"));
    } else {
        return None;
    };
    Some(format!(
        "{format}, not TOML; write [frontend.NAME] for a section and KEY = VALUE for a key, as \
         `evenkeel schema --example` shows"
    ))
}

/// `key: value`, `- item` or `---`, where TOML has `key = value`.
fn is_yaml(text: &str, line: &str) -> bool {
    let content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = text.lines().find(content).unwrap_or_default();
    let key = line.trim().trim_start_matches("- ").split_once(':');
    let is_key = |(key, rest): (&str, &str)| {
        let word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        !key.is_empty() && key.chars().all(word) && (rest.is_empty() || rest.starts_with(' '))
    };
    first.trim_end() == "---" || (!line.contains('=') && key.is_some_and(is_key))
}

/// The line of an offset, and where it starts.
fn line_of(text: &str, offset: usize) -> (usize, &str) {
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    (start, text[start..].lines().next().unwrap_or_default())
}

/// The end of the last token before an offset: without blanks, newlines and comments.
fn end_of_code(text: &str, offset: usize) -> usize {
    let mut end = offset;
    loop {
        let code = text[..end].trim_end();
        let (start, _) = line_of(text, code.len());
        let quotes = |before: &str| before.matches(['"', '\'']).count().is_multiple_of(2);
        let comments = code[start..].match_indices('#');
        let comment = comments.map(|(at, _)| start + at).find(|at| quotes(&code[start..*at]));
        match comment {
            Some(comment) => end = comment,
            None => return code.len(),
        }
    }
}

/// Names a duplicate key or section, and the line of the other one.
fn duplicate(text: &str, error: &Error, sink: &Sink<'_>) {
    let span = error.span().unwrap_or_default();
    let (line_start, line) = line_of(text, span.start);
    let is_section = line.trim_start().starts_with('[');
    let name = text[span.clone()].trim_matches(['"', '\'']);
    let earlier = if is_section {
        earlier_section(text, line, line_start)
    } else {
        let quotes =
            text[span.clone()].len() - text[span.clone()].trim_start_matches(['"', '\'']).len();
        earlier_key(text, name, span.start + quotes)
    };
    let earlier = earlier.map(|offset| format!(" is already in line {}", sink.span(offset).line));
    let earlier = earlier.unwrap_or_else(|| " is there twice".to_owned());
    let path = line.trim().trim_matches(['[', ']']);
    sink.push(
        span.start,
        match (is_section, path) {
            (true, path) if path.starts_with("backend.") && path.ends_with(".server") => {
                format!("section [{path}]{earlier}; write each server as [[{path}]]")
            }
            (true, path) => format!("section [{path}]{earlier}; merge the two"),
            (false, _) => format!("key {}{earlier}; remove one of the two", shown(name)),
        },
    );
}

/// The first section with the header of the line that begins at `before`.
fn earlier_section(text: &str, header: &str, before: usize) -> Option<usize> {
    let path = |line: &str| line.split('#').next().unwrap_or_default().replace(PATH_NOISE, "");
    let wanted = path(header);
    let headers = text[..before].match_indices('[').filter(|(at, _)| {
        text[..*at].rsplit('\n').next().is_some_and(|blank| blank.trim().is_empty())
    });
    let mut headers = headers.map(|(at, _)| (at, line_of(text, at).1));
    headers.find(|(_, line)| path(line) == wanted).map(|(at, _)| at)
}

/// Where a key is that has a duplicate at `at`: in the same section, or in the same inline table.
fn earlier_key(text: &str, name: &str, at: usize) -> Option<usize> {
    // What is before a key: the end of a line, or in an inline table a brace or a comma.
    let before =
        |at: usize| text[..at].trim_end_matches([' ', '\t', '"', '\'']).chars().next_back();
    let begins_line = |at: usize| matches!(before(at), None | Some('\n'));
    let is_key = |at: usize| {
        let rest = text[at + name.len()..].trim_start_matches([' ', '\t', '"', '\'']);
        let inline = matches!(before(at), Some('{' | ','));
        rest.starts_with(['=', '.']) && (begins_line(at) || inline)
    };
    let section = text[..at].rfind("\n[").unwrap_or_default();
    let mut keys = text[section..at].rmatch_indices(name).map(|(start, _)| section + start);
    keys.find(|start| is_key(*start) && begins_line(*start) == begins_line(at))
}
