//! Lines whose arguments HAProxy refuses: too many, too few, or out of range.

use super::lexer::{self, Line};
use crate::convert::literal;
use crate::convert::report::Report;

/// HAProxy's timers are signed 32-bit numbers of milliseconds.
const TIME_MAX: u64 = 2_147_483_647;

/// Lines with one argument: HAProxy refuses a second one.
const SINGLE: &[&str] = &["maxconn", "retries", "backlog", "fullconn", "mode", "default_backend"];

/// Options with an argument. HAProxy refuses one after any other option.
const OPTIONS: &[&str] = &[
    "httpchk",
    "mysql-check",
    "pgsql-check",
    "smtpchk",
    "spop-check",
    "redispatch",
    "forwardfor",
    "originalto",
    "forwarded",
    "httplog",
    "httpslog",
    "tcplog",
    "transparent",
    "http-restrict-req-hdr-names",
];

/// Refuses a line of a proxy.
pub(super) fn of_proxy(line: &Line, report: &Report) {
    let (first, second) = (line.word(0), line.word(1));
    if line.is_no && !matches!(first, "option" | "log") {
        let problem = "HAProxy has \"no\" before option and log only; remove the line";
        return report.refuse(line.place, problem);
    }
    let most = match first {
        "timeout" => 3,
        "option" if OPTIONS.contains(&second) => usize::MAX,
        "option" | "contimeout" | "clitimeout" | "srvtimeout" => 2,
        _ if SINGLE.contains(&first) => 2,
        _ => usize::MAX,
    };
    if let Some(word) = line.words.get(most) {
        report.refuse(line.place, format!("{word:?} is one argument too many; remove it"));
    }
    match first {
        "timeout" => time(line, 2, report),
        "contimeout" | "clitimeout" | "srvtimeout" => time(line, 1, report),
        "tcp-request" | "tcp-response" if second == "inspect-delay" => time(line, 2, report),
        "mode" if second == "health" => {
            let problem = "HAProxy has no mode health any more; remove the section";
            report.refuse(line.place, problem);
        }
        "use_backend" => condition(line, 2, report),
        "tcp-request" | "tcp-response"
            if matches!(line.word(2), "accept" | "reject")
                || (line.word(2) == "silent-drop" && line.word(3) != "rst-ttl") =>
        {
            condition(line, 3, report);
        }
        "source" if second.is_empty() => {
            report.refuse(line.place, "source without an address; write one");
        }
        "rate-limit" if second != "sessions" => {
            report.refuse(line.place, format!("no rate of {second:?}; write sessions"));
        }
        "rate-limit" => {
            // HAProxy takes a number below 0 for one above 4 billions.
            let word = line.word(2);
            let digits = word.strip_prefix('-').unwrap_or(word);
            if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
                let problem = format!("{word:?} is no rate; write sessions in a second");
                report.refuse(line.place, problem);
            }
        }
        "stats" if matches!(second, "auth" | "uri") && line.word(2).is_empty() => {
            report.refuse(line.place, format!("stats {second} without its value; write it"));
        }
        "tcp-check" => tcp_check(line, report),
        _ => {}
    }
}

/// The number that a word begins with, as HAProxy reads it (atol(3)); 0: it begins with none.
/// None: it has a variable without a value.
pub(super) fn integer(word: &str) -> Option<i64> {
    if lexer::unset(word).is_some() {
        return None;
    }
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number = digits[..end].parse().unwrap_or(if end > 0 { i64::MAX } else { 0 });
    Some(if word.starts_with('-') { -number } else { number })
}

/// `5`, or `0-5`.
pub(super) fn is_count(word: &str) -> bool {
    let Some(first) = integer(word) else { return true };
    match word.split_once('-') {
        Some((_, last)) => integer(last).is_some_and(|last| (0..=last).contains(&first)),
        None => first > 0,
    }
}

/// Whether an address ends with a range of ports.
pub(super) fn is_range(address: &str) -> bool {
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    port.split_once('-').is_some_and(|(first, last)| is_number(first) && is_number(last))
}

/// Says which number HAProxy reads in a word that is none.
pub(super) fn note_integer(line: &Line, word: &str, report: &Report) {
    if let Some(number) = integer(word).filter(|_| word.parse::<i64>().is_err()) {
        report.near(line.place, format!("{word:?} is no number: HAProxy reads {number}"));
    }
}

/// Whether the value of a parameter of a server line is a number.
pub(super) fn is_number(word: &str) -> bool {
    ["weight", "rise", "fall", "maxconn", "maxqueue", "minconn", "port"].contains(&word)
}

/// Whether HAProxy refuses the value of a parameter of a server line.
pub(super) fn is_refused(word: &str, value: &str) -> bool {
    match word {
        "weight" => integer(value).is_some_and(|it| !(0..=256).contains(&it)),
        "inter" | "fastinter" | "downinter" => {
            literal::millis(value, 1).is_none_or(|it| it == 0 || it > TIME_MAX)
        }
        "slowstart" => literal::millis(value, 1).is_none_or(|it| it > TIME_MAX),
        "rise" | "fall" => integer(value).is_some_and(|it| it <= 0),
        "on-marked-down" => value != "shutdown-sessions",
        "on-marked-up" => value != "shutdown-backup-sessions",
        "observe" => !matches!(value, "none" | "layer4" | "layer7"),
        "on-error" => !matches!(value, "fastinter" | "fail-check" | "sudden-death" | "mark-down"),
        "resolve-prefer" => !matches!(value, "ipv4" | "ipv6"),
        "init-addr" => {
            let is_known = |it: &str| {
                matches!(it, "last" | "libc" | "none") || it.parse::<std::net::IpAddr>().is_ok()
            };
            !value.split(',').all(is_known)
        }
        _ => false,
    }
}

/// Refuses a time that is none, or that no timer of HAProxy can hold.
pub(super) fn time(line: &Line, at: usize, report: &Report) {
    let word = line.word(at);
    if lexer::unset(word).is_some() || line.is_no {
        return;
    }
    let problem = match literal::millis(word, 1) {
        Some(millis) if millis <= TIME_MAX => return,
        Some(_) => format!("{word:?} is longer than HAProxy's 24.8 days; write a shorter time"),
        None if word.is_empty() => "no time; write one such as 5s".to_owned(),
        None => format!("{word:?} is no time; write one such as 5s"),
    };
    report.refuse(line.place, problem);
}

/// Refuses words that are no condition. (`if` alone is one that never holds.)
fn condition(line: &Line, at: usize, report: &Report) {
    let word = line.word(at);
    if !matches!(word, "" | "if" | "unless") && lexer::unset(word).is_none() {
        report.refuse(line.place, format!("{word:?} is no condition; write if or unless"));
    }
}

fn tcp_check(line: &Line, report: &Report) {
    let (second, value) = (line.word(1), line.word(2));
    let is_hexadecimal =
        value.len().is_multiple_of(2) && value.bytes().all(|it| it.is_ascii_hexdigit());
    match second {
        "send" | "send-binary" if value.is_empty() => {
            report.refuse(line.place, format!("tcp-check {second} without its value; write it"));
        }
        "send-binary" if !is_hexadecimal && lexer::unset(value).is_none() => {
            let problem = format!("{value:?} is no pairs of hexadecimal digits; correct it");
            report.refuse(line.place, problem);
        }
        _ => {}
    }
}
