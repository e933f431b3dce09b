//! Lines of an HAProxy configuration: words with quotes, escapes and environment variables, and
//! the conditional blocks that choose lines.

use std::collections::HashMap;

use crate::convert::report::{Place, Report};

/// Begins and ends the name of an environment variable that has no value here.
const UNSET: char = '\u{E000}';

/// A line that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) place: Place,
    /// Without the `no` or `default` before them.
    pub(super) words: Vec<String>,
    /// It begins with `no`.
    pub(super) is_no: bool,
}

impl Line {
    /// A word, or an empty one.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The words from one on.
    pub(super) fn from(&self, at: usize) -> &[String] {
        self.words.get(at..).unwrap_or_default()
    }
}

/// The environment, with the variables that the file sets.
pub(super) struct Environment<'a> {
    outside: &'a dyn Fn(&str) -> Option<String>,
    set: HashMap<String, String>,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("set", &self.set).finish_non_exhaustive()
    }
}

impl<'a> Environment<'a> {
    pub(super) fn new(outside: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { outside, set: HashMap::new() }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.set.get(name).cloned().or_else(|| (self.outside)(name))
    }

    /// The variables of an unquoted address: `${HOST}:80`.
    pub(super) fn expand(&self, word: &str) -> String {
        let mut out = String::new();
        let mut chars = word.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '$' { self.variable(&mut chars, &mut out) } else { out.push(c) }
        }
        out
    }

    /// A variable whose `$` has been read.
    fn variable(&self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
        let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let is_braced = chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = chars.next_if(is_name) {
            name.push(c);
        }
        let mut default = None;
        if is_braced {
            let rest: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
            chars.next();
            default = rest.strip_prefix('-').map(ToOwned::to_owned);
        }
        if name.is_empty() {
            out.push('$');
            return;
        }
        match self.get(&name).or(default) {
            Some(value) => out.push_str(&value),
            None => out.extend([UNSET].into_iter().chain(name.chars()).chain([UNSET])),
        }
    }
}

/// The environment variable without a value that a word needs.
pub(super) fn unset(word: &str) -> Option<&str> {
    let (_, rest) = word.split_once(UNSET)?;
    rest.split_once(UNSET).map(|(name, _)| name)
}

/// The lines of a file. Lines of a conditional block that does not hold are left out.
pub(super) fn lines(text: &str, environment: &mut Environment<'_>, report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut blocks: Vec<Block> = Vec::new();
    for (number, source) in (1..).zip(text.lines()) {
        let place = Place { file: 0, line: number };
        let mut words = match words(source, environment) {
            Ok(words) => words,
            Err(problem) => {
                report.refuse(place, problem);
                continue;
            }
        };
        let first = words.first().cloned().unwrap_or_default();
        if first.is_empty() {
            continue;
        }
        if first.starts_with('.') && first.len() > 1 {
            conditional(&first, &words[1..], place, &mut blocks, environment, report);
            continue;
        }
        if blocks.iter().any(|block| !block.holds) {
            continue;
        }
        let is_prefix = words.len() > 1 && (first == "no" || first == "default");
        let is_no = is_prefix && first == "no";
        if is_prefix {
            words.remove(0);
        }
        if matches!(words[0].as_str(), "setenv" | "presetenv") && words.len() > 2 {
            let is_set = words[0] == "presetenv" && environment.get(&words[1]).is_some();
            if !is_set {
                environment.set.insert(words[1].clone(), words[2].clone());
            }
        }
        lines.push(Line { place, words, is_no });
    }
    if let Some(open) = blocks.last() {
        report.refuse(open.place, ".if without .endif; close the block");
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let place = Place { file: 0, line: text.lines().count() };
        report.near(place, "no line end after it: the file may be cut, and HAProxy refuses it");
    }
    lines
}

/// The words of a line; the error is a problem and its remedy.
fn words(line: &str, environment: &Environment<'_>) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '#') => break,
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => escape(&mut chars, word.get_or_insert_default())?,
            (Some('"'), '$') => environment.variable(&mut chars, word.get_or_insert_default()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed; add it".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// Reads an escape sequence after its backslash.
fn escape(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), String> {
    match chars.next() {
        Some('n') => word.push('\n'),
        Some('r') => word.push('\r'),
        Some('t') => word.push('\t'),
        Some(c @ (' ' | '#' | '\\' | '"' | '\'' | '$')) => word.push(c),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16);
            let byte =
                byte.map_err(|_| "\\x needs two hexadecimal digits; write them".to_owned())?;
            word.push(char::from(byte));
        }
        Some(c) => word.extend(['\\', c]),
        None => word.push('\\'),
    }
    Ok(())
}

/// Conditional blocks in each other, at most (HAProxy: `MAXNESTED`).
const BLOCKS_MAX: usize = 16;

/// A conditional block that is open.
#[derive(Debug)]
struct Block {
    place: Place,
    holds: bool,
    /// A branch of it has been taken.
    is_taken: bool,
}

fn conditional(
    keyword: &str,
    rest: &[String],
    place: Place,
    blocks: &mut Vec<Block>,
    environment: &Environment<'_>,
    report: &Report,
) {
    let outer = blocks.iter().rev().skip(usize::from(keyword != ".if")).all(|block| block.holds);
    match keyword {
        ".if" if blocks.len() == BLOCKS_MAX => {
            report.refuse(place, "more than 16 .if in each other; use fewer");
            // Its lines are left out until its .endif, which closes the block around it.
        }
        ".if" => {
            let holds = outer && condition(&rest.join(" "), environment);
            report.near(place, format!("the condition is taken as {holds}, once and for all"));
            blocks.push(Block { place, holds, is_taken: holds });
        }
        ".elif" | ".else" => {
            let holds = keyword == ".else" || condition(&rest.join(" "), environment);
            match blocks.last_mut() {
                Some(block) => {
                    block.holds = outer && holds && !block.is_taken;
                    block.is_taken |= block.holds;
                }
                None => report.refuse(place, format!("{keyword} without .if; add it")),
            }
        }
        ".endif" if blocks.pop().is_none() => report.refuse(place, ".endif without .if; add it"),
        ".alert" if blocks.iter().all(|block| block.holds) => {
            report.refuse(place, format!("the file refuses itself: {}", rest.join(" ")));
        }
        ".endif" | ".diag" | ".notice" | ".warning" | ".alert" => {}
        _ => report.refuse(place, format!("unknown directive {keyword}; remove it")),
    }
}

/// Whether a condition of `.if` holds for an HAProxy of today, with every feature.
fn condition(text: &str, environment: &Environment<'_>) -> bool {
    let all = |terms: &str| terms.split("&&").all(|term| term_holds(term, environment));
    text.split("||").any(all)
}

/// Whether a term of a condition holds: `!defined(X)`.
fn term_holds(term: &str, environment: &Environment<'_>) -> bool {
    let text = term.trim_start_matches(|c: char| c == '!' || c.is_whitespace());
    let negations = term[..term.len() - text.len()].matches('!').count();
    predicate_holds(text.trim_end(), environment) != (negations % 2 == 1)
}

fn predicate_holds(text: &str, environment: &Environment<'_>) -> bool {
    let Some((name, arguments)) = text.split_once('(') else {
        return !matches!(text, "" | "0" | "false");
    };
    let arguments = arguments.trim_end_matches(')');
    let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
    let (first, second) = (arguments[0], arguments.get(1).copied().unwrap_or_default());
    match name {
        "defined" => environment.get(first).is_some(),
        "streq" => first == second,
        "strneq" => first != second,
        "version_before" | "openssl_version_before" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Vec<String>>, Report) {
        let outside = |name: &str| (name == "HOST").then(|| "web1".to_owned());
        let report = Report::new("x", text);
        let lines = lines(text, &mut Environment::new(&outside), &report);
        (lines.into_iter().map(|line| line.words).collect(), report)
    }

    #[test]
    fn quotes_escapes_and_comments_make_words() {
        let (lines, _) = read(
            "a 'b c' \"d\\\"e\" f\\ g # no\n\ttcp-check send QUIT\\r\\n\nh \\x41\\# '\\x' i\"j\"k \
            ''\n",
        );
        assert_eq!(lines[0], ["a", "b c", "d\"e", "f g"]);
        assert_eq!(lines[1], ["tcp-check", "send", "QUIT\r\n"]);
        assert_eq!(lines[2], ["h", "A#", "\\x", "ijk", ""]);
    }

    #[test]
    fn variables_are_replaced_in_double_quotes_and_marked_if_they_have_no_value() {
        let text = "setenv P 80\na \"${HOST}:$P\" '$P' $P \"${NO-x}\" \"${NO}\"\n";
        let (lines, _) = read(text);
        assert_eq!(lines[1][1..5], ["web1:80", "$P", "$P", "x"]);
        assert_eq!(unset(&lines[1][5]), Some("NO"));
    }

    #[test]
    fn conditional_blocks_choose_lines() {
        let text = ".if defined(HOST) && version_atleast(2.4)\na\n.else\nb\n.endif\n\
                    .if streq(x,y)\nc\n.elif 1\nd\n.else\ne\n.endif\n";
        assert_eq!(read(text).0, [["a"], ["d"]]);
        assert!(read(".if 1\n").1.accepted().is_err());
        assert!(read("a \"b\n").1.accepted().unwrap_err().problems[0].starts_with("x:1: "));
    }
}
