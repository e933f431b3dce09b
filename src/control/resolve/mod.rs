//! Host names: looking them up, and following their changes.

mod system;
mod resolver;
mod follow;

pub use follow::{Follower, Resolved};
pub use resolver::{Answer, Resolver};

#[cfg(test)]
mod tests;
