//! The control thread: one loop that receives every event, and the only writer of the table.

mod descriptors;
mod events;
mod pace;
mod requester;
mod state;
mod stuck;
mod probes;
mod reloading;
mod dry_run;
mod explain;
mod names;
mod worker_events;
mod limits_reached;
mod carried;
mod upgrade_state;
mod upgrading;
mod run;

pub use events::WorkerEvents;
pub use run::{Parts, UpgradeParts, run};
pub use upgrade_state::Observed;

#[cfg(test)]
mod tests;
