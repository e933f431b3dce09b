//! Status codes that an `http-check expect` accepts, as one range.

use std::ops::RangeInclusive;

/// The codes of HTTP (RFC 9110, 15).
const CODES: RangeInclusive<u16> = 100..=599;

/// The range of `200`, `200-399`, `200,204-206`, or of all other codes (`is_negated`); none: there
/// are several.
pub(super) fn range_of_list(text: &str, is_negated: bool) -> Option<(u16, u16)> {
    let mut codes = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        codes.push(first..=last);
    }
    let is_listed = |code: u16| codes.iter().any(|range| range.contains(&code));
    if codes.iter().any(|range| !CODES.contains(range.start()) || !CODES.contains(range.end())) {
        return None;
    }
    one_range(&CODES.filter(|code| is_listed(*code) != is_negated).collect::<Vec<_>>())
}

/// The range of the codes that a regular expression matches, or does not match (`is_negated`);
/// none: there are several, or it says what this does not read.
pub(super) fn range_of_pattern(pattern: &str, is_negated: bool) -> Option<(u16, u16)> {
    let mut reader = Reader { rest: pattern.chars().collect(), at: 0 };
    let expression = reader.alternatives()?;
    if reader.at < reader.rest.len() {
        return None;
    }
    let matches = |code: &u16| {
        let text: Vec<char> = code.to_string().chars().collect();
        (0..=text.len()).any(|start| !ends(&expression, &text, start).is_empty())
    };
    one_range(&CODES.filter(|code| matches(code) != is_negated).collect::<Vec<_>>())
}

/// The first and the last of codes without a gap.
fn one_range(codes: &[u16]) -> Option<(u16, u16)> {
    let (first, last) = (*codes.first()?, *codes.last()?);
    (usize::from(last - first) + 1 == codes.len()).then_some((first, last))
}

/// A part of an expression.
#[derive(Debug)]
enum Part {
    /// One of these characters.
    Class(Vec<char>),
    Start,
    End,
    Group(Vec<Vec<Self>>),
}

struct Reader {
    rest: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    /// Alternatives up to a closing bracket or the end.
    fn alternatives(&mut self) -> Option<Vec<Vec<Part>>> {
        let mut all = vec![Vec::new()];
        while let Some(c) = self.peek().filter(|c| *c != ')') {
            self.at += 1;
            let part = match c {
                '|' => {
                    all.push(Vec::new());
                    continue;
                }
                '^' => Part::Start,
                '$' => Part::End,
                '.' => Part::Class(('0'..='9').collect()),
                '0'..='9' => Part::Class(vec![c]),
                '\\' if self.peek() == Some('d') => {
                    self.at += 1;
                    Part::Class(('0'..='9').collect())
                }
                '[' => self.class()?,
                '(' => {
                    let group = self.alternatives()?;
                    self.peek().filter(|c| *c == ')')?;
                    self.at += 1;
                    Part::Group(group)
                }
                _ => return None,
            };
            all.last_mut()?.push(part);
        }
        Some(all)
    }

    /// `[23]` or `[2-4]`, after the bracket.
    fn class(&mut self) -> Option<Part> {
        let end = self.at + self.rest[self.at..].iter().position(|c| *c == ']')?;
        let inside = &self.rest[self.at..end];
        self.at = end + 1;
        let mut digits = Vec::new();
        let mut at = 0;
        while let Some(first) = inside.get(at) {
            if !first.is_ascii_digit() {
                return None;
            }
            if inside.get(at + 1) == Some(&'-') {
                digits.extend(*first..=*inside.get(at + 2)?);
                at += 3;
            } else {
                digits.push(*first);
                at += 1;
            }
        }
        Some(Part::Class(digits))
    }
}

/// The positions at which a match that begins at `start` may end.
fn ends(expression: &[Vec<Part>], text: &[char], start: usize) -> Vec<usize> {
    let mut all = Vec::new();
    for sequence in expression {
        let mut positions = vec![start];
        for part in sequence {
            let step = |at: usize| match part {
                Part::Start => {
                    if at == 0 {
                        vec![at]
                    } else {
                        Vec::new()
                    }
                }
                Part::End => {
                    if at == text.len() {
                        vec![at]
                    } else {
                        Vec::new()
                    }
                }
                Part::Class(digits) => match text.get(at) {
                    Some(c) if digits.contains(c) => vec![at + 1],
                    _ => Vec::new(),
                },
                Part::Group(group) => ends(group, text, at),
            };
            positions = positions.into_iter().flat_map(step).collect();
        }
        all.extend(positions);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_patterns_are_one_range_or_none() {
        for (text, range) in [
            ("200", Some((200, 200))),
            ("200-399", Some((200, 399))),
            ("200,201-204", Some((200, 204))),
            ("200,302", None),
            ("x", None),
        ] {
            assert_eq!(range_of_list(text, false), range, "{text}");
        }
        for (pattern, range) in [
            ("^2", Some((200, 299))),
            ("^[23]", Some((200, 399))),
            ("(2|3)[0-9][0-9]", Some((200, 399))),
            ("^2\\d\\d$", Some((200, 299))),
            ("^20[0-4]", Some((200, 204))),
            ("^(200|302)$", None),
            ("^2.*", None),
        ] {
            assert_eq!(range_of_pattern(pattern, false), range, "{pattern}");
        }
        assert_eq!(range_of_list("500-599", true), Some((100, 499)));
        assert_eq!(range_of_list("500", true), None);
        assert_eq!(range_of_pattern("^5", true), Some((100, 499)));
    }
}
