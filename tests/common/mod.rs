//! What the suites share: the real binary in a place of its own, peers that do as they are told,
//! and the books.

pub(crate) mod balancer;
pub(crate) mod books;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod http;
pub(crate) mod place;
pub(crate) mod server;
pub(crate) mod wait;

pub(crate) use balancer::Balancer;
pub(crate) use config::Config;
pub(crate) use place::Place;
pub(crate) use server::Server;
pub(crate) use wait::until;

use std::io::{self, Write};

/// Says that a test is skipped, past the capture of the test harness: who sees "ok" should know.
pub(crate) fn skip(test: &str, why: &str) {
    // To a closed standard error, there is nobody to tell.
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}
