//! Lines that HAProxy refuses because of the section that they are in, and names that lead to
//! nothing.

use super::lexer::{self, Line};
use super::sections::{Defaults, Proxy, Role, Sections};
use crate::convert::report::Report;

/// Lines that no `defaults` section may have.
const NEVER: &[&str] = &[
    "bind",
    "server",
    "server-template",
    "use_backend",
    "use-server",
    "dispatch",
    "stick",
    "stick-table",
    "filter",
    "redirect",
    "capture",
    "description",
    "id",
    "monitor",
    "force-persist",
    "ignore-persist",
    "declare",
];

/// Lines that only a `defaults` section with a name may have.
const NAMED: &[&str] =
    &["acl", "tcp-request", "tcp-response", "http-request", "http-response", "http-after-response"];

/// Refuses lines of a `defaults` section.
pub(super) fn of_defaults(defaults: &Defaults, report: &Report) {
    for line in defaults.own() {
        let first = line.word(0);
        let is_stats = first == "stats" && matches!(line.word(1), "admin" | "http-request");
        if NEVER.contains(&first) || is_stats {
            let problem = format!("{first} is not allowed in defaults; move it to a proxy");
            report.refuse(line.place, problem);
        } else if NAMED.contains(&first) && defaults.name.is_empty() {
            let problem = format!(
                "{first} is not allowed in defaults without a name; give the section one, or move \
                 the line to a proxy"
            );
            report.refuse(line.place, problem);
        }
    }
}

/// Refuses lines of a proxy.
pub(super) fn of_proxy(proxy: &Proxy, sections: &Sections, report: &Report) {
    for line in proxy.own() {
        let (first, second) = (line.word(0), line.word(1));
        let wanted = match (proxy.role, first, second) {
            (
                Role::Frontend,
                "server" | "server-template" | "default-server" | "tcp-response",
                _,
            ) => "backend or listen",
            (Role::Backend, "tcp-request", "connection" | "session") => "frontend or listen",
            _ => continue,
        };
        let problem = format!("{first} is not allowed here; move it to a {wanted} section");
        report.refuse(line.place, problem);
    }
    connect_first(proxy, report);
    tables(proxy, sections, report);
    resolvers(proxy, sections, report);
}

/// A `connect`, if there is one, is the first step of a check; a connection has one HTTP request.
fn connect_first(proxy: &Proxy, report: &Report) {
    let is_step = |word: &str| {
        word != "comment" && !word.starts_with("set-var") && !word.starts_with("unset-var")
    };
    for check in ["tcp-check", "http-check"] {
        let is_option = |word: &str| matches!(word, "disable-on-404" | "send-state");
        let steps = proxy.own().iter().filter(|line| line.word(0) == check);
        let steps = steps.filter(|line| is_step(line.word(1)) && !is_option(line.word(1)));
        let mut starts = true;
        let mut sends = 0;
        for (at, line) in steps.enumerate() {
            match line.word(1) {
                "connect" if !starts => {
                    let problem = format!(
                        "{check} connect is not the first step; write one before the others"
                    );
                    return report.refuse(line.place, problem);
                }
                "connect" => sends = 0,
                "send" if check == "http-check" && sends > 0 => {
                    let problem = "a second request of one connection; write a connect before it";
                    return report.refuse(line.place, problem);
                }
                "send" => (starts, sends) = (starts && at > 0, sends + 1),
                _ => starts &= at > 0,
            }
        }
    }
}

/// The table of a `stick` or a `track-sc` line exists.
fn tables(proxy: &Proxy, sections: &Sections, report: &Report) {
    for line in proxy.own() {
        let is_user = match line.word(0) {
            "stick" => proxy.has_servers(),
            "tcp-request" | "http-request" => {
                line.words.iter().take(3).any(|word| word.starts_with("track-sc"))
            }
            _ => false,
        };
        if !is_user || proxy.is_disabled() {
            continue;
        }
        let name = after(line, "table").unwrap_or(&proxy.name);
        let has_table = |proxy: &Proxy| proxy.all("stick-table").next().is_some();
        // `PEERS/TABLE` is a table of a peers section.
        let is_elsewhere = name.contains('/') || lexer::unset(name).is_some();
        if !is_elsewhere && !sections.named(name).any(has_table) {
            let problem = format!("{name} has no stick-table; write one there");
            report.refuse(line.place, problem);
        }
    }
}

/// The `resolvers` section of a server exists, which it or a `default-server` line before it names.
/// `default` is there without being written.
fn resolvers(proxy: &Proxy, sections: &Sections, report: &Report) {
    let mut default = None;
    for line in proxy.lines.iter().filter(|_| !proxy.is_disabled()) {
        let own = after(line, "resolvers").map(|name| (line.place, name)).or(default);
        match line.word(0) {
            "default-server" => default = own,
            "server" | "server-template" => {}
            _ => continue,
        }
        let Some((place, name)) = own.filter(|_| line.word(0) != "default-server") else {
            continue;
        };
        let is_there =
            sections.others.iter().any(|other| other.kind == "resolvers" && other.name == name);
        if !is_there && name != "default" && lexer::unset(name).is_none() {
            let problem = format!("there is no resolvers section {name:?}; correct the name");
            report.refuse(place, problem);
        }
    }
}

/// The word after another one.
fn after<'a>(line: &'a Line, word: &str) -> Option<&'a str> {
    let at = line.words.iter().position(|it| it == word)?;
    line.words.get(at + 1).map(String::as_str)
}
