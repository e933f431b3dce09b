//! What the operator sees: metrics, logs, the status page, the control socket.

pub mod application_log;
pub mod log;
pub mod report;
mod report_text;
mod session_report;
mod explanation_text;
pub mod process;
pub mod netstat;
pub mod exposition;
pub mod page;
mod connection_limit;
mod document;
pub mod http;
pub mod admin;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(any(test, fuzzing))]
mod sample;

/// Descriptors that connections to `observe.bind` and to the control socket take at most: all that
/// are open, and one that waits for a permit.
pub const CONNECTIONS_MAX: [usize; 2] = [http::CONNECTIONS_MAX + 1, admin::CONNECTIONS_MAX + 1];
