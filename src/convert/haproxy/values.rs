//! Words that HAProxy refuses where it has a closed set of them, and conditions without their end.

use super::arguments::{self, integer};
use super::lexer::{self, Line};
use crate::convert::literal;
use crate::convert::report::Report;

/// Refuses a line of a proxy.
pub(super) fn of_proxy(line: &Line, report: &Report) {
    // Without the value of a variable, nothing is known of the words.
    if line.is_no || line.words.iter().any(|word| lexer::unset(word).is_some()) {
        return;
    }
    let checked = match line.word(0) {
        "balance" => balance(line),
        "hash-type" => hash_type(line),
        "hash-balance-factor" => factor(line.word(1)),
        "retry-on" => each(line.from(1), is_retry, "no reason to retry"),
        "source" => source(line.from(1)),
        "stick-table" => stick_table(line),
        "tcp-request" => action(line).and_then(|()| braces(line)),
        "clitcpka-idle" | "clitcpka-intvl" | "srvtcpka-idle" | "srvtcpka-intvl" => {
            each(&line.words[1..], |it| literal::millis(it, 1000).is_some(), "no time")
                .and_then(|()| value(line, 1))
        }
        "clitcpka-cnt" | "srvtcpka-cnt" => {
            each(&line.words[1..], |it| it.parse::<u32>().is_ok(), "no number")
                .and_then(|()| value(line, 1))
        }
        "option" => login(line),
        "tcp-response"
        | "http-request"
        | "http-response"
        | "http-after-response"
        | "use_backend"
        | "use-server"
        | "redirect"
        | "stick"
        | "block" => braces(line),
        _ => Ok(()),
    };
    if let Err(problem) = checked {
        report.refuse(line.place, problem);
    }
}

/// The error is a problem and its remedy.
pub(super) type Checked = Result<(), String>;

pub(super) fn refused(what: &str, word: &str) -> Checked {
    Err(format!("{what}: {word:?}; correct it"))
}

/// Every word is one of a set.
fn each(words: &[String], is_known: impl Fn(&str) -> bool, what: &str) -> Checked {
    let other = words.iter().find(|word| !is_known(word));
    other.map_or(Ok(()), |word| refused(what, word))
}

/// A word is there.
pub(super) fn value(line: &Line, at: usize) -> Checked {
    match line.word(at) {
        "" => Err(format!("{} without its value; write it", line.words.join(" "))),
        _ => Ok(()),
    }
}

fn balance(line: &Line) -> Checked {
    let word = line.word(1);
    let (name, argument) = word.split_once('(').unwrap_or((word, ""));
    match name {
        "random" if word.contains('(') => {
            let draws = argument.trim_end_matches(')');
            let is_known = draws.is_empty() || draws.parse::<u32>().is_ok_and(|it| it > 0);
            if is_known { Ok(()) } else { refused("no number of draws", word) }
        }
        "roundrobin" | "static-rr" | "leastconn" | "first" | "source" if word.contains('(') => {
            refused("an algorithm without an argument", word)
        }
        _ if !is_algorithm(word) => Err(format!("no algorithm {word:?}; write roundrobin")),
        "hdr" if argument.is_empty() => refused("no name of a header", word),
        "url_param" | "hash" => value(line, 2),
        _ => Ok(()),
    }
}

fn is_algorithm(word: &str) -> bool {
    let name = word.split('(').next().unwrap_or_default();
    let known = ["roundrobin", "static-rr", "leastconn", "first", "source", "uri", "url_param"];
    let more = ["hdr", "random", "rdp-cookie", "hash", "log-hash", "log-sticky", "sticky"];
    name.is_empty() || known.contains(&name) || more.contains(&name) || name.starts_with("log-")
}

fn hash_type(line: &Line) -> Checked {
    let functions = ["sdbm", "djb2", "wt6", "crc32", "none"];
    for (at, known) in
        [&["consistent", "map-based"][..], &functions, &["avalanche"]].into_iter().enumerate()
    {
        let word = line.word(at + 1);
        // The function may be absent before its modifier.
        let is_modifier = at == 1 && word == "avalanche";
        if !known.contains(&word) && !is_modifier && (at == 0 || !word.is_empty()) {
            return refused("no type of a hash", word);
        }
    }
    Ok(())
}

fn factor(word: &str) -> Checked {
    match integer(word) {
        Some(0 | 101..) => Ok(()),
        _ => refused("a factor is 0 or more than 100", word),
    }
}

fn is_retry(word: &str) -> bool {
    const REASONS: &[&str] = &[
        "none",
        "conn-failure",
        "empty-response",
        "junk-response",
        "response-timeout",
        "0rtt-rejected",
        "all-retryable-errors",
    ];
    REASONS.contains(&word) || word.parse::<u16>().is_ok()
}

/// `ADDRESS [usesrc ADDRESS] [interface NAME]`
fn source(words: &[String]) -> Checked {
    let address = words.first().map_or("", String::as_str);
    if arguments::is_range(address) {
        return refused("a range of ports is for servers only", address);
    }
    options_of_source(words.get(1..).unwrap_or_default())
}

/// The words after the address of a `source`.
pub(super) fn options_of_source(words: &[String]) -> Checked {
    for pair in words.chunks(2) {
        let (name, value) = (pair[0].as_str(), pair.get(1).map_or("", String::as_str));
        match name {
            "interface" if !value.is_empty() => {}
            "usesrc"
                if matches!(value, "client" | "clientip")
                    || value.starts_with("hdr_ip(")
                    || value.contains(['.', ':', '*']) => {}
            "usesrc" | "interface" => return refused("no source", &format!("{name} {value}")),
            _ => return refused("no option of source", name),
        }
    }
    Ok(())
}

/// Counters of a table: each with `_rate` has a period.
const COUNTERS: &[&str] = &[
    "server_id",
    "server_key",
    "gpt",
    "gpt0",
    "gpc",
    "gpc0",
    "gpc1",
    "gpc_rate",
    "gpc0_rate",
    "gpc1_rate",
    "conn_cnt",
    "conn_cur",
    "conn_rate",
    "sess_cnt",
    "sess_rate",
    "http_req_cnt",
    "http_req_rate",
    "http_err_cnt",
    "http_err_rate",
    "http_fail_cnt",
    "http_fail_rate",
    "bytes_in_cnt",
    "bytes_in_rate",
    "bytes_out_cnt",
    "bytes_out_rate",
    "glitch_cnt",
    "glitch_rate",
];

fn stick_table(line: &Line) -> Checked {
    const TYPES: &[&str] = &["ip", "ipv4", "ipv6", "integer", "string", "binary"];
    let mut has_size = false;
    for pair in line.words.windows(2) {
        let word = pair[1].as_str();
        match pair[0].as_str() {
            "type" if !TYPES.contains(&word) => return refused("no type of a table", word),
            "size" if !is_size(word) => return refused("no size of a table", word),
            "size" => has_size = true,
            "expire" if literal::millis(word, 1).is_none() => return refused("no time", word),
            "store" => counters(word)?,
            _ => {}
        }
    }
    if has_size { Ok(()) } else { Err("a table without its size; write it".to_owned()) }
}

/// `10k`
fn is_size(word: &str) -> bool {
    let number = word.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(word);
    number.parse::<u64>().is_ok_and(|number| number > 0)
}

/// `conn_cur,conn_rate(10s)`
fn counters(list: &str) -> Checked {
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let inside = after.strip_prefix('(').map(|it| it.split(')').next().unwrap_or_default());
        if !COUNTERS.contains(&name) {
            return refused("no counter of a table", name);
        }
        let is_single = name.ends_with("_rate") && name != "gpc_rate";
        if is_single && inside.is_none_or(|period| literal::millis(period, 1).is_none()) {
            return refused("a counter without its period", list);
        }
        let length = inside.map_or(0, |inside| (inside.len() + 2).min(after.len()));
        rest = after[length..].trim_start_matches(',');
    }
    Ok(())
}

/// What a `tcp-request` rule does.
fn action(line: &Line) -> Checked {
    const ACTIONS: &[&str] = &[
        "accept",
        "reject",
        "capture",
        "expect-proxy",
        "expect-netscaler-cip",
        "silent-drop",
        "do-log",
        "do-resolve",
        "use-service",
        "switch-mode",
        "send-spoe-group",
        "attach-srv",
        "pause",
        "close",
    ];
    const FAMILIES: &[&str] = &["track-sc", "sc-", "set-", "unset-", "add-", "del-", "lua."];
    if !matches!(line.word(1), "connection" | "session" | "content") {
        return Ok(());
    }
    let word = line.word(2);
    let name = word.split('(').next().unwrap_or_default();
    if ACTIONS.contains(&name) || FAMILIES.iter().any(|it| name.starts_with(it)) {
        let needs_key = name.starts_with("track-sc");
        return if needs_key { value(line, 3) } else { Ok(()) };
    }
    refused("no action", word)
}

/// Each brace of a condition is closed, and holds a criterion.
fn braces(line: &Line) -> Checked {
    let start = line.words.iter().position(|word| matches!(word.as_str(), "if" | "unless"));
    let mut words = start.map_or(&[][..], |start| line.from(start + 1)).iter();
    while let Some(word) = words.next() {
        if word.trim_start_matches('!') != "{" {
            continue;
        }
        let inside = words.by_ref().position(|word| word == "}");
        match inside {
            None => return Err("a condition without its closing brace; add }".to_owned()),
            Some(0) => return Err("braces without a criterion; write one".to_owned()),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The user of a check of a database.
fn login(line: &Line) -> Checked {
    match (line.word(1), line.word(2)) {
        ("mysql-check", "") => Ok(()),
        ("mysql-check", "user") => {
            let version = line.word(4);
            if !matches!(version, "" | "post-41" | "pre-41") {
                return refused("no version of a handshake", version);
            }
            value(line, 3)
        }
        ("pgsql-check", "user") => value(line, 3),
        ("mysql-check" | "pgsql-check", other) => refused("a check has a user", other),
        _ => Ok(()),
    }
}
