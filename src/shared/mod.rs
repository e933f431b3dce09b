//! What the three planes share and none of them owns.

mod sync;
pub mod counters;
pub mod heartbeat;
pub mod rate;
pub mod clients;
pub mod limit;
pub mod load;
pub mod queue;
pub mod server;
pub mod schedule;
pub mod maglev;
pub mod proxy_header;
pub mod routes;
pub mod listener;
pub mod table;
pub mod totals;
pub mod choice;
pub mod phase;
pub mod events;
pub mod records;
pub mod sessions;
pub mod state;
pub mod snapshot;
pub mod explanation;
pub mod plan;
pub mod orders;
