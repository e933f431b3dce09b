//! What an operator sees: counters, the session log, the status page, the control socket.

pub mod log;
pub mod metrics;
pub mod status;
pub mod admin;
