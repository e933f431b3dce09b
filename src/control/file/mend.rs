//! A text that is not quite TOML, without what is not: so that the rest of it can be checked, and
//! one slip is told once.

use toml::de::DeTable;

/// Errors that are looked for; behind so many nobody reads on.
const ERRORS_MAX: usize = 100;

/// Lines that a statement may have begun before its error.
const LINES_MAX: usize = 64;

/// Where the text is not TOML, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error {
    /// In bytes.
    pub(super) offset: usize,
    pub(super) message: String,
}

/// `text` with every broken statement blanked, so that offsets stay what they are, and the error
/// of each. Behind a broken header, all that belongs to it.
pub(super) fn mend(text: &str) -> (String, Vec<Error>) {
    let mut mended = text.to_owned();
    let mut errors = Vec::new();
    while errors.len() < ERRORS_MAX
        && let Some(error) = first_error(&mended)
    {
        let line = start_of_line(&mended, error.offset);
        let start = statement(&mended, line).unwrap_or(line);
        // A new statement before the error: it was met within the last, which is not closed.
        let next = next_line(&mended, start, begins_statement).filter(|next| *next <= line);
        let end = next.map_or_else(|| end_of_line(&mended, error.offset), |next| next - 1);
        let error = next.map(|next| not_closed(&mended, start, next)).unwrap_or(error);
        errors.push(error);
        if !blank(&mut mended, start, end) {
            break;
        }
    }
    (mended, errors)
}

/// The parser goes on behind an error, and the first may be the cause of the others.
fn first_error(text: &str) -> Option<Error> {
    let (_, errors) = DeTable::parse_recoverable(text);
    errors.iter().map(Error::from).min_by_key(|error| error.offset)
}

impl From<&toml::de::Error> for Error {
    fn from(error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        Self { offset, message: error.message().to_owned() }
    }
}

/// Where the statement began that goes on at `line`, the start of a line; none: not near.
fn statement(text: &str, line: usize) -> Option<usize> {
    let mut start = line;
    for _ in 0..LINES_MAX {
        if first_error(&text[..start]).is_none() {
            return Some(start);
        }
        start = start_of_line(text, start.checked_sub(1)?);
    }
    None
}

/// The start of the first line behind the one of `start` that is one of `these`.
fn next_line(text: &str, start: usize, these: fn(&str) -> bool) -> Option<usize> {
    let mut line = start;
    loop {
        line = end_of_line(text, line) + 1;
        if these(line_at(text, line)?) {
            return Some(line);
        }
    }
}

fn not_closed(text: &str, start: usize, next: usize) -> Error {
    let number = 1 + text[..next].matches('\n').count();
    let message = format!("what begins here is not closed when line {number} begins");
    Error { offset: start, message }
}

/// Replaces by blanks what stands from `start` to `end`. Of a header, and of what has more lines,
/// also the rest. False: there was nothing any more.
fn blank(text: &mut String, start: usize, end: usize) -> bool {
    let next = if line_at(text, start).is_some_and(is_header) {
        next_line(text, end, is_header)
    } else if text[start..end].contains('\n') {
        next_line(text, end, begins_statement)
    } else {
        Some(end + 1)
    };
    let end = next.map_or(text.len(), |next| next - 1);
    let keep = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
    let blanks: String = text[start..end].chars().map(keep).collect();
    let changed = text[start..end] != blanks;
    text.replace_range(start..end, &blanks);
    changed
}

/// Whether a line is a header, or begins with a key.
fn begins_statement(line: &str) -> bool {
    let is_key = |key: &str| {
        let key = key.trim();
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    is_header(line) || line.split_once('=').is_some_and(|(key, _)| is_key(key))
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn start_of_line(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Of the line of `offset`, without its newline.
fn end_of_line(text: &str, offset: usize) -> usize {
    text[offset..].find('\n').map_or(text.len(), |length| offset + length)
}

/// The rest of the line of `start`; none behind the last.
fn line_at(text: &str, start: usize) -> Option<&str> {
    text.get(start..).map(|rest| rest.split('\n').next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of `text`, a word a statement, and the lines of the errors.
    fn mended(text: &str) -> (Vec<String>, Vec<usize>) {
        let (left, errors) = mend(text);
        assert_eq!(left.len(), text.len(), "offsets stay");
        assert!(errors.len() == ERRORS_MAX || DeTable::parse(&left).is_ok(), "{left}");
        let line = |error: &Error| 1 + text[..error.offset].matches('\n').count();
        let left = left.lines().map(str::trim).filter(|line| !line.is_empty());
        (left.map(str::to_owned).collect(), errors.iter().map(line).collect())
    }

    #[test]
    fn what_is_toml_stays_as_it_is() {
        let text = "[a]\nb = [\n  1,\n]\n";
        assert_eq!(mend(text), (text.to_owned(), Vec::new()));
    }

    #[test]
    fn each_line_that_is_none_is_told_and_the_rest_is_left() {
        let (left, lines) = mended("[a]\nmode http\noption x\nb = 1\n\n[c]\nd = 2");
        assert_eq!((left.join(" "), lines), ("[a] b = 1 [c] d = 2".to_owned(), vec![2, 3]));
    }

    #[test]
    fn a_value_that_is_not_closed_is_told_where_it_begins() {
        for broken in ["b = [1, 2", "b = \"x", "b = \"\"\"x", "b = [\n  \"x\",", "b = { x = 1"] {
            let (left, lines) = mended(&format!("[a]\n{broken}\nc = 1\n[d]\ne = 2\n"));
            assert_eq!((left.join(" "), lines), ("[a] c = 1 [d] e = 2".to_owned(), vec![2]));
        }
    }

    #[test]
    fn a_slip_within_a_long_value_is_told_once() {
        let (left, lines) = mended("b = [\n  1\n  2,\n]\nc = 1\n");
        assert_eq!((left.join(" "), lines), ("c = 1".to_owned(), vec![3]));
    }

    #[test]
    fn what_follows_a_broken_header_is_not_taken_for_anothers() {
        let (left, lines) = mended("[a]\nb = 1\n[c\nb = 2\n[[d]]\ne = 3\n");
        assert_eq!((left.join(" "), lines), ("[a] b = 1 [[d]] e = 3".to_owned(), vec![3]));
    }

    #[test]
    fn what_is_no_configuration_at_all_comes_to_an_end() {
        for text in ["\0", "]]]]\n]]\n", &"{\n".repeat(5000), &"x\n".repeat(5000), "a = \"\u{e4}"] {
            assert!((1..=ERRORS_MAX).contains(&mended(text).1.len()), "{text}");
        }
    }
}
