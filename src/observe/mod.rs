//! What an operator sees: counters, the session log, the status page, the control socket.

pub mod operator;
pub mod log;
pub mod report;
pub mod process;
pub mod netstat;
pub mod exposition;
pub mod page;
mod visitors;
pub mod http;
pub mod admin;

#[cfg(test)]
mod sample;

/// Visitors at most, of `observe.bind` and of the control socket: all that are served at once, and
/// one who waits.
pub const VISITORS_MAX: [usize; 2] = [http::CONNECTIONS_MAX + 1, admin::CONNECTIONS_MAX + 1];
