//! Dialogues of health checks: `tcp-check` rules and the built-in ones.

use std::rc::Rc;

use super::lexer::Line;
use super::sections::Proxy;
use crate::convert::literal;
use crate::convert::report::{Place, Report};

/// One step: bytes to send, then bytes to expect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) send: Option<Vec<u8>>,
    /// A prefix of the answer.
    pub(super) expect: Option<Vec<u8>>,
    /// Bytes anywhere in the answer.
    pub(super) contains: Option<Vec<u8>>,
}

/// The rules of a check.
#[derive(Debug, Clone, Default)]
pub(super) struct Dialogue {
    pub(super) steps: Vec<Step>,
    /// Of `connect`.
    pub(super) port: Option<u16>,
    pub(super) has_tls: bool,
    /// TLS server name.
    pub(super) name: Option<String>,
    pub(super) sends_proxy: bool,
}

/// The rules that act: a proxy's own, or those of its defaults.
fn rules<'a>(proxy: &'a Proxy, keyword: &str) -> Vec<&'a Rc<Line>> {
    let is = |line: &&Rc<Line>| line.word(0) == keyword && !line.is_no;
    let own: Vec<&Rc<Line>> = proxy.own().iter().filter(is).collect();
    if own.is_empty() { proxy.lines.iter().filter(is).collect() } else { own }
}

/// The rules of the first connection of a check. Those of others are reported.
pub(super) fn of_first<'a>(proxy: &'a Proxy, keyword: &str, report: &Report) -> Vec<&'a Rc<Line>> {
    let mut rules = rules(proxy, keyword);
    let is_connect = |line: &&Rc<Line>| line.word(1) == "connect";
    let Some(first) = rules.iter().position(is_connect) else { return rules };
    let second = rules.iter().skip(first + 1).position(is_connect);
    let Some(second) = second.map(|at| first + 1 + at) else { return rules };
    for line in rules.split_off(second) {
        match line.word(1) {
            "connect" => {
                let reason = "a probe has one connection: what the check does with this one is \
                              lost, and a server counts as up without it";
                report.urgent(line.place, reason);
            }
            "comment" => {}
            _ => report.report(line.place, "of another connection than the first one of a probe"),
        }
    }
    rules
}

/// Reads `tcp-check` rules.
pub(super) fn tcp_check(proxy: &Proxy, report: &Report) -> Dialogue {
    let mut dialogue = Dialogue::default();
    for line in of_first(proxy, "tcp-check", report) {
        match line.word(1) {
            "connect" => connect(line, &mut dialogue, report),
            "send" => send(&mut dialogue, line.word(2).as_bytes()),
            "send-binary" => match bytes(line.word(2)) {
                Some(bytes) => send(&mut dialogue, &bytes),
                None => report.report(line.place, "not pairs of hexadecimal digits"),
            },
            "expect" => expect(line, &mut dialogue, report),
            "comment" => {}
            other => {
                report.report(line.place, format!("{other}: a probe sends and expects constants"));
            }
        }
    }
    dialogue
}

/// Reads `connect` with its parameters.
pub(super) fn connect(line: &Line, dialogue: &mut Dialogue, report: &Report) {
    let mut words = line.from(2).iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "port" => dialogue.port = words.next().and_then(|port| port.parse().ok()),
            "ssl" => dialogue.has_tls = true,
            "send-proxy" => dialogue.sends_proxy = true,
            "sni" => dialogue.name = words.next().cloned(),
            "default" | "linger" => {}
            "comment" => drop(words.next()),
            "addr" => {
                words.next();
                let reason = "the probe goes to the address of the server, not to another one";
                report.report(line.place, reason);
            }
            other => {
                let reason = format!("{other}: a probe connects as a session does");
                report.report(line.place, reason);
                if matches!(other, "alpn" | "proto") {
                    words.next();
                }
            }
        }
    }
}

fn send(dialogue: &mut Dialogue, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    // Two sends in a row are one.
    match dialogue.steps.last_mut() {
        Some(Step { send: Some(before), expect: None, contains: None }) => before.extend(bytes),
        _ => dialogue.steps.push(Step { send: Some(bytes.to_vec()), ..Step::default() }),
    }
}

/// Words of an `expect` rule, of TCP or HTTP, that a value follows.
pub(super) const EXPECT_WITH_VALUE: &[&str] = &[
    "min-recv",
    "comment",
    "ok-status",
    "error-status",
    "tout-status",
    "on-success",
    "on-error",
    "status-code",
];

/// The position of what an `expect` rule expects, after parameters.
pub(super) fn start_of_expected(line: &Line) -> usize {
    let mut at = 2;
    while EXPECT_WITH_VALUE.contains(&line.word(at)) {
        at += 2;
    }
    at
}

/// What an `expect` rule expects: whether it is negated, its kind and its value.
pub(super) fn expected<'a>(line: &'a Line, report: &Report) -> (bool, &'a str, &'a str) {
    if line.words.iter().any(|word| word == "min-recv") {
        let reason = "min-recv: a probe compares as many bytes as it expects";
        report.report(line.place, reason);
    }
    let at = start_of_expected(line);
    match line.word(at).strip_prefix('!') {
        Some("") => (true, line.word(at + 1), line.word(at + 2)),
        Some(kind) => (true, kind, line.word(at + 1)),
        None => (false, line.word(at), line.word(at + 1)),
    }
}

fn expect(line: &Line, dialogue: &mut Dialogue, report: &Report) {
    let place = line.place;
    let (is_negated, kind, value) = expected(line, report);
    let found = match kind {
        _ if is_negated => None,
        "string" if !value.is_empty() => Some(Found::Inside(value.into())),
        "rstring" => pattern(value),
        "binary" => bytes(value).map(Found::Inside),
        _ => None,
    };
    let (prefix, inside) = match found {
        Some(Found::Prefix(bytes)) => (Some(bytes), None),
        Some(Found::Inside(bytes)) => (None, Some(bytes)),
        None => {
            let not = if is_negated { "! " } else { "" };
            let reason = format!(
                "{not}{kind}: a probe expects constant bytes; without it more servers count as up"
            );
            report.urgent(place, reason);
            return;
        }
    };
    match dialogue.steps.last_mut() {
        Some(step) if step.expect.is_none() && step.contains.is_none() => {
            (step.expect, step.contains) = (prefix, inside);
        }
        _ => dialogue.steps.push(Step { send: None, expect: prefix, contains: inside }),
    }
}

enum Found {
    Prefix(Vec<u8>),
    Inside(Vec<u8>),
}

/// A regular expression that says nothing else than constant bytes.
fn pattern(pattern: &str) -> Option<Found> {
    let (is_prefix, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let mut text = String::new();
    let mut chars = rest.trim_end_matches(".*").chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^'
                | '$' | '\\' | '/' | '-' | ' ') => text.push(c),
                _ => return None,
            },
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => {
                return None;
            }
            c => text.push(c),
        }
    }
    if text.is_empty() {
        return None;
    }
    let bytes = text.into();
    Some(if is_prefix { Found::Prefix(bytes) } else { Found::Inside(bytes) })
}

/// The bytes of hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

/// The dialogue of `option smtpchk`.
pub(super) fn smtp(line: &Line, report: &Report) -> Vec<Step> {
    report.near(line.place, "a dialogue of the same steps: 220, HELO, 2xx");
    let (hello, domain) = match (line.word(2), line.word(3)) {
        (hello @ ("HELO" | "EHLO"), domain) if !domain.is_empty() => (hello, domain),
        _ => ("HELO", "localhost"),
    };
    vec![
        Step { expect: Some("220".into()), ..Step::default() },
        Step {
            send: Some(format!("{hello} {domain}\r\n").into()),
            expect: Some("2".into()),
            contains: None,
        },
    ]
}

/// The dialogue of `option redis-check`.
pub(super) fn redis(place: Place, report: &Report) -> Vec<Step> {
    report.near(place, "a dialogue of the same steps: PING, +PONG");
    let send = Some("*1\r\n$4\r\nPING\r\n".into());
    vec![Step { send, expect: Some("+PONG\r\n".into()), contains: None }]
}

/// As the value of `health.exchange`.
pub(super) fn literal(steps: &[Step]) -> String {
    let one = |step: &Step| {
        let parts = [("send", &step.send), ("expect", &step.expect), ("contains", &step.contains)];
        let parts: Vec<String> = parts
            .iter()
            .filter_map(|(key, it)| Some(format!("{key} = {}", literal::bytes(it.as_ref()?))))
            .collect();
        format!("{{ {} }}", parts.join(", "))
    };
    let all: Vec<String> = steps.iter().map(one).collect();
    match all.as_slice() {
        [one] => one.clone(),
        _ => format!("[\n    {},\n]", all.join(",\n    ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_constant_bytes_are_prefixes_or_inside() {
        assert!(matches!(pattern("^220 "), Some(Found::Prefix(text)) if text == b"220 "));
        assert!(
            matches!(pattern(r"role:master"), Some(Found::Inside(text)) if text == b"role:master")
        );
        assert!(matches!(pattern(r"^\+OK"), Some(Found::Prefix(text)) if text == b"+OK"));
        for other in ["^2[0-9]", "a|b", "", "^.*x", r"\d"] {
            assert!(pattern(other).is_none(), "{other}");
        }
        assert_eq!(bytes("50494e470d0a").as_deref(), Some(&b"PING\r\n"[..]));
        assert_eq!(bytes("ff00").as_deref(), Some(&[255, 0][..]));
        assert_eq!(bytes("f").or_else(|| bytes("xx")), None);
    }

    #[test]
    fn several_steps_are_a_list() {
        let steps = redis(Place { file: 0, line: 1 }, &Report::new("x", "x"));
        assert_eq!(literal(&steps), r#"{ send = "*1\r\n$4\r\nPING\r\n", expect = "+PONG\r\n" }"#);
        let two =
            literal(&[steps[0].clone(), Step { expect: Some("x".into()), ..Step::default() }]);
        assert!(
            two.starts_with("[\n    { send") && two.ends_with("{ expect = \"x\" },\n]"),
            "{two}"
        );
    }
}
