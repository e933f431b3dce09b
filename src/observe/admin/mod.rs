//! The control socket: one line of JSON asks, one line of JSON answers.
//!
//! ```text
//! {"do":"status"}                                         {"ok":{"version":...}}
//! {"do":"state","server":"web/web1","state":"drain"}      {"ok":"web/web1 is in state drain"}
//! {"do":"weight","server":"web/web1","weight":50}         {"error":"there is no backend ..."}
//! {"do":"sessions"}                                       {"ok":[{"id":"0-12-3",...}]}
//! {"do":"kill","id":"0-12-3"}
//! {"do":"reload"}
//! {"do":"reload","dry_run":true}                          {"ok":{"changes":[...],...}}
//! {"do":"upgrade"}
//! {"do":"explain","frontend":"http"}                      {"ok":{"frontend":"http",...}}
//! ```
//!
//! For root and the user that the balancer runs as: the mode of the socket is 0600, and the
//! credentials of the peer are checked.

mod protocol;
mod socket;
mod serve;
mod client;

pub use client::{explain, kill, order, plan_reload, sessions, status, wait_for_sessions};
pub use serve::{CONNECTIONS_MAX, serve};
pub use socket::{Socket, bind, try_bind};

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
mod tests;
