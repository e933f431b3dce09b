//! Limits of rates and connections that HAProxy keeps in stick tables.

use std::collections::BTreeSet;

use super::lexer::Line;
use super::limits::Bound;
use super::sections::{Proxy, Sections};
use super::terms::{Counted, Limit};
use crate::convert::literal;
use crate::convert::report::Place;

/// A limit as evenkeel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Converted {
    pub(super) bound: Bound,
    /// How the meaning differs; empty: it does not.
    pub(super) difference: &'static str,
    /// Lines that only this limit needs: the table, and the rules that fill it.
    pub(super) lines: BTreeSet<Place>,
    /// It counts peers, before a PROXY header is read.
    pub(super) counts_peers: bool,
}

/// The line of a table and what it stores.
struct Table<'a> {
    place: Place,
    /// `conn_rate(10s)`
    stored: Vec<&'a str>,
    owner: &'a Proxy,
}

/// A rule that tracks connections in a table.
struct Tracked<'a> {
    key: &'a str,
    table: Option<&'a str>,
    place: Place,
}

/// A limit, or why evenkeel has none. `place`: the rule that refuses the clients beyond it.
///
/// # Errors
/// The reason.
pub(super) fn convert(
    limit: &Limit,
    place: Place,
    proxy: &Proxy,
    sections: &Sections,
) -> Result<Converted, &'static str> {
    let most = limit.most;
    let plain = |bound: Bound, difference| Converted {
        bound,
        difference,
        lines: BTreeSet::new(),
        counts_peers: false,
    };
    match limit.counted {
        Counted::FrontendRate => {
            let bound = Bound { key: "rate.sessions", most, period: Some(SECOND), place };
            return Ok(plain(bound, ""));
        }
        Counted::FrontendSessions => {
            let difference = "clients beyond it wait in the backlog instead of being refused";
            let bound = Bound { key: "sessions_max", most, period: None, place };
            return Ok(plain(bound, difference));
        }
        _ => {}
    }
    let tracked = limit.tracker.map(|tracker| tracked(proxy, tracker));
    let (key, tracked_table, mut lines) = match &tracked {
        None => ("src", None, tracks_source(proxy)),
        Some(Some(it)) => (it.key, it.table, BTreeSet::from([it.place])),
        Some(None) => return Err("counters: nothing is tracked for them"),
    };
    let counts_peers = proxy
        .all("tcp-request")
        .any(|line| line.word(1) == "connection" && lines.contains(&line.place));
    let name = limit.table.as_deref().or(tracked_table);
    let table = table(proxy, sections, name).ok_or("counters: the table is not in this file")?;
    if table.has_more() {
        lines.clear();
    } else {
        lines.insert(table.place);
    }
    if limit.counted == Counted::Counter {
        let period = table.period(&limit.stored);
        return Ok(plain(counter(limit, place, key, period)?, COUNTER));
    }
    if key != "src" {
        return Err("counters for something else than the client address");
    }
    let is_shared = sections
        .proxies
        .iter()
        .any(|other| other.place() != proxy.place() && !other.is_disabled() && table.counts(other));
    let difference = if is_shared { SHARED } else { "" };
    let bound = if limit.counted == Counted::ClientConnections {
        Bound { key: "clients_max", most, period: None, place }
    } else {
        let period = table.period(&limit.stored);
        let period = period.ok_or("counters: the table stores no such rate")?;
        rate("rate.per_client", limit, place, period)?
    };
    Ok(Converted { bound, difference, lines, counts_peers })
}

/// The difference of a counter of the user's own.
const COUNTER: &str = "evenkeel counts every new session, not only those that rules choose";

/// The difference of a table in which several proxies count.
const SHARED: &str = "the table counts the clients of several frontends together: evenkeel counts \
                      those of each frontend alone";

/// A counter of the user's own: with a constant key it counts the connections of all clients.
fn counter(
    limit: &Limit,
    place: Place,
    key: &str,
    period: Option<u64>,
) -> Result<Bound, &'static str> {
    let is_constant = ["int(", "str(", "bool(", "always_true"].iter().any(|it| key.starts_with(it));
    // Any other counter is one of requests, or of bytes.
    if !is_constant || !limit.stored.starts_with("gpc") {
        return Err("counters: evenkeel counts sessions, not what rules choose");
    }
    let period = period.ok_or("counters: the table stores no such rate")?;
    rate("rate.sessions", limit, place, period)
}

const SECOND: u64 = 1000;

/// A rate in `period` ms, with the same burst.
fn rate(
    key: &'static str,
    limit: &Limit,
    place: Place,
    period: u64,
) -> Result<Bound, &'static str> {
    const DAY: u64 = 86_400 * SECOND;
    if limit.most == 0 || limit.most > 10_000_000 {
        return Err("a rate of evenkeel is 1 to 10000000 in its period");
    }
    if !(SECOND..=DAY).contains(&period) {
        return Err("a rate over another period: those of evenkeel are 1 s to 1 day");
    }
    Ok(Bound { key, most: limit.most, period: Some(period), place })
}

impl<'a> Table<'a> {
    fn of(owner: &'a Proxy) -> Option<Self> {
        let line = owner.last(&["stick-table"])?;
        let words = line.words.windows(2).filter(|pair| pair[0] == "store");
        let stored = words.flat_map(|pair| pair[1].split(',')).collect();
        Some(Self { place: line.place, stored, owner })
    }

    /// The period of a stored rate, in ms.
    fn period(&self, name: &str) -> Option<u64> {
        let mut stored = self.stored.iter().filter_map(|it| it.split_once('('));
        let (_, period) = stored.find(|(stored, _)| *stored == name)?;
        literal::millis(period.strip_suffix(')')?, 1)
    }

    /// Whether it has counters that no limit of evenkeel needs: those are lost.
    fn has_more(&self) -> bool {
        const USED: &[&str] = &["conn_rate", "sess_rate", "conn_cur"];
        let mut names = self.stored.iter().map(|stored| stored.split('(').next());
        names.len() == 0 || names.any(|name| name.is_none_or(|name| !USED.contains(&name)))
    }

    /// Whether the rules of a proxy count its clients here.
    fn counts(&self, proxy: &Proxy) -> bool {
        let tracks = |line: &std::rc::Rc<Line>| {
            let is_rule = matches!(line.word(0), "tcp-request" | "http-request")
                && line.words.iter().take(3).any(|word| word.starts_with("track-sc"));
            let name = line.words.windows(2).find(|pair| pair[0] == "table");
            let name = name.map_or(proxy.name.as_str(), |pair| pair[1].as_str());
            is_rule && name == self.owner.name
        };
        proxy.lines.iter().any(tracks)
    }
}

/// The track rule of `scN`.
fn tracked(proxy: &Proxy, tracker: u8) -> Option<Tracked<'_>> {
    let action = format!("track-sc{tracker}");
    let line = proxy.all("tcp-request").find(|line| line.word(2) == action)?;
    let table = line.words.iter().position(|word| word == "table").map(|at| line.word(at + 1));
    Some(Tracked { key: line.word(3), table, place: line.place })
}

/// The rules that track clients by their address.
fn tracks_source(proxy: &Proxy) -> BTreeSet<Place> {
    let rules = proxy.all("tcp-request");
    let rules = rules.filter(|line| line.word(2).starts_with("track-sc") && line.word(3) == "src");
    rules.map(|line| line.place).collect()
}

/// The `stick-table` of a proxy by name, or the proxy's own.
fn table<'a>(proxy: &'a Proxy, sections: &'a Sections, name: Option<&str>) -> Option<Table<'a>> {
    Table::of(match name {
        Some(name) => sections.named(name).next()?,
        None => proxy,
    })
}
