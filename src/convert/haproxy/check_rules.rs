//! Rules of health checks that HAProxy refuses: unknown words, and values that are none.

use super::exchange::{self, EXPECT_WITH_VALUE};
use super::keywords;
use super::lexer::{self, Line};
use super::values::{Checked, refused, value};
use crate::convert::report::Report;

/// Refuses a rule of a health check.
pub(super) fn of_proxy(line: &Line, report: &Report) {
    let is_known = line.words.iter().all(|word| lexer::unset(word).is_none());
    if matches!(line.word(0), "tcp-check" | "http-check")
        && is_known
        && !line.is_no
        && let Err(problem) = checked(line)
    {
        report.refuse(line.place, problem);
    }
}

fn checked(line: &Line) -> Checked {
    let is_http = line.word(0) == "http-check";
    let kinds: &[&str] = if is_http {
        &["disable-on-404", "send-state", "send", "expect", "connect", "comment"]
    } else {
        &["send", "send-lf", "send-binary", "send-binary-lf", "expect", "connect", "comment"]
    };
    let word = line.word(1);
    match word {
        "expect" => expectation(line, is_http),
        "connect" => connection(line),
        "send" if is_http => parameters(
            line,
            2,
            &[
                ("comment", 1),
                ("meth", 1),
                ("uri", 1),
                ("uri-lf", 1),
                ("ver", 1),
                ("hdr", 2),
                ("body", 1),
                ("body-lf", 1),
            ],
        ),
        "comment" => value(line, 2),
        "send" | "send-lf" | "send-binary" | "send-binary-lf" if !is_http => {
            parameters(line, 3, &[("comment", 1)])
        }
        _ if kinds.contains(&word)
            || word.starts_with("set-var")
            || word.starts_with("unset-var") =>
        {
            Ok(())
        }
        _ => refused("no rule of a check", word),
    }
}

/// Every word from one on is a parameter, with that many values.
fn parameters(line: &Line, start: usize, known: &[(&str, usize)]) -> Checked {
    let mut at = start;
    while at < line.words.len() {
        let word = line.word(at);
        let Some((_, count)) = known.iter().find(|(name, _)| *name == word) else {
            return refused("no parameter of a check", word);
        };
        at += 1 + count;
        if at > line.words.len() {
            return Err(format!("{word} without its value; write it"));
        }
    }
    Ok(())
}

fn connection(line: &Line) -> Checked {
    parameters(
        line,
        2,
        &[
            ("default", 0),
            ("port", 1),
            ("addr", 1),
            ("send-proxy", 0),
            ("via-socks4", 0),
            ("ssl", 0),
            ("sni", 1),
            ("alpn", 1),
            ("linger", 0),
            ("proto", 1),
            ("comment", 1),
        ],
    )?;
    let port = line.words.iter().position(|word| word == "port").map(|at| line.word(at + 1));
    let Some(port) = port else { return Ok(()) };
    let is_number = port.starts_with(|c: char| c.is_ascii_digit());
    let end = port.find(['(', ',']).unwrap_or(port.len());
    let is_known = if is_number {
        port.parse::<u16>().is_ok_and(|port| port > 0)
    } else {
        keywords::is_sample(&port[..end])
    };
    if is_known { Ok(()) } else { refused("no port", port) }
}

/// What a check expects: one kind with a value, among parameters.
fn expectation(line: &Line, is_http: bool) -> Checked {
    const TCP: &[&str] =
        &["string", "rstring", "string-lf", "binary", "rbinary", "binary-lf", "custom"];
    const HTTP: &[&str] = &["string", "rstring", "string-lf", "status", "rstatus"];
    let mut at = exchange::start_of_expected(line);
    at += usize::from(line.word(at) == "!");
    let kind = line.word(at).trim_start_matches('!');
    if is_http && matches!(kind, "hdr" | "fhdr") {
        return value(line, at + 1);
    }
    let kinds = if is_http { HTTP } else { TCP };
    if !kinds.contains(&kind) {
        return refused("a check does not expect this", kind);
    }
    value(line, at + 1)?;
    let known: Vec<(&str, usize)> = EXPECT_WITH_VALUE.iter().map(|name| (*name, 1)).collect();
    parameters(line, at + 2, &known)?;
    let value = line.word(at + 1);
    match kind {
        "status" if !is_codes(value) => refused("no status codes", value),
        "binary" if !is_hexadecimal(value) => refused("no pairs of hexadecimal digits", value),
        _ => Ok(()),
    }
}

/// `200,300-399`
fn is_codes(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        is_number(first) && is_number(last)
    };
    text.split(',').all(|part| is_part(part.trim()))
}

fn is_hexadecimal(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|it| it.is_ascii_hexdigit())
}
