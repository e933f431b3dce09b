//! The real binary between scripted peers on loopback, as its operators and their clients meet it.
//! Numbers in names of cases are the ones of the fault list that the project is held to.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod alone;
mod balancing;
mod connects;
mod scheduling;
mod endings;
mod endpoints;
mod life;
mod limits;
mod memory;
mod orders;
mod outputs;
mod queue;
mod relay;
mod reload;
mod resets;
mod rotation;
mod slow_readers;
mod startup;
mod supervisor;
