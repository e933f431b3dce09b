//! The matrix: for each step of a connection, and each fault of a client, of a server, of the
//! network and each order of an operator, how that is tested, or why it cannot happen.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// How far a connection is when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// It waits in the backlog of the listening socket, or has just been accepted.
    Accept,
    /// Its PROXY header is incomplete.
    Preface,
    /// Every server is at its limit.
    Queue,
    /// The connect to the server has no answer yet.
    Connect,
    /// The server is connected, and no byte has come from either side.
    FirstByte,
    /// Bytes went both ways.
    Relaying,
    /// One direction has ended.
    HalfClosed,
    /// A peer has reset the connection, and the other one has not read everything yet.
    Closing,
}

/// What one side does, or what is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    Fin,
    Rst,
    /// Nothing is sent any more; the peer still acknowledges. Of the network: all packets are lost
    /// for a while.
    Silence,
    /// Small pieces with pauses. Of the network: packets are lost at random, or delayed.
    Slowness,
    /// Every packet of a side is lost from now on.
    BlackHole,
    /// What is no valid message, or urgent data.
    Garbage,
    /// Many at a time: connections, bytes. Of the network: losses in bursts.
    Burst,
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    Reload,
    Drain,
    Maint,
    Kill,
    Term,
}

/// A fault, with its cause. A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Client(How),
    Server(How),
    Network(How),
    Operator(Order),
}

impl Step {
    pub(crate) const ALL: [Self; 8] = [
        Self::Accept,
        Self::Preface,
        Self::Queue,
        Self::Connect,
        Self::FirstByte,
        Self::Relaying,
        Self::HalfClosed,
        Self::Closing,
    ];
}

impl How {
    const ALL: [Self; 7] = [
        Self::Fin,
        Self::Rst,
        Self::Silence,
        Self::Slowness,
        Self::BlackHole,
        Self::Garbage,
        Self::Burst,
    ];
}

impl Order {
    const ALL: [Self; 5] = [Self::Reload, Self::Drain, Self::Maint, Self::Kill, Self::Term];
}

impl Fault {
    /// Every column.
    pub(crate) fn all() -> Vec<Self> {
        let of_peers = [Self::Client as fn(How) -> Self, Self::Server, Self::Network];
        let of_peers = of_peers.iter().flat_map(|who| How::ALL.map(who));
        of_peers.chain(Order::ALL.map(Self::Operator)).collect()
    }

    pub(crate) const fn who(self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Server(_) => "server",
            Self::Network(_) => "network",
            Self::Operator(_) => "operator",
        }
    }

    pub(crate) const fn how(self) -> &'static str {
        match self {
            Self::Client(how) | Self::Server(how) | Self::Network(how) => match how {
                How::Fin => "FIN",
                How::Rst => "RST",
                How::Silence => "silence",
                How::Slowness => "slowness",
                How::BlackHole => "black-hole",
                How::Garbage => "garbage",
                How::Burst => "burst",
            },
            Self::Operator(order) => match order {
                Order::Reload => "reload",
                Order::Drain => "drain",
                Order::Maint => "maint",
                Order::Kill => "kill",
                Order::Term => "SIGTERM",
            },
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Accept => "accept",
            Self::Preface => "preface",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::FirstByte => "first-byte",
            Self::Relaying => "relaying",
            Self::HalfClosed => "half-closed",
            Self::Closing => "closing",
        })
    }
}

/// A field of the matrix; its name is `relaying/client/RST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) step: Step,
    pub(crate) fault: Fault,
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.step, self.fault.who(), self.fault.how())
    }
}

/// A test of one cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// The frontend of `world` that it uses.
    pub(crate) frontend: &'static str,
    /// What happens, and what the peers must see: the words are in `words`.
    pub(crate) script: &'static str,
    /// How each session must be logged: `c -- done, h KD killed`. `|` stands between endings of
    /// which either is right.
    pub(crate) ends: &'static str,
}

/// How a cell is covered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cover {
    Run(&'static [Scenario]),
    /// It cannot happen, or another cell is the same, for this reason.
    Never(&'static str),
    /// A test elsewhere covers it: its file and its function.
    Elsewhere(&'static str, &'static str),
}

/// A fault at the step of the file that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row(pub(crate) Fault, pub(crate) Cover);

pub(crate) const fn scene(
    frontend: &'static str,
    script: &'static str,
    ends: &'static str,
) -> Scenario {
    Scenario { frontend, script, ends }
}

/// What is wrong with the matrix: cells without a row, with two rows, or with an empty one.
pub(crate) fn holes(rows: &[(Cell, Cover)]) -> Vec<String> {
    let mut found = Vec::new();
    for step in Step::ALL {
        for fault in Fault::all() {
            let cell = Cell { step, fault };
            let count = rows.iter().filter(|(own, _)| *own == cell).count();
            if count != 1 {
                found.push(format!("{cell} has {count} rows"));
            }
        }
    }
    let is_empty = |cover: &Cover| matches!(cover, Cover::Run([]) | Cover::Never(""));
    let empty = rows.iter().filter(|(_, cover)| is_empty(cover));
    found.extend(empty.map(|(cell, _)| format!("{cell} has an empty row")));
    found
}

/// What came of the scenarios of a cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub(crate) passed: usize,
    pub(crate) skipped: usize,
    pub(crate) failed: Vec<String>,
}

/// The matrix as a table, the number of cells covered, and each that is not, with its reason.
pub(crate) fn table(rows: &[(Cell, Cover)], verdicts: &BTreeMap<Cell, Verdict>) -> String {
    let mut text = String::new();
    let by_cell: BTreeMap<Cell, Cover> = rows.iter().copied().collect();
    for who in ["client", "server", "network", "operator"] {
        let columns: Vec<Fault> =
            Fault::all().into_iter().filter(|fault| fault.who() == who).collect();
        let heads: Vec<String> =
            columns.iter().map(|fault| format!("{:<11}", fault.how())).collect();
        line(&mut text, &format!("{who:<12}{}", heads.concat()));
        for step in Step::ALL {
            let marks = columns.iter().map(|fault| {
                let cell = Cell { step, fault: *fault };
                format!("{:<11}", mark(by_cell.get(&cell), verdicts.get(&cell)))
            });
            line(&mut text, &format!("{step:<12}{}", marks.collect::<String>()));
        }
        text.push('\n');
    }
    line(&mut text, "a number: so many runs; skip: what it needs is missing here; else: covered");
    line(&mut text, "by another test; -: cannot happen, or is another cell; FAIL; HOLE: no row");
    let runs: usize = verdicts.values().map(|verdict| verdict.passed).sum();
    let passed = verdicts.values().filter(|verdict| verdict.passed > 0 && verdict.skipped == 0);
    let count = |kind: fn(&Cover) -> bool| rows.iter().filter(|(_, cover)| kind(cover)).count();
    let elsewhere = count(|cover| matches!(cover, Cover::Elsewhere(..)));
    let never = count(|cover| matches!(cover, Cover::Never(_)));
    line(
        &mut text,
        &format!(
            "cells: {}; covered by {runs} runs: {}; by other tests: {elsewhere}; \
             cannot happen: {never}",
            rows.len(),
            passed.count()
        ),
    );
    reasons(&mut text, rows);
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn mark(cover: Option<&Cover>, verdict: Option<&Verdict>) -> String {
    match (cover, verdict) {
        (None, _) => "HOLE".to_owned(),
        (_, Some(verdict)) if !verdict.failed.is_empty() => "FAIL".to_owned(),
        (_, Some(verdict)) if verdict.skipped > 0 => "skip".to_owned(),
        (Some(Cover::Run(_)), verdict) => verdict.map_or(0, |verdict| verdict.passed).to_string(),
        (Some(Cover::Never(_)), _) => "-".to_owned(),
        (Some(Cover::Elsewhere(..)), _) => "else".to_owned(),
    }
}

/// Cells that are not run, by their reason.
fn reasons(text: &mut String, rows: &[(Cell, Cover)]) {
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (cell, cover) in rows {
        let reason = match cover {
            Cover::Run(_) => continue,
            Cover::Never(reason) => (*reason).to_owned(),
            Cover::Elsewhere(file, function) => format!("See {function} in {file}."),
        };
        by_reason.entry(reason).or_default().push(cell.to_string());
    }
    for (reason, cells) in by_reason {
        // Writing to a String cannot fail.
        writeln!(text, "  {}: {reason}", cells.join(", ")).unwrap();
    }
}
