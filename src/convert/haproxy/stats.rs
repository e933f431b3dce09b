//! Statistics and monitor pages: `observe.bind`.

use super::address::{self, Host, Port};
use super::lexer::{Environment, Line};
use super::sections::{Proxy, Sections};
use crate::convert::draft::Setting;
use crate::convert::literal;
use crate::convert::report::Report;

/// A proxy that serves nothing but a page of HAProxy itself.
pub(super) fn is_page(proxy: &Proxy) -> bool {
    let forwards = proxy.lines.iter().any(|line| {
        let rules = ["server", "server-template", "dispatch", "default_backend", "use_backend"];
        rules.contains(&line.word(0))
    });
    proxy.takes_clients() && !forwards && (has_statistics(proxy) || monitors(proxy))
}

fn has_statistics(proxy: &Proxy) -> bool {
    let own = proxy.own().iter();
    let mut own = own.filter(|line| !line.is_no);
    own.any(|line| line.word(0) == "stats" || serves_metrics(line))
}

fn monitors(proxy: &Proxy) -> bool {
    proxy.own().iter().any(|line| line.word(0) == "monitor-uri")
}

fn serves_metrics(line: &Line) -> bool {
    line.word(0) == "http-request"
        && line.word(1) == "use-service"
        && line.word(2) == "prometheus-exporter"
}

/// Whether a line keeps somebody away from the page.
fn restricts(line: &Line) -> bool {
    match (line.word(0), line.word(1)) {
        ("stats", "auth" | "http-request") => true,
        ("http-request", "return") => {
            line.words.windows(2).any(|two| two[0] == "status" && two[1].starts_with('4'))
        }
        ("http-request", second) => {
            matches!(second, "auth" | "deny" | "reject" | "tarpit" | "silent-drop")
        }
        ("tcp-request", "connection" | "session" | "content") => {
            matches!(line.word(2), "reject" | "silent-drop")
        }
        ("block", _) => true,
        _ => false,
    }
}

/// Whether a line keeps somebody away from statistics, in any proxy.
fn has_password(line: &Line) -> bool {
    line.word(0) == "stats" && matches!(line.word(1), "auth" | "http-request") && !line.is_no
}

/// The setting of `observe.bind` for the pages of a file.
pub(super) fn convert(
    sections: &Sections,
    environment: &Environment<'_>,
    report: &Report,
) -> Option<Setting> {
    let mut pages = sections.proxies.iter().filter(|proxy| is_page(proxy) && !proxy.is_disabled());
    // A page with a monitor alone gives way to one with statistics.
    let first = pages.clone().find(|page| has_statistics(page)).or_else(|| pages.next());
    for page in sections.proxies.iter().filter(|proxy| is_page(proxy)) {
        let is_first = first.is_some_and(|first| first.place() == page.place());
        notes(page, is_first, report);
    }
    let address = first.and_then(|page| page_address(page, sections, environment, report));
    let inside = || {
        let mut proxies = sections.proxies.iter().filter(|proxy| !is_page(proxy));
        let shown = |proxy: &Proxy| {
            let mut lines = proxy.lines.iter().filter(|line| !line.is_no);
            proxy.is_http() && lines.any(|line| line.word(0) == "stats")
        };
        proxies.any(shown).then(|| "127.0.0.1:8404".to_owned())
    };
    let address = address.or_else(|| first.map(|_| "127.0.0.1:8404".to_owned())).or_else(inside)?;
    Some(Setting { table: "observe", key: "bind", value: literal::quoted(&address) })
}

/// The address of a page: on 127.0.0.1 if the input restricts access to it.
fn page_address(
    page: &Proxy,
    sections: &Sections,
    environment: &Environment<'_>,
    report: &Report,
) -> Option<String> {
    let mut binds = page.all("bind");
    let line = binds.next()?;
    for more in binds {
        report.report(more.place, "evenkeel's status page has one address");
    }
    let has_tls = line.from(2).iter().any(|word| word == "ssl");
    if has_tls {
        report.urgent(line.place, "TLS is not ended: the status page is kept on 127.0.0.1");
    }
    let word = line.word(1);
    let one = word.split(',').next().unwrap_or_default();
    if one.len() != word.len() {
        report.report(line.place, "evenkeel's status page has one address");
    }
    let (host, port) = address::parse(one, environment).ok()?;
    let Port::Range(port, _) = port else {
        report.report(line.place, "evenkeel's status page has an IP address and a port");
        return None;
    };
    // A page of metrics alone becomes one of statistics, which has a password elsewhere.
    let mut others = sections.proxies.iter().filter(|other| !other.is_disabled());
    let is_elsewhere = others.any(|other| other.lines.iter().any(|line| has_password(line)));
    if !page.is_http() {
        let reason = "HAProxy serves no page in mode tcp: the status page is kept on 127.0.0.1";
        report.near(page.place(), reason);
    }
    let is_restricted =
        has_tls || is_elsewhere || !page.is_http() || page.lines.iter().any(|line| restricts(line));
    let host = match host {
        Host::Ip(ip) if ip.is_loopback() => address::ip_text(ip),
        Host::Name(name) if name == "localhost" => "127.0.0.1".to_owned(),
        _ if is_restricted => "127.0.0.1".to_owned(),
        Host::AnyV4 => "0.0.0.0".to_owned(),
        Host::AnyV6 => "[::]".to_owned(),
        Host::Ip(ip) => address::ip_text(ip),
        _ => {
            report.report(line.place, "evenkeel's status page has an IP address and a port");
            return None;
        }
    };
    Some(format!("{host}:{port}"))
}

fn notes(page: &Proxy, is_first: bool, report: &Report) {
    let has_statistics = has_statistics(page);
    let what = if has_statistics { "statistics page" } else { "monitor page" };
    if is_first {
        report.near(page.place(), format!("{what}: it becomes observe.bind"));
    } else {
        report.report(page.place(), "evenkeel has one status page");
    }
    for line in page.own() {
        let place = line.place;
        match (line.word(0), line.word(1)) {
            ("bind", _) => report.near(place, format!("observe.bind: address of the {what}")),
            ("stats", "enable") => report.near(place, "observe.bind: evenkeel's own status page"),
            ("stats", "uri") => {
                report.near(place, "observe.bind: the status page has its own path, /");
            }
            ("stats", "admin") => {
                report.report(place, "commands go through the control socket only");
            }
            ("mode", "http") if !has_statistics => {
                report.report(place, "evenkeel answers HTTP on observe.bind only");
            }
            ("monitor-uri", _) if has_statistics => {
                report.near(place, "observe.bind: /healthz, and /readyz");
            }
            ("monitor-uri" | "monitor-net" | "monitor", _) => {
                report
                    .report(place, "the page for monitors is /healthz and /readyz of observe.bind");
            }
            _ if restricts(line) => {
                let reason = "evenkeel's status page has no password: it is kept on 127.0.0.1";
                report.urgent(place, reason);
            }
            ("http-request", _) if serves_metrics(line) => {
                report.near(place, "observe.bind: /metrics");
            }
            ("http-request" | "http-response" | "redirect", _) => {
                report.report(place, "HTTP: evenkeel's status page answers as it does");
            }
            _ => {}
        }
    }
}

/// Notes for a statistics page inside a proxy with servers.
pub(super) fn notes_inside(proxy: &Proxy, report: &Report) {
    for line in proxy.lines.iter().filter(|line| line.word(0) == "stats" && !line.is_no) {
        match line.word(1) {
            "enable" => report.near(line.place, "observe.bind: status page, at its own address"),
            "uri" => {
                report.near(line.place, "observe.bind: status page, at its own address and path");
            }
            "admin" => report.report(line.place, "commands go through the control socket only"),
            "auth" | "http-request" => {
                let reason = "evenkeel's status page has no password: it is kept on 127.0.0.1";
                report.urgent(line.place, reason);
            }
            _ => {}
        }
    }
}
