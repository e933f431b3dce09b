//! A change of the running binary without a gap: the old process starts the new one, passes every
//! listening socket to it, and stops accepting when the new one accepts.
//!
//! ```text
//! old: starts the program; standard input of the new process is a unix socket
//! old: Offer            which sockets there are
//! old: descriptors      in batches of 253
//! old: State            health, orders, DNS answers; a version that is unknown is ignored
//! new: Report           ready, with the sockets that it does not use; or failed, and why
//! old: Totals           the old process has stopped accepting; repeated until it ends
//! ```
//!
//! Each message is its length (4 bytes, little-endian) and JSON. Until its report is read, nothing
//! of the old process changes; the new one serves HTTP and the control socket from the first
//! totals on, so that no counter of a scrape goes back.

mod count;
mod inherited;
mod messages;
mod predecessor;
mod program;
mod publisher;
mod state;
mod successor;
mod takeover;
mod wire;

pub use count::{apply as apply_totals, collect as collect_totals};
pub use inherited::{Extra, Inherited};
pub use messages::{Offered, Role};
pub use predecessor::{Earlier, Predecessor};
pub use program::Program;
pub use publisher::Publisher;
pub use state::State;
pub use successor::{Offering, START_TIMEOUT, Successor};
pub use takeover::{Start, Taken, Takeover};
