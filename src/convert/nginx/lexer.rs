//! nginx configurations as trees of directives, with the files that they include.

use std::path::{Path, PathBuf};

use crate::convert::report::{Place, Report};

/// A directive, with its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
    /// The line of the closing brace.
    pub(super) last: usize,
}

impl Directive {
    /// Whether the first argument is `on` or `off`: nginx takes capitals as well.
    pub(super) fn is(&self, switch: &str) -> bool {
        self.word(0).eq_ignore_ascii_case(switch)
    }

    /// Whether the first argument has a variable, or a placeholder of a template.
    pub(super) fn has_placeholder(&self) -> bool {
        self.word(0).contains(['$', '{', '<', '%'])
    }

    /// The address of a `listen` line, in one spelling of the wildcard.
    pub(super) fn address(&self) -> &str {
        let word = self.word(0);
        word.strip_prefix("0.0.0.0:").or_else(|| word.strip_prefix("*:")).unwrap_or(word)
    }

    /// An argument, or an empty one.
    pub(super) fn word(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", String::as_str)
    }

    /// The directives of its block.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Files that include each other end here.
const DEPTH_MAX: usize = 10;

/// Blocks in each other, at most: nginx has no use for more than five.
const LEVELS_MAX: usize = 100;

/// Reads a file and those that it includes.
pub(super) fn read(text: &str, path: &Path, report: &Report) -> Vec<Directive> {
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let mut files = Files { folder, depth: 0, level: 0, report };
    files.parse(text, 0)
}

#[derive(Debug)]
struct Files<'a> {
    folder: PathBuf,
    depth: usize,
    /// Blocks around the one at hand.
    level: usize,
    report: &'a Report,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

impl Files<'_> {
    fn parse(&mut self, text: &str, file: usize) -> Vec<Directive> {
        let tokens = tokens(text, file, self.report);
        let mut at = 0;
        let directives = self.block(&tokens, &mut at, file, true);
        if at < tokens.len() {
            let place = Place { file, line: tokens[at].1 };
            self.report.refuse(place, "an unexpected }; remove it");
        }
        directives
    }

    /// A block in another one; not one that is nested too deeply.
    fn inner_block(
        &mut self,
        tokens: &[(Token, usize)],
        at: &mut usize,
        place: Place,
    ) -> Vec<Directive> {
        if self.level == LEVELS_MAX {
            self.report.refuse(place, "more than 100 blocks in each other; use fewer");
            *at = tokens.len();
            return Vec::new();
        }
        self.level += 1;
        let block = self.block(tokens, at, place.file, false);
        self.level -= 1;
        block
    }

    fn block(
        &mut self,
        tokens: &[(Token, usize)],
        at: &mut usize,
        file: usize,
        is_file: bool,
    ) -> Vec<Directive> {
        let mut directives = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut first = 0;
        while let Some((token, line)) = tokens.get(*at) {
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        first = *line;
                    }
                    words.push(word.clone());
                }
                Token::End | Token::Open if words.is_empty() => {
                    let problem = "an unexpected ; or {; write a directive before it";
                    self.report.refuse(Place { file, line: *line }, problem);
                }
                Token::End => {
                    let place = Place { file, line: first };
                    let mut all = std::mem::take(&mut words);
                    let name = all.remove(0);
                    if name == "include" {
                        directives.extend(self.include(place, all));
                    } else {
                        directives.push(Directive {
                            place,
                            name,
                            arguments: all,
                            block: None,
                            last: *line,
                        });
                    }
                }
                Token::Open => {
                    let place = Place { file, line: first };
                    let mut all = std::mem::take(&mut words);
                    let name = all.remove(0);
                    *at += 1;
                    let depth = self.depth;
                    if matches!(name.as_str(), "http" | "mail") {
                        // Left out anyway: included files are not read.
                        self.depth = DEPTH_MAX;
                    }
                    let block = self.inner_block(tokens, at, place);
                    self.depth = depth;
                    let last = tokens.get(*at).map_or(first, |(_, line)| *line);
                    if *at >= tokens.len() {
                        self.report.refuse(place, "a block is not closed; add }");
                    }
                    directives.push(Directive {
                        place,
                        name,
                        arguments: all,
                        block: Some(block),
                        last,
                    });
                }
                Token::Close => break,
            }
            *at += 1;
        }
        if !words.is_empty() {
            let problem = format!("{} is not ended; add ;", words[0]);
            self.report.refuse(Place { file, line: first }, problem);
        }
        let is_open = !is_file && *at >= tokens.len();
        if is_open { Vec::new() } else { directives }
    }

    /// The directives of the files that a pattern names; the directive itself if there are none.
    fn include(&mut self, place: Place, arguments: Vec<String>) -> Vec<Directive> {
        let pattern = arguments.first().cloned().unwrap_or_default();
        let found =
            if self.depth < DEPTH_MAX { matching(&self.folder, &pattern) } else { Vec::new() };
        let last = place.line;
        let unread = Directive { place, name: "include".to_owned(), arguments, block: None, last };
        let mut directives = Vec::new();
        for path in &found {
            let Ok(text) = std::fs::read_to_string(path) else { return vec![unread] };
            let file = self.report.add_file(&path.display().to_string(), &text);
            self.depth += 1;
            directives.extend(self.parse(&text, file));
            self.depth -= 1;
        }
        if found.is_empty() { vec![unread] } else { directives }
    }
}

/// The files that a pattern names, in order; `*` stands for any part of a name.
fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = folder.join(pattern);
    if !pattern.contains('*') {
        return if path.is_file() { vec![path] } else { Vec::new() };
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let name = name.to_string_lossy();
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .filter(|path| path.file_name().is_some_and(|it| fits(&name, &it.to_string_lossy())))
        .collect();
    found.sort();
    found
}

/// Whether a name fits a pattern with `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = name.strip_prefix(begin).and_then(|name| name.strip_suffix(end));
    let Some(mut inner) = inner else { return false };
    // Each part at its first place leaves the most for those behind it.
    middle.split('*').all(|part| {
        let found = inner.split_once(part);
        found.map(|(_, behind)| inner = behind).is_some()
    })
}

fn tokens(text: &str, file: usize, report: &Report) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    // The index of the last word.
    let mut last_word = None;
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() || c == '\u{feff}' => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' => tokens.push((Token::End, line)),
            '{' => {
                tokens.push((Token::Open, line));
                if is_script(&tokens, last_word) {
                    script(&mut chars, &mut line);
                    tokens.push((Token::Close, line));
                }
            }
            '}' => tokens.push((Token::Close, line)),
            '"' | '\'' => {
                let begin = line;
                let mut word = String::new();
                let mut is_closed = false;
                while let Some(inner) = chars.next() {
                    match inner {
                        '\\' => escape(&mut chars, &mut word),
                        inner if inner == c => {
                            is_closed = true;
                            break;
                        }
                        inner => {
                            line += usize::from(inner == '\n');
                            word.push(inner);
                        }
                    }
                }
                if !is_closed {
                    report.refuse(Place { file, line: begin }, "a quote is not closed; add it");
                }
                last_word = Some(tokens.len());
                tokens.push((Token::Word(word), begin));
            }
            c => {
                let mut word = String::from(c);
                if c == '\\' {
                    word.clear();
                    escape(&mut chars, &mut word);
                }
                let mut in_variable = false;
                while let Some(next) = chars.peek().copied() {
                    in_variable |= next == '{' && word.ends_with('$');
                    let ends = next.is_whitespace() || next == ';' || (next == '{' && !in_variable);
                    if ends {
                        break;
                    }
                    chars.next();
                    in_variable &= next != '}';
                    if next == '\\' { escape(&mut chars, &mut word) } else { word.push(next) }
                }
                last_word = Some(tokens.len());
                tokens.push((Token::Word(word), line));
            }
        }
    }
    tokens
}

/// Reads an escape sequence; a backslash before other characters stays.
fn escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    match chars.next() {
        Some(c @ ('"' | '\'')) => word.push(c),
        Some('t') => word.push('\t'),
        Some('r') => word.push('\r'),
        Some('n') => word.push('\n'),
        Some(c) => word.extend(['\\', c]),
        None => word.push('\\'),
    }
}

/// Whether the block that has been opened is Lua.
fn is_script(tokens: &[(Token, usize)], last_word: Option<usize>) -> bool {
    let word = last_word.and_then(|index| tokens.get(index));
    matches!(word, Some((Token::Word(word), _)) if word.ends_with("_by_lua_block"))
}

/// Skips to the brace that closes a script.
fn script(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, line: &mut usize) {
    let mut depth = 1;
    for c in chars.by_ref() {
        match c {
            '\n' => *line += 1,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_quotes_comments_and_variables_are_read() {
        let text = "a b;# x\nmap $x $y {\n  \"d\\\"e\" 'f;g';\n}\nserver ${HOST}:80 w=1;\n\
                    l_by_lua_block { if x then { } end }\n";
        let report = Report::new("x", text);
        let all = read(text, Path::new("x"), &report);
        assert_eq!(report.accepted(), Ok(()));
        let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a", "map", "server", "l_by_lua_block"]);
        assert_eq!(all[1].inside()[0].name, "d\"e");
        assert_eq!(all[1].inside()[0].arguments, ["f;g"]);
        assert_eq!((all[1].place.line, all[1].last), (2, 4));
        assert_eq!(all[2].arguments, ["${HOST}:80", "w=1"]);
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        for text in ["a {", "a", "}", "a \"b;", ";"] {
            let report = Report::new("x", text);
            read(text, Path::new("x"), &report);
            assert!(report.accepted().is_err(), "{text}");
        }
        for (pattern, name) in [
            ("*.stream.conf", "a.stream.conf"),
            ("a*b*c", "abc"),
            ("*b*", "b"),
            ("**", ""),
            ("a", "a"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.stream.conf", "a.conf"), ("a*a", "a"), ("a*bc*c", "abc"), ("*b*", "a"), ("a", "b")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
