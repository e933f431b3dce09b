//! Limits of rates and connections that HAProxy keeps in stick tables.

use std::collections::BTreeSet;

use super::sections::{Proxy, Sections};
use super::terms::{Counted, Limit};
use crate::convert::draft::Entry;
use crate::convert::literal;
use crate::convert::report::Place;

/// A limit as evenkeel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Converted {
    pub(super) entry: Entry,
    /// How the meaning differs; empty: it does not.
    pub(super) difference: &'static str,
    /// Lines that only this limit needs: the table, and the rules that fill it.
    pub(super) lines: BTreeSet<Place>,
    /// It counts peers, before a PROXY header is read.
    pub(super) counts_peers: bool,
}

/// A rule that tracks connections in a table.
struct Tracked<'a> {
    key: &'a str,
    table: Option<&'a str>,
    place: Place,
}

/// The keys of a limit, or why evenkeel has none.
///
/// # Errors
/// The reason.
pub(super) fn convert(
    limit: &Limit,
    proxy: &Proxy,
    sections: &Sections,
) -> Result<Converted, &'static str> {
    let number = limit.most;
    let plain = |entry: Entry, difference| Converted {
        entry,
        difference,
        lines: BTreeSet::new(),
        counts_peers: false,
    };
    match limit.counted {
        Counted::FrontendRate => {
            return Ok(plain(("rate.sessions", literal::quoted(&format!("{number}/s"))), ""));
        }
        Counted::FrontendSessions => {
            let difference = "clients beyond it wait in the backlog instead of being refused";
            return Ok(plain(("sessions_max", number.to_string()), difference));
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
    if has_more(&table.1) {
        lines.clear();
    } else {
        lines.insert(table.0);
    }
    if limit.counted == Counted::Counter {
        return counter(number, key, &table.1);
    }
    if key != "src" {
        return Err("counters for something else than the client address");
    }
    if limit.counted == Counted::ClientConnections {
        let entry = ("clients_max", number.to_string());
        return Ok(Converted { entry, difference: "", lines, counts_peers });
    }
    let period = period(&table.1, &["conn_rate(", "sess_rate("])
        .ok_or("counters: the table stores no such rate")?;
    let entry = ("rate.per_client", rate(number, period)?);
    Ok(Converted { entry, difference: "", lines, counts_peers })
}

/// A counter of the user's own: with a constant key it counts the connections of all clients.
fn counter(number: u64, key: &str, store: &str) -> Result<Converted, &'static str> {
    if !["int(", "str(", "bool(", "always_true"].iter().any(|it| key.starts_with(it)) {
        return Err("counters: evenkeel counts sessions, not what rules choose");
    }
    let period = period(store, &["_rate("]).ok_or("counters: the table stores no such rate")?;
    let entry = ("rate.sessions", rate(number, period)?);
    let difference = "evenkeel counts every new session, not only those that rules choose";
    Ok(Converted { entry, difference, lines: BTreeSet::new(), counts_peers: false })
}

/// `number` in `period` ms, with the same burst.
fn rate(number: u64, period: u64) -> Result<String, &'static str> {
    const SECOND: u64 = 1000;
    const DAY: u64 = 86_400 * SECOND;
    if number == 0 || number > 10_000_000 {
        return Err("a rate of evenkeel is 1 to 10000000 in its period");
    }
    let unit = match period {
        SECOND => "s".to_owned(),
        60_000 => "m".to_owned(),
        3_600_000 => "h".to_owned(),
        _ if (SECOND..=DAY).contains(&period) => {
            literal::duration(period).trim_matches('"').to_owned()
        }
        _ => return Err("a rate over another period: those of evenkeel are 1 s to 1 day"),
    };
    Ok(literal::quoted(&format!("{number}/{unit}")))
}

/// Whether a table has counters that no limit of evenkeel needs: those are lost.
fn has_more(table: &str) -> bool {
    let stored = table.split_once("store ").map_or("", |(_, rest)| rest);
    let stored = stored.split(' ').next().unwrap_or_default();
    let is_used =
        |name: &str| ["conn_rate(", "sess_rate(", "conn_cur"].iter().any(|it| name.starts_with(it));
    stored.split(',').any(|name| !is_used(name))
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

/// The line and the words of a `stick-table`: that of a proxy by name, or the proxy's own.
fn table(proxy: &Proxy, sections: &Sections, name: Option<&str>) -> Option<(Place, String)> {
    let owner = match name {
        Some(name) => sections.named(name).next()?,
        None => proxy,
    };
    let line = owner.last(&["stick-table"])?;
    Some((line.place, line.words.join(" ")))
}

/// The period of a stored rate, in ms.
fn period(store: &str, names: &[&str]) -> Option<u64> {
    let found = names.iter().find_map(|name| store.split_once(name));
    found.and_then(|(_, rest)| literal::millis(rest.split(')').next()?, 1))
}
