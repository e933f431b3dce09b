//! Real clients and servers through evenkeel, a file for each protocol. Each test starts its own
//! servers on the address of its `TestEnv`, in its directory, and ends them. A test whose programs
//! are not installed is reported as skipped; `tests/run` installs them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../common/mod.rs"]
mod common;

mod certificate;
mod program;
mod support;
mod namespace;
mod postgres;
mod redis;
mod mqtt;
mod ssh;
mod smtp;
mod http2;
mod kubernetes;
