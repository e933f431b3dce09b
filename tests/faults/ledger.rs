//! What a scenario must leave behind: one log record for each session, with the right ending and
//! bytes; counters that agree with the records; and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use evenkeel::terms::{Direction, Reason};

use crate::common::metrics::Metrics;
use crate::peer::Peer;
use crate::world::{Group, World};

/// What was there before a scenario.
#[derive(Debug)]
pub(crate) struct Ledger {
    before: Metrics,
    /// Lines of the session log.
    pub(crate) lines: usize,
    /// What the bad network of the group had done.
    troubles: Option<u64>,
    /// The clients of a burst.
    pub(crate) burst: Vec<SocketAddr>,
}

/// The record of a session in the log.
#[derive(Debug)]
pub(crate) struct Record {
    line: String,
    client: String,
    /// Letters and reason, as in the log.
    ending: String,
    reason: String,
    /// By [`Direction`].
    bytes: [u64; 2],
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let (inward, outward) = fields.get(5)?.split_once('/')?;
        let (letters, reason) = (fields.get(6)?, fields.get(7)?);
        Some(Self {
            line: line.to_owned(),
            client: (*fields.get(1)?).to_owned(),
            ending: format!("{letters} {reason}"),
            reason: (*reason).to_owned(),
            bytes: [inward.parse().ok()?, outward.parse().ok()?],
        })
    }
}

impl Ledger {
    pub(crate) const fn open(before: Metrics, lines: usize, troubles: Option<u64>) -> Self {
        Self { before, lines, troubles, burst: Vec::new() }
    }

    /// Checks the records and the counters, once nothing is open any more.
    pub(crate) fn settle(
        &self,
        world: &World<'_>,
        group: &Group,
        ends: &str,
        peers: &BTreeMap<char, Peer>,
    ) -> Result<(), String> {
        let records = self.records(world, ends, peers)?;
        let after = world.quiet()?;
        let grown = |name: &str, labels: &[(&str, &str)]| {
            after.sum(name, labels) - self.before.sum(name, labels)
        };
        let opened = grown("evenkeel_sessions_total", &[]);
        if opened != records.len() as f64 {
            return Err(format!("{opened} sessions were opened, {} expected", records.len()));
        }
        for reason in Reason::ALL {
            let counted = grown("evenkeel_sessions_closed_total", &[("reason", reason.name())]);
            let logged = records.iter().filter(|record| record.reason == reason.name()).count();
            if counted != logged as f64 {
                return Err(format!("{counted} sessions counted as {reason:?}, {logged} logged"));
            }
        }
        let refused = grown("evenkeel_sessions_refused_total", &[]);
        if refused != 0.0 {
            return Err(format!("{refused} connections were refused"));
        }
        for direction in Direction::BOTH {
            let labels = [("direction", direction.name())];
            let counted = grown("evenkeel_bytes_total", &labels);
            let logged: u64 = records.iter().map(|record| record.bytes[direction as usize]).sum();
            // Bytes that were sent and that a reset destroyed are not logged.
            if counted < logged as f64 {
                return Err(format!("{counted} bytes {} counted, {logged} logged", labels[0].1));
            }
        }
        if self.troubles.is_some() && world.troubles(group) == self.troubles {
            return Err("the bad network did nothing: the fault was not injected".to_owned());
        }
        Ok(())
    }

    /// Waits for a record of each session, and checks how it ended and which bytes it counts.
    pub(crate) fn records(
        &self,
        world: &World<'_>,
        ends: &str,
        peers: &BTreeMap<char, Peer>,
    ) -> Result<Vec<Record>, String> {
        let mut expected = Vec::new();
        for end in ends.split(", ").filter(|end| !end.is_empty()) {
            let (who, ending) = end.split_once(' ').ok_or("no ending")?;
            if who == "burst" {
                expected.extend(self.burst.iter().map(|client| (None, *client, ending)));
                continue;
            }
            if who == "any" {
                continue;
            }
            let letter = who.chars().next().ok_or("nobody")?;
            let peer = peers.get(&letter).ok_or_else(|| format!("there was no {letter}"))?;
            expected.push((Some(letter), peer.address, ending));
        }
        // Of clients that were reset before their address was known.
        let unknown: Vec<&str> =
            ends.split(", ").filter_map(|end| end.strip_prefix("any ")).collect();
        let count = expected.len() + unknown.len();
        let records = world.wait(|| {
            let lines = world.balancer.sessions();
            let new = lines.iter().skip(self.lines).filter_map(|line| Record::parse(line));
            let records: Vec<Record> = new.collect();
            if records.len() < count {
                return Err(format!(
                    "{} of {} records: {records:?}",
                    records.len(),
                    expected.len()
                ));
            }
            Ok(records)
        })?;
        if records.len() > count {
            return Err(format!("more sessions than {count}: {records:?}"));
        }
        for ending in unknown {
            if !records.iter().any(|record| record.ending == ending) {
                return Err(format!("not {ending}: {records:?}"));
            }
        }
        for (letter, address, ending) in expected {
            let address = address.to_string();
            let of = |client: &str| records.iter().find(|record| record.client == client);
            // A client that left at once may have no address any more.
            let record = of(&address).or_else(|| of("-").filter(|_| ending.contains("client_")));
            let record = record.ok_or_else(|| format!("no record of {address}: {records:?}"))?;
            if !ending.split('|').any(|one| one == record.ending) {
                return Err(format!("not {ending}: {}", record.line));
            }
            if let Some(letter) = letter {
                check_bytes(letter, record, peers)?;
            }
        }
        Ok(records)
    }
}

/// The record has no byte that a peer did not get which has read to the end, and every byte if it
/// got the whole stream of a session that was not killed. What it had not acknowledged yet when the
/// session was reset is not logged; it may have arrived nevertheless.
fn check_bytes(client: char, record: &Record, peers: &BTreeMap<char, Peer>) -> Result<(), String> {
    let server = if client == 'c' { 's' } else { 'g' };
    for (source, sink, logged) in
        [(client, server, record.bytes[0]), (server, client, record.bytes[1])]
    {
        let sent = peers.get(&source).map_or(0, |peer| peer.sent);
        let read = peers.get(&sink).filter(|peer| peer.has_read_all).map(|peer| peer.received);
        let is_whole = |read| read == sent && record.reason != "killed";
        let is_wrong = |read| logged > read || (is_whole(read) && logged != read);
        if logged > sent || read.is_some_and(is_wrong) {
            return Err(format!(
                "{source} sent {sent} bytes, {sink} read {read:?}, logged: {}",
                record.line
            ));
        }
    }
    Ok(())
}
