//! Lines that HAProxy refuses: unknown keywords, values out of range, references to nothing, and
//! duplicate names.

use std::collections::HashMap;

use super::arguments;
use super::check_rules;
use super::keywords::{self, Section};
use super::lexer::{self, Line};
use super::places;
use super::sections::{Proxy, Sections};
use super::terms;
use super::values;
use crate::convert::report::{Place, Report};

/// Reports every line that HAProxy refuses, in whatever version.
pub(super) fn verify(sections: &Sections, report: &Report) {
    for line in &sections.global {
        global(line, report);
    }
    for defaults in &sections.defaults {
        defaults.own().iter().for_each(|line| proxy_line(line, report));
        places::of_defaults(defaults, report);
    }
    for proxy in &sections.proxies {
        // Lines of `defaults` are seen once for each proxy, and reported once.
        for line in &proxy.lines {
            proxy_line(line, report);
        }
        names(proxy, report);
        places::of_proxy(proxy, sections, report);
        // HAProxy does not look at these in a section that is disabled.
        if !proxy.is_disabled() {
            same_names(proxy, report);
            references(proxy, sections, report);
            servers_checked(proxy, report);
        }
    }
    duplicates(&sections.proxies, report);
    for other in sections.others.iter().filter(|other| other.kind == "resolvers") {
        for line in &other.lines {
            if keywords::resolvers(line.word(0)).is_none() {
                unknown(line, Section::Resolvers, report);
            }
            if line.word(0) == "nameserver" && line.word(2).is_empty() {
                report.refuse(line.place, "a name server needs a name and an address; write both");
            }
        }
    }
}

fn unknown(line: &Line, section: Section, report: &Report) {
    let (word, second) = (line.word(0), line.word(1));
    let place = match section {
        Section::Global => "section global",
        Section::Resolvers => "section resolvers",
        _ => "a proxy",
    };
    let remedy = keywords::remedy_in(section, word, second);
    report.refuse(line.place, format!("HAProxy has no keyword {word:?} in {place}; {remedy}"));
}

fn global(line: &Line, report: &Report) {
    if keywords::global(line.word(0), line.word(1)).is_none() {
        return unknown(line, Section::Global, report);
    }
    let word = line.word(1);
    match line.word(0) {
        "maxconn" | "ulimit-n" => number(line, report),
        name @ ("nbthread" | "nbproc") if lexer::unset(word).is_none() => match word.parse::<i64>()
        {
            Ok(1..) => {}
            Ok(_) => report.refuse(line.place, format!("{name} is at least 1; correct it")),
            Err(_) => report.refuse(line.place, format!("{word:?} is no number; write one")),
        },
        _ => {}
    }
    if line.word(0) == "hard-stop-after" {
        arguments::time(line, 1, report);
    }
}

fn proxy_line(line: &Line, report: &Report) {
    let (first, second) = (line.word(0), line.word(1));
    if keywords::proxy(first, second).is_none() {
        return match first {
            "option" | "timeout" | "stats" | "tcp-request" | "tcp-response" | "stick" => {
                let remedy = keywords::remedy_in(Section::Proxy, first, second);
                let problem = format!("HAProxy has no \"{first} {second}\"; {remedy}");
                report.refuse(line.place, problem);
            }
            _ => unknown(line, Section::Proxy, report),
        };
    }
    arguments::of_proxy(line, report);
    values::of_proxy(line, report);
    check_rules::of_proxy(line, report);
    match first {
        "maxconn" | "retries" | "backlog" | "fullconn" => number(line, report),
        "mode" if !matches!(second, "tcp" | "http" | "health" | "log" | "spop" | "haterm") => {
            report.refuse(line.place, format!("no mode {second:?}; write tcp or http"));
        }
        "default_backend" | "use_backend" if second.is_empty() => {
            report.refuse(line.place, format!("{first} without a backend; name one"));
        }
        "bind" => bind(line, report),
        "server" | "default-server" | "server-template" => server(line, report),
        "acl" => acl(line, report),
        _ => {}
    }
}

/// A word without a variable that has no value.
fn settled(line: &Line, at: usize) -> Option<&str> {
    let word = line.word(at);
    lexer::unset(word).is_none().then_some(word)
}

/// HAProxy accepts any word for a number.
fn number(line: &Line, report: &Report) {
    let word = line.word(1);
    if line.is_no {
        return;
    }
    if word.is_empty() {
        return report.refuse(line.place, format!("no number; write one after {}", line.word(0)));
    }
    arguments::note_integer(line, word, report);
}

fn bind(line: &Line, report: &Report) {
    if line.word(1).is_empty() {
        return report.refuse(line.place, "bind without an address; write one");
    }
    parameters(line, 2, Section::Bind, report);
}

fn server(line: &Line, report: &Report) {
    let start = match line.word(0) {
        "default-server" => 1,
        "server" => 3,
        _ => 4,
    };
    if line.words.len() < start {
        let problem = "a server needs a name and an address; write both";
        return report.refuse(line.place, problem);
    }
    if line.word(0) == "server-template" && !arguments::is_count(line.word(2)) {
        let problem = "a server template needs a number or a range; write it after the name";
        return report.refuse(line.place, problem);
    }
    parameters(line, start, Section::Server, report);
    if line.word(0) == "server" && arguments::is_range(line.word(2)) {
        report.refuse(line.place, "a server has one port, not a range; write one of them");
    }
    for (at, word) in line.words.iter().enumerate().skip(start) {
        let options = line.from(at + 2);
        let is_option = |pair: &&[String]| matches!(pair[0].as_str(), "usesrc" | "interface");
        let count = options.chunks(2).take_while(is_option).count();
        if word == "source"
            && let Err(problem) =
                values::options_of_source(&options[..(2 * count).min(options.len())])
        {
            report.refuse(line.place, problem);
        }
        let Some(value) = settled(line, at + 1) else { continue };
        if arguments::is_refused(word, value) {
            report.refuse(line.place, format!("{word} {value:?} is out of range; correct it"));
        } else if arguments::is_number(word) {
            arguments::note_integer(line, value, report);
        }
    }
}

fn parameters(line: &Line, start: usize, section: Section, report: &Report) {
    let find = |word: &str| match section {
        Section::Bind => keywords::bind(word),
        _ => keywords::server(word),
    };
    let mut at = start;
    while at < line.words.len() {
        let word = line.word(at);
        let Some(keyword) = find(word) else {
            if lexer::unset(word).is_none() {
                let first = line.word(0);
                let remedy = keywords::remedy_in(section, word, "");
                let problem = format!("HAProxy has no {word:?} on a {first} line; {remedy}");
                report.refuse(line.place, problem);
            }
            return;
        };
        at += 1 + keyword.arguments;
        if at > line.words.len() {
            report.refuse(line.place, format!("{word} without its value; write it"));
        }
        // `source ADDRESS usesrc ADDRESS interface NAME`
        while word == "source" && matches!(line.word(at), "usesrc" | "interface") {
            at += 2;
        }
    }
}

fn acl(line: &Line, report: &Report) {
    let (name, criterion) = (line.word(1), line.word(2));
    if line.words.len() < 3 {
        return report.refuse(line.place, "an acl needs a name and a criterion; write both");
    }
    characters(line.place, name, report);
    if name.eq_ignore_ascii_case("or") {
        report.refuse(line.place, format!("{name:?} is no name of an acl; write another one"));
    }
    let end = criterion.find(['(', ',']).unwrap_or(criterion.len());
    if !keywords::is_sample(&criterion[..end]) && lexer::unset(criterion).is_none() {
        report.refuse(line.place, format!("HAProxy has no criterion {criterion:?}; correct it"));
    }
    if let Some(word) = terms::refused(line.from(2)).filter(|word| lexer::unset(word).is_none()) {
        let problem = format!("{word:?} is no value of {criterion}; correct it");
        report.refuse(line.place, problem);
    }
}

/// A proxy and its servers have names that HAProxy permits.
fn names(proxy: &Proxy, report: &Report) {
    characters(proxy.place(), &proxy.name, report);
    for line in proxy.all("server") {
        characters(line.place, line.word(1), report);
    }
}

/// Each server of a backend has a name of its own.
fn same_names(proxy: &Proxy, report: &Report) {
    let mut seen: HashMap<&str, Place> = HashMap::new();
    for line in proxy.all("server") {
        let name = line.word(1);
        if let Some(first) = seen.insert(name, line.place) {
            let problem =
                format!("server {name} is already in line {}; give it another name", first.line);
            report.refuse(line.place, problem);
        }
    }
}

/// Refuses a name with characters that HAProxy does not permit.
fn characters(place: Place, name: &str, report: &Report) {
    let is_permitted = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if lexer::unset(name).is_none()
        && let Some(other) = name.chars().find(|c| !is_permitted(*c))
    {
        let problem = format!("character {other:?} is not permitted in {name:?}; remove it");
        report.refuse(place, problem);
    }
}

/// A server that is probed has a port, its own or one of the check.
fn servers_checked(proxy: &Proxy, report: &Report) {
    let has_rule = proxy.lines.iter().any(|line| {
        matches!(line.word(0), "tcp-check" | "http-check") && line.word(1) == "connect"
    });
    let default = proxy.all("default-server").any(|line| line.words.iter().any(|it| it == "port"));
    for line in proxy.all("server").filter(|_| !has_rule && !default) {
        let has = |word: &str| line.from(3).iter().any(|it| it == word);
        let address = line.word(2);
        let has_port = address.contains([':', '/', '@', '$']) || lexer::unset(address).is_some();
        if has("check") && !has("port") && !has_port {
            let problem = "a server without a port is probed; add port NUMBER to its line";
            report.refuse(line.place, problem);
        }
    }
}

fn references(proxy: &Proxy, sections: &Sections, report: &Report) {
    for line in &proxy.lines {
        let first = line.word(0);
        if !matches!(first, "default_backend" | "use_backend") || !proxy.takes_clients() {
            continue;
        }
        let name = line.word(1);
        let is_static = !name.contains("%[") && lexer::unset(name).is_none() && !name.is_empty();
        if is_static && sections.backend(name).is_none() {
            report.refuse(line.place, format!("there is no backend {name:?}; correct the name"));
        }
    }
}

/// Two proxies of one name are refused, except a frontend and a backend.
fn duplicates(proxies: &[Proxy], report: &Report) {
    let mut seen: HashMap<&str, Vec<&Proxy>> = HashMap::new();
    for proxy in proxies {
        let same = seen.entry(&proxy.name).or_default();
        let clash = same.iter().find(|other| {
            (other.takes_clients() && proxy.takes_clients())
                || (other.has_servers() && proxy.has_servers())
        });
        if let Some(other) = clash {
            let (name, line) = (&proxy.name, other.place().line);
            let problem = format!("{name} is already in line {line}; give it another name");
            report.refuse(proxy.place(), problem);
        }
        same.push(proxy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::haproxy::lexer::Environment;
    use crate::convert::haproxy::sections::sections;

    #[test]
    fn what_haproxy_refuses_is_refused_with_its_line() {
        for (text, line) in [
            ("global\n maxcon 5\n", 2),
            ("foo bar\n", 1),
            ("listen x\n bind :80\n bnd :80\n", 3),
            ("listen x\n bind :80\n server a\n", 3),
            ("listen x\n option foo\n", 2),
            ("listen x\n mode udp\n", 2),
            ("listen x\n timeout client 5x\n", 2),
            ("listen x\n default_backend nope\n", 2),
            ("listen x\n acl a srcx 1\n", 2),
            ("listen x\n server a 1.2.3.4:5 chek\n", 2),
            ("listen x\n server a 1.2.3.4:5-9\n", 2),
            ("listen x\n server a 1.2.3.4:5 weight 300\n", 2),
            ("listen x\n server a 1.2.3.4:5\n server a 1.2.3.4:6\n", 3),
            ("listen x\n bind :80\nfrontend x\n", 3),
            ("listen x/y\n bind :80\n", 1),
            ("listen x\n server a/b 1.2.3.4:5\n", 2),
            ("frontend x\n server a 1.2.3.4:5\n", 2),
            ("listen x\n server a 1.2.3.4 check\n", 2),
            ("resolvers x\n nameservers a 1.2.3.4:53\n", 2),
            ("resolvers x\n nameserver 1.2.3.4:53\n", 2),
            ("listen x\n server-template a b:80 check\n", 2),
            ("listen x\n server-template a 0 b:80\n", 2),
            ("listen x\n server-template a 3-1 b:80\n", 2),
            ("listen x\n server-template a -3 b:80\n", 2),
            ("listen x\n maxconn\n", 2),
            ("global\n nbthread 5x\n", 2),
            ("listen x\n server a b:1 weight -1\n", 2),
            ("defaults\n default-server resolvers y\nlisten x\n server a b:1\n", 2),
            ("global\n nbthread 0\n", 2),
            // Arguments.
            ("listen x\n timeout client 5 s\n", 2),
            ("listen x\n timeout client 100d\n", 2),
            ("listen x\n tcp-request inspect-delay x\n", 2),
            ("listen x\n maxconn 5 6\n", 2),
            ("listen x\n mode tcp x\n", 2),
            ("listen x\n option tcpka x\n", 2),
            ("listen x\n no balance roundrobin\n", 2),
            ("listen x\n mode health\n", 2),
            ("listen x\n source\n", 2),
            ("listen x\n rate-limit sessions x\n", 2),
            ("listen x\n stats auth\n", 2),
            ("listen x\n server a b:1 check rise 0\n", 2),
            ("listen x\n server a b:1 check inter 0\n", 2),
            ("listen x\n server a b:1 on-marked-down x\n", 2),
            ("listen x\n tcp-request content accept x\n", 2),
            ("listen x\n tcp-check send\n", 2),
            ("listen x\n tcp-check send-binary 123\n", 2),
            ("frontend f\n use_backend x foo\nbackend x\n server a b:1\n", 2),
            // Places and names.
            ("defaults\n bind :80\n", 2),
            ("defaults\n server a b:1\n", 2),
            ("defaults\n acl a src 1.1.1.1\n", 2),
            ("defaults x from y\n", 1),
            ("defaults x\ndefaults x\nlisten y from x\n", 3),
            ("frontend f from x\n", 1),
            ("frontend f\n default-server check\n", 2),
            ("backend b\n tcp-request connection reject\n", 2),
            ("listen x\n tcp-check send a\n tcp-check connect\n", 3),
            ("listen x\n stick on src\n", 2),
            ("listen x\n stick on src table y\nbackend y\n server a b:1\n", 2),
            ("listen x\n tcp-request connection track-sc0 src table y\n", 2),
            ("listen x\n server a b:1 resolvers y\n", 2),
        ] {
            let report = Report::new("x", text);
            let outside = |_: &str| None;
            let lines = lexer::lines(text, &mut Environment::new(&outside), &report);
            verify(&sections(lines, &report), &report);
            let problems = report.accepted().expect_err(text).problems;
            assert!(problems[0].starts_with(&format!("x:{line}: ")), "{text}{problems:?}");
            assert!(problems[0].contains("; "), "{problems:?}");
        }
    }

    #[test]
    fn an_unknown_keyword_is_answered_with_the_nearest_known_one() {
        for (text, known) in [
            ("global\n maxcon 5\n", "maxconn"),
            ("listen x\n bnd :80\n", "bind"),
            ("listen x\n option httpchek\n", "option httpchk"),
            ("listen x\n timeout cient 5s\n", "timeout client"),
            ("listen x\n tcp-requst inspect-delay 5s\n", "tcp-request"),
            ("listen x\n server a 1.2.3.4:5 chek\n", "check"),
            ("listen x\n bind :80 accept-prxy\n", "accept-proxy"),
        ] {
            let report = Report::new("x", text);
            let outside = |_: &str| None;
            let lines = lexer::lines(text, &mut Environment::new(&outside), &report);
            verify(&sections(lines, &report), &report);
            let problems = report.accepted().expect_err(text).problems;
            assert!(problems[0].ends_with(&format!("; did you mean {known:?}?")), "{problems:?}");
        }
    }

    #[test]
    fn what_haproxy_accepts_is_not_refused() {
        for text in [
            // A frontend and a backend may have one name.
            "frontend x\n bind :80\n default_backend x\nbackend x\n server a b:1 check\n",
            "frontend f\n default_backend b\nbackend b\n mode http\n server a b:1\n",
            // HAProxy refuses it, but it is a usual part of a file whose defaults have the mode.
            "frontend f\n mode http\n default_backend b\nbackend b\n server a b:1\n",
            "listen x\n option redispatch 1\n no option tcpka\n no log\n timeout client 24d\n",
            "listen x\n stick-table type ip size 1\n stick on src\n server a b:1 slowstart 0\n",
            "listen x\n tcp-request content track-sc1 src table y\n\
             backend y\n stick-table type ip size 1\n",
            "listen x\n stick on src table p/t\n server a b:1 resolvers default\n",
            "defaults d\n acl a src 1.1.1.1\n tcp-request content reject if a\n\
             listen x from d\n",
            "listen x\n tcp-check comment a\n tcp-check connect\n tcp-check send a\n\
             tcp-check connect port 1\n",
            // Nothing uses the name.
            "backend b\n default-server resolvers y\n",
            "backend b\n server a b:1\n default-server resolvers y\n",
            "backend b\n default-server resolvers y\n server a b:1 resolvers default\n",
            "listen x\n disabled\n server a b:1 resolvers y\n server a b check\n \
             default_backend y\n",
            "listen x\n server-template a 0-3 b:1\n server-template b 0-0 b:1\n",
            "listen x\n maxconn abc\n retries 5x\n server a b:1 weight x maxconn x port x\n",
        ] {
            let report = Report::new("x", text);
            let outside = |_: &str| None;
            let lines = lexer::lines(text, &mut Environment::new(&outside), &report);
            verify(&sections(lines, &report), &report);
            assert_eq!(report.accepted(), Ok(()), "{text}");
        }
    }
}
