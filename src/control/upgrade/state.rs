//! What a new process knows of the old one beside its sockets.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::control::cluster::{Cluster, ClusterState};
use crate::control::upgrade::predecessor::Earlier;

/// Of [`State`] and of the totals. A process that does not know the version of the old one starts
/// with its sockets alone.
pub(super) const VERSION: u32 = 1;

/// The state of an old process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Reloads and upgrades, by outcome.
    pub reloads_done: u64,
    /// Reloads that changed nothing.
    pub reloads_failed: u64,
    /// Upgrades that led to the old process.
    pub upgrades_done: u64,
    /// Upgrades that changed nothing.
    pub upgrades_failed: u64,
    /// Health, orders, answers of DNS.
    pub cluster: ClusterState,
    /// Processes before it that still had sessions, in the order of their streams.
    pub earlier: Vec<Earlier>,
}

/// The first member of every state.
#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

impl State {
    /// Of a process with that cluster, without counters.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        Self { version: VERSION, cluster: cluster.carry(Instant::now()), ..Self::default() }
    }

    /// Reads a state.
    ///
    /// # Errors
    /// It is of another version, or not readable: for the log.
    pub(super) fn read(value: serde_json::Value) -> Result<Self, String> {
        let versioned = Versioned::deserialize(&value);
        match versioned.map_err(|error| error.to_string())?.version {
            VERSION => serde_json::from_value(value).map_err(|error| error.to_string()),
            other => Err(format!("its version is {other}, and {VERSION} is known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_and_junk_are_errors_and_this_version_is_read() {
        let state = State::of(&Cluster::new(1));
        let value = serde_json::to_value(&state).unwrap();
        assert_eq!(State::read(value.clone()).unwrap(), state);
        let mut newer = value.clone();
        newer["version"] = 2.into();
        assert!(State::read(newer).unwrap_err().contains("version is 2"));
        let mut broken = value;
        broken["cluster"] = "junk".into();
        assert!(State::read(broken).is_err() && State::read("x".into()).is_err());
    }
}
