//! The answers for names.

use std::cmp::Reverse;
use std::time::Duration;

use crate::control::cluster::{ADDRESSES_MAX, HostAddress, RECORDS_MAX, SrvRecord};

/// TTLs are raised and lowered to these: a short one would cause constant queries, a long one
/// would hide changes.
pub(super) const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The addresses of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Each once, in ascending order, IPv4 first; never empty, and at most 1,024.
    pub addresses: Vec<HostAddress>,
    /// How many more there are.
    pub left_out: usize,
    /// The smallest of the answer, 1 s to 1 h.
    pub ttl: Duration,
}

/// The records of an SRV name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvAnswer {
    /// Each target and port once, by priority; never empty, and at most 1,024.
    pub records: Vec<SrvRecord>,
    /// How many more there are.
    pub left_out: usize,
    /// The smallest of the answer, 1 s to 1 h.
    pub ttl: Duration,
}

impl Answer {
    /// Of all `found`: the first 1,024 in order.
    pub(super) fn new(mut found: Vec<HostAddress>, ttl: Duration) -> Self {
        found.sort_unstable();
        found.dedup();
        let left_out = found.len().saturating_sub(ADDRESSES_MAX);
        found.truncate(ADDRESSES_MAX);
        Self { addresses: found, left_out, ttl: ttl.clamp(TTL.0, TTL.1) }
    }
}

impl SrvAnswer {
    /// Of all `found`: one for each target and port, the first 1,024 by priority. None: there is
    /// none.
    pub(super) fn new(mut found: Vec<SrvRecord>, ttl: Duration) -> Option<Self> {
        let place = |record: &SrvRecord| (record.target.clone(), record.port);
        found.sort_by_cached_key(|record| (place(record), record.priority, Reverse(record.weight)));
        found.dedup_by(|a, b| (&a.target, a.port) == (&b.target, b.port));
        found.sort_by_key(|record| record.priority);
        let left_out = found.len().saturating_sub(RECORDS_MAX);
        found.truncate(RECORDS_MAX);
        let ttl = ttl.clamp(TTL.0, TTL.1);
        (!found.is_empty()).then_some(Self { records: found, left_out, ttl })
    }
}
