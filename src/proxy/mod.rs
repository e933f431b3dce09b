//! The data plane: the path of a connection.

pub mod worker;
mod sessions;

pub mod accept;
mod listen_socket;
mod listeners;

pub mod access;
mod preface;
#[cfg(any(test, fuzzing))]
pub use preface::fuzzing;

pub mod route;
mod balance;

pub mod queue;
mod connect;
mod outgoing;
mod send_proxy;

mod relay;
pub mod pump;
mod copy;
mod splice;

mod close;
mod retire;

pub mod session;
pub mod state;
pub mod rules;
mod view;

pub mod worker_handle;
mod context;
mod sockets;
mod session_io;
mod shortage;

pub mod io;
pub mod slots;
mod user_data;
pub mod timer_wheel;

/// Pipes that a worker makes at most, two descriptors each. Only sessions whose bytes wait in one
/// hold it, so that few serve many; beyond them bulk is copied.
pub const PIPES_PER_WORKER: u16 = 64;
