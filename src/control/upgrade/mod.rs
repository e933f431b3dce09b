//! A change of the running binary without a gap: the old process starts the new one, passes every
//! listening socket to it, and puts it in charge when it is ready.
//!
//! ```text
//! old: starts the program; standard input of the new process is a unix socket
//! old: Offer            which sockets there are
//! old: descriptors      in batches of 253
//! old: State            health, orders, DNS answers; a version that is unknown is ignored
//! new: Report           ready, with the sockets that it does not use; or failed, and why
//! old: Totals           the new process is in charge; repeated until the old one ends
//! ```
//!
//! Each message is its length (4 bytes, little-endian) and JSON. The old process decides alone, and
//! the last byte of its first totals is the point of no return. Until then the new process accepts
//! nothing and changes nothing that the old one uses: it does everything that can fail before it
//! reports, and its workers have a table without listeners. If the stream ends before that byte,
//! the new process ends with code 1, and no client has seen it. From that byte on it serves
//! clients, HTTP and the control socket; its counters begin at those of the totals.

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
pub use inherited::{Inherited, UnopenedSocket};
pub use messages::{Offered, Role};
pub use predecessor::{Earlier, Predecessor};
pub use program::Program;
pub use publisher::{Decision, Publisher};
pub use state::State;
pub use successor::{Offering, START_TIMEOUT, Successor};
pub use takeover::{Start, Taken, Takeover};
