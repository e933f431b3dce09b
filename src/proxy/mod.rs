//! The data plane: the way of a connection. Listen, pick, connect, relay, close.

pub mod worker;

mod listen;

pub mod pick;

mod connect;

pub mod pump;
mod relay;
mod splice;

mod close;

pub mod session;

mod courtesy;
mod legs;
mod shortage;
mod spares;

pub mod kernel;
mod slots;
mod token;
pub mod wheel;

/// Pipes that a worker makes at most, two descriptors each. Only sessions whose bytes wait in one
/// hold it, so that few serve many; beyond them bulk is copied.
pub const PIPES_PER_WORKER: u16 = 64;

/// Sockets of servers that a worker keeps at most to connect them again: those that one turn closes
/// serve whom the next one accepts, and with 64 clients at once fewer would miss some (figures:
/// `bench/DECISIONS.md`).
pub const SPARES_PER_WORKER: u16 = 64;
