//! The control plane: it decides outside the data path, and hands the result to it as a table.

pub mod budget;
pub mod health;
pub mod heartbeats;
mod ip_listeners;
mod listen_options;
pub mod listeners;
pub mod notify;
mod port_owner;
mod probe;
mod probe_exchange;
mod probe_failure;
mod probe_http;
mod probe_stream;
pub mod probe_tls;
pub mod prober;
pub mod reload;
pub mod resolve;
mod probe_schedule;
pub mod cluster;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod controller;
pub mod signals;
pub mod sources;
mod unix_listeners;
pub mod upgrade;
