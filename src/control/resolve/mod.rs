//! Host names and SRV names: looking them up, and following their changes.

mod answer;
mod dns;
mod system;
mod mdns;
mod resolver;
mod srv;
mod follow;

pub use answer::{Answer, SrvAnswer};
pub use follow::{Followed, Follower, Resolved};
pub use mdns::is_local;
pub use resolver::{MULTICAST_SOCKETS_MAX, Resolver};

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
mod tests;
