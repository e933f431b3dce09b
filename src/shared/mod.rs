//! What the three planes share and none of them owns.

pub mod counters;
pub mod limit;
pub mod server;
pub mod schedule;
pub mod table;
pub mod phase;
pub mod events;
pub mod records;
pub mod state;
pub mod snapshot;
pub mod orders;
