//! HAProxy: reads a configuration, refuses the lines that HAProxy refuses, and converts the rest.

mod access;
mod address;
mod agreed;
mod arguments;
mod backends;
mod balance;
mod binds;
mod check_rules;
mod check_tls;
mod checks;
mod conditions;
mod exchange;
mod frontends;
mod global;
mod keywords;
mod lexer;
mod limits;
mod notes;
mod places;
mod rates;
mod routing;
mod rules;
mod sections;
mod servers;
mod stats;
mod status;
mod terms;
mod timeouts;
mod values;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use keywords::Treatment;
use lexer::Environment;
use sections::{Proxy, Sections};

use super::draft::{Draft, Frontend, Setting};
use super::report::{Place, Refused, Report};

pub(super) use keywords::TABLES;
pub(super) use terms::names_of_pattern;

/// Converts the text of a configuration.
///
/// # Errors
/// The lines that HAProxy refuses.
pub(super) fn convert(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    report: &Report,
) -> Result<Draft, Refused> {
    let mut environment = Environment::new(environment);
    let lines = lexer::lines(text, &mut environment, report);
    let sections = sections::sections(lines, report);
    verify::verify(&sections, report);
    report.accepted()?;
    let mut draft = Draft { settings: global::convert(&sections, report), ..Draft::default() };
    draft.settings.extend(stats::convert(&sections, &environment, report));
    let mut used = frontends::Used::default();
    let mut proxies = Vec::new();
    for proxy in sections.proxies.iter().filter(|proxy| !stats::is_page(proxy)) {
        let frontends = proxy
            .takes_clients()
            .then(|| frontends::convert(proxy, &sections, &environment, &mut used, report));
        proxies.push((proxy, frontends));
    }
    for (proxy, frontends) in proxies {
        convert_proxy(proxy, frontends, &environment, &used, report, &mut draft);
    }
    http_modes(&sections, &used, report);
    draft.settings.extend(log_of_empty(&sections));
    other_sections(&sections, report);
    // Undefined ACLs are found while rules are converted.
    report.accepted()?;
    Ok(draft)
}

fn convert_proxy(
    proxy: &Proxy,
    frontends: Option<Vec<Frontend>>,
    environment: &Environment<'_>,
    used: &frontends::Used,
    report: &Report,
    draft: &mut Draft,
) {
    let mut is_used = true;
    if let Some(frontends) = frontends {
        is_used = frontends.iter().any(|frontend| frontend.left_out.is_none());
        draft.frontends.extend(frontends);
    }
    if proxy.has_servers() {
        let mut backend = backends::convert(proxy, environment, report);
        if proxy.is_disabled() {
            backend.servers.clear();
            backend.entries.retain(|(key, _)| *key != "srv");
        }
        draft.backends.push(backend);
    }
    if proxy.is_http() && is_used {
        stats::notes_inside(proxy, report);
    }
    notes::of_acls(proxy, report);
    notes::of_keywords(proxy, used, report);
    notes::of_rules(proxy, used, report);
}

/// One note for each `mode http`: it names the lines that need requests.
fn http_modes(sections: &Sections, used: &frontends::Used, report: &Report) {
    let mut modes: BTreeMap<Place, BTreeSet<usize>> = BTreeMap::new();
    let proxies = sections.proxies.iter().filter(|proxy| !stats::is_page(proxy));
    for proxy in proxies.filter(|proxy| proxy.is_http()) {
        let lost = proxy.lines.iter().filter(|line| !line.is_no).filter(|line| {
            let keyword = keywords::proxy(line.word(0), line.word(1));
            let is_http = keyword.is_some_and(|keyword| keyword.treatment == Treatment::Http);
            let is_lost = is_http || line.word(0) == "use_backend";
            is_lost && !used.lines.contains(&line.place)
        });
        let lost: BTreeSet<usize> = lost.map(|line| line.place.line).collect();
        for line in proxy.all("mode").filter(|line| line.word(1) == "http") {
            modes.entry(line.place).or_default().extend(&lost);
        }
    }
    for (place, lost) in modes {
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let text = "connections are balanced, not requests";
        report.near(
            place,
            match lost.as_slice() {
                [] => text.to_owned(),
                [one] => format!("{text}; what needs requests is lost: line {one}"),
                _ => format!("{text}; what needs requests is lost: lines {}", lost.join(", ")),
            },
        );
    }
}

/// `option dontlognull`, if every proxy that forwards has it.
fn log_of_empty(sections: &Sections) -> Option<Setting> {
    let is_frontend = |proxy: &&Proxy| proxy.takes_clients() && !stats::is_page(proxy);
    let mut frontends = sections.proxies.iter().filter(is_frontend).peekable();
    frontends.peek()?;
    frontends.all(|proxy| proxy.option("dontlognull").is_some()).then(|| Setting {
        table: "observe.log",
        key: "empty",
        value: "false".to_owned(),
    })
}

/// Sections without an equivalent.
fn other_sections(sections: &Sections, report: &Report) {
    for other in &sections.others {
        let Some(keyword) = keywords::section(&other.kind) else { continue };
        if keyword.treatment == Treatment::Report {
            report.report(other.place, keyword.text);
        }
    }
}
