//! Arguments that nginx refuses: words out of a closed set, addresses and numbers.

use super::lexer::Directive;
use crate::convert::literal;
use crate::convert::networks::Network;
use crate::convert::report::Report;

/// Refuses a line whose arguments nginx refuses.
pub(super) fn of_line(line: &Directive, report: &Report) {
    let first = line.word(0);
    let arguments: Vec<&str> = line.arguments.iter().map(String::as_str).collect();
    let is_template = |word: &&str| word.contains(['{', '<', '%']);
    let wrong = match line.name.as_str() {
        // Nothing is known of a template.
        _ if arguments.iter().any(is_template) => None,
        "random" => random(&arguments),
        "hash" => match arguments.as_slice() {
            [_] | [_, "consistent"] => None,
            _ => Some("hash has a key, and consistent"),
        },
        "resolver" => resolver(&arguments),
        "allow" | "deny" => {
            let is_known = matches!(first, "all" | "unix:")
                || first.contains('$')
                || Network::parse(first).is_some();
            (!is_known).then_some("no network of clients")
        }
        "set_real_ip_from" => Network::is_too_long(first).then_some("no network of peers"),
        "limit_conn" => {
            let is_number = line.word(1).parse::<u16>().is_ok_and(|number| number > 0);
            (!is_number || arguments.len() != 2).then_some("limit_conn has a zone and 1 to 65535")
        }
        "limit_conn_zone" => {
            let size = line.word(1).strip_prefix("zone=").and_then(|it| it.split_once(':'));
            let is_size = size.is_some_and(|(_, size)| size.starts_with(|c: char| c.is_numeric()));
            (!is_size).then_some("limit_conn_zone has a key and zone=NAME:SIZE")
        }
        "proxy_next_upstream_tries" => number(first, 0),
        "proxy_bind" => {
            let is_known = matches!(arguments.as_slice(), [_] | [_, "transparent"]);
            (!is_known).then_some("proxy_bind has an address, and transparent")
        }
        "listen" => arguments.iter().skip(1).find_map(|word| listen(word)),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let text = format!("{} {}", line.name, arguments.join(" "));
        report.refuse(line.place, format!("{wrong}: {text:?}; correct it"));
    }
}

fn random(arguments: &[&str]) -> Option<&'static str> {
    match arguments {
        [] | ["two"] => None,
        ["two", method] if *method == "least_conn" || method.starts_with("least_time") => None,
        _ => Some("random has two, and least_conn"),
    }
}

fn resolver(arguments: &[&str]) -> Option<&'static str> {
    let servers = arguments.iter().filter(|word| !word.contains('=')).count();
    if servers == 0 {
        return Some("a resolver has an address");
    }
    arguments.iter().find_map(|word| match word.split_once('=') {
        Some(("valid", time)) if literal::millis(time, 1000).is_none() => Some("no time"),
        Some(("ipv4" | "ipv6", value)) => {
            (!matches!(value, "on" | "off")).then_some("on or off is the value")
        }
        Some(("valid" | "status_zone", _)) => None,
        Some(_) => Some("no parameter of a resolver"),
        None => None,
    })
}

fn number(word: &str, least: u32) -> Option<&'static str> {
    let is_number = word.parse::<u32>().is_ok_and(|number| number >= least);
    (!is_number).then_some("no number, or one that is too low")
}

/// A parameter of `listen`.
fn listen(parameter: &str) -> Option<&'static str> {
    match parameter.split_once('=')? {
        ("backlog", "-1") => None,
        ("backlog", value) => number(value, 1),
        ("so_keepalive", value) => {
            let parts: Vec<&str> = value.split(':').collect();
            let is_time = |it: &&&str| it.is_empty() || literal::millis(it, 1000).is_some();
            let is_known = matches!(value, "on" | "off")
                || (parts.len() <= 3
                    && parts.iter().any(|it| !it.is_empty())
                    && parts.iter().filter(is_time).count() == parts.len());
            (!is_known).then_some("so_keepalive is on, off or times")
        }
        ("ipv6only", value) => (!matches!(value, "on" | "off")).then_some("ipv6only is on or off"),
        ("reuseport" | "bind" | "deferred" | "ssl" | "proxy_protocol" | "udp", _) => {
            Some("a parameter without a value")
        }
        _ => None,
    }
}
