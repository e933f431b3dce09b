//! Notes for lines that the tables of keywords settle, and for rules without an equivalent.

use std::rc::Rc;

use super::conditions::Acls;
use super::frontends::Used;
use super::keywords::{self, Treatment};
use super::lexer::{self, Line};
use super::sections::Proxy;
use super::terms::Term;
use crate::convert::report::{Place, Report};

/// Notes for lines that a table of keywords settles. Lines that other files read are left to them.
pub(super) fn of_keywords(proxy: &Proxy, used: &Used, report: &Report) {
    let is_http = proxy.is_http();
    let unused = |line: &&Rc<Line>| !line.is_no && !used.lines.contains(&line.place);
    for line in proxy.lines.iter().filter(unused) {
        let (first, second) = (line.word(0), line.word(1));
        let Some(keyword) = keywords::proxy(first, second) else { continue };
        // Lines of servers and addresses say so themselves.
        let is_read = first.contains("server") || first == "bind";
        let settles = !is_read && keyword.treatment != Treatment::Drop;
        if let Some(name) =
            line.words.iter().find_map(|word| lexer::unset(word)).filter(|_| settles)
        {
            let reason = format!("the environment variable {name} has no value here");
            report.urgent(line.place, reason);
        }
        match keyword.treatment {
            Treatment::Report if matches!(first, "stick" | "stats" | "option") => {}
            // It sends clients to a server of its choice.
            Treatment::Report if first == "use-server" => report.urgent(line.place, keyword.text),
            Treatment::Report => report.report(line.place, keyword.text),
            Treatment::Http if is_http && refuses(first, second) => {
                let reason = "HTTP: evenkeel does not look at requests; it serves the clients that \
                this rule refuses";
                report.urgent(line.place, reason);
            }
            Treatment::Http if is_http && leads_to_tls(line) => {
                let reason = "HTTP: evenkeel does not look at requests; it serves the clients that \
                this rule sends to https without TLS";
                report.urgent(line.place, reason);
            }
            Treatment::Http if is_http => report.report(line.place, keyword.text),
            Treatment::Near if second == "abortonclose" => report.near(line.place, keyword.text),
            _ => {}
        }
        let is_option = first == "option" && keyword.treatment == Treatment::Report;
        let is_check = second.ends_with("-check") || second.ends_with("chk");
        if is_option && !is_check {
            report.report(line.place, keyword.text);
        }
    }
}

/// Whether a rule keeps requests away from the servers.
fn refuses(first: &str, second: &str) -> bool {
    match first {
        "http-request" => {
            matches!(second, "deny" | "reject" | "tarpit" | "silent-drop" | "auth")
        }
        "block" | "reqdeny" | "reqideny" | "reqtarpit" | "reqitarpit" => true,
        _ => false,
    }
}

/// Whether a rule redirects clients to https.
fn leads_to_tls(line: &Line) -> bool {
    let is_redirect = line.words.iter().take(2).any(|word| word == "redirect");
    let is_scheme = line.words.windows(2).any(|two| two[0] == "scheme" && two[1] == "https");
    is_redirect && (is_scheme || line.words.iter().any(|word| word.starts_with("https://")))
}

/// Lines of rules that no key says.
pub(super) fn of_acls(proxy: &Proxy, report: &Report) {
    for (place, term) in Acls::of(proxy).unusable() {
        let reason = match term {
            Term::Http => "HTTP: evenkeel does not look at requests",
            Term::Payload => "the first bytes of the client: evenkeel reads the ClientHello only",
            _ => "evenkeel does not compare this",
        };
        report.report(place, reason);
    }
}

/// Notes for `tcp-request` lines that are no access rules, and for tables that nothing uses.
pub(super) fn of_rules(proxy: &Proxy, used: &Used, report: &Report) {
    let is_used = |place: Place| used.lines.contains(&place);
    let reads_payload = used.reads_payload.contains(&proxy.place());
    for line in proxy.lines.iter().filter(|line| !line.is_no) {
        let place = line.place;
        match (line.word(0), line.word(1)) {
            ("stick-table", _) if proxy.all("stick").next().is_none() && !is_used(place) => {
                report.report(place, "counters: evenkeel has no stick tables");
            }
            ("tcp-request", "inspect-delay") if reads_payload => {
                report.report(place, "greeting delay: evenkeel does not wait for the first bytes");
            }
            ("tcp-request", "connection" | "session" | "content") => {
                let action = line.word(2);
                let is_rule = ["accept", "reject", "silent-drop", "expect-proxy"].contains(&action);
                if action.starts_with("capture") {
                    report.near(place, "it is for the log only");
                } else if !is_rule && !is_used(place) {
                    let what = action.split('(').next().unwrap_or_default();
                    let reason = if what.starts_with("track-sc") || what.starts_with("sc-") {
                        "counters: evenkeel has no stick tables".to_owned()
                    } else {
                        format!("{what}: evenkeel has rules on client addresses and rates only")
                    };
                    report.report(place, reason);
                }
            }
            _ => {}
        }
    }
}
