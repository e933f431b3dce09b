//! What the clients and servers saw.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// At most so many messages are kept.
const KEPT: usize = 20;

/// Counts, and what must not happen.
#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counts: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

impl Report {
    pub(crate) fn count(&self, what: &'static str, number: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.counts.entry(what).or_default() += number;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.counts.get(what).copied().unwrap_or(0)
    }

    /// Something that must not happen.
    pub(crate) fn wrong(&self, what: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.wrong.len() < KEPT {
            counts.wrong.push(what);
        }
    }

    /// Panics if something happened that must not.
    #[track_caller]
    pub(crate) fn assert_nothing_wrong(&self) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(counts.wrong.is_empty(), "{:#?}", counts.wrong);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, number) in &counts.counts {
            writeln!(out, "{number:>12} {what}")?;
        }
        writeln!(out, "{:>12} wrong", counts.wrong.len())
    }
}
