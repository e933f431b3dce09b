//! The keywords of HAProxy, and the treatment of each: the one table that the program
//! and docs/coming-from-haproxy.md share.

mod global;
mod proxy;
mod samples;
mod server;

pub(super) use crate::convert::keyword::{Keyword, Treatment};
pub(super) use samples::is_sample;

use crate::convert::keyword::{Table, find, remedy};

/// Every table.
pub(crate) const TABLES: &[Table] = &[
    Table { title: "Sections", keywords: global::SECTIONS },
    Table { title: "global", keywords: global::GLOBAL },
    Table { title: "resolvers", keywords: global::RESOLVERS },
    Table { title: "defaults, frontend, backend, listen", keywords: proxy::PROXY },
    Table { title: "Timeouts", keywords: proxy::TIMEOUTS },
    Table { title: "Options", keywords: proxy::OPTIONS },
    Table { title: "Rules on connections", keywords: proxy::RULES },
    Table { title: "Parameters of bind", keywords: server::BIND },
    Table { title: "Parameters of server", keywords: server::SERVER },
];

/// A section keyword.
pub(super) fn section(word: &str) -> Option<&'static Keyword> {
    find(global::SECTIONS, word)
}

/// A keyword of `global`.
pub(super) fn global(first: &str, second: &str) -> Option<&'static Keyword> {
    let families = ["tune.", "ssl-", "profiling.", "httpclient.", "deviceatlas-", "51degrees-"];
    let more = ["wurfl-", "ocsp-update.", "acme.", "harden.", "stats-", "h1-case-", "lua-", "quic"];
    find(global::GLOBAL, &format!("{first} {second}"))
        .or_else(|| find(global::GLOBAL, first))
        .or_else(|| {
            let mut families = families.iter().chain(&more);
            let family = families.find(|family| first.starts_with(*family))?;
            find(global::GLOBAL, &format!("{family}*"))
        })
}

/// A keyword of `resolvers`.
pub(super) fn resolvers(word: &str) -> Option<&'static Keyword> {
    find(global::RESOLVERS, word)
}

/// A keyword of a proxy; the first two words of its line.
pub(super) fn proxy(first: &str, second: &str) -> Option<&'static Keyword> {
    let both = format!("{first} {second}");
    match first {
        "timeout" => find(proxy::TIMEOUTS, &both),
        "option" => find(proxy::OPTIONS, &both),
        "tcp-request" | "tcp-response" | "stick" | "stats" => find(proxy::RULES, &both),
        _ => find(proxy::PROXY, first).or_else(|| find(proxy::RULES, first)),
    }
}

/// A parameter of a `bind` line.
pub(super) fn bind(word: &str) -> Option<&'static Keyword> {
    find(server::BIND, word)
}

/// A parameter of a `server` line.
pub(super) fn server(word: &str) -> Option<&'static Keyword> {
    find(server::SERVER, word).or_else(|| {
        // `no-` cancels a parameter of a default-server line.
        let positive = word.strip_prefix("no-")?;
        find(server::SERVER, positive).filter(|keyword| keyword.arguments == 0)
    })
}

/// What to do about the unknown keyword of a line in `global`, `resolvers` or a proxy.
pub(super) fn remedy_in(section: Section, first: &str, second: &str) -> String {
    let both = format!("{first} {second}");
    match (section, first) {
        (Section::Global, _) => remedy(first, &[global::GLOBAL]),
        (Section::Resolvers, _) => remedy(first, &[global::RESOLVERS]),
        (Section::Bind, _) => remedy(first, &[server::BIND]),
        (Section::Server, _) => remedy(first, &[server::SERVER]),
        (Section::Proxy, "timeout") => remedy(&both, &[proxy::TIMEOUTS]),
        (Section::Proxy, "option") => remedy(&both, &[proxy::OPTIONS]),
        (Section::Proxy, "tcp-request" | "tcp-response" | "stick" | "stats") => {
            remedy(&both, &[proxy::RULES])
        }
        (Section::Proxy, _) => remedy(first, &[proxy::PROXY, SINGLE]),
    }
}

/// Where an unknown word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Global,
    Resolvers,
    Proxy,
    Bind,
    Server,
}

/// First words of lines whose tables hold two words.
const SINGLE: &[Keyword] = &[Keyword {
    name: "timeout, option, tcp-request, tcp-response, stick, stick-table, stats, global, \
        defaults, frontend, backend, listen, resolvers",
    treatment: Treatment::Keep,
    key: "",
    text: "",
    arguments: 0,
}];
