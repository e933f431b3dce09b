//! What the test suites share: the evenkeel binary with a directory and addresses of one test,
//! scripted clients and servers, and metrics.

pub(crate) mod balancer;
pub(crate) mod metrics;
pub(crate) mod chain;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod frozen;
pub(crate) mod http;
pub(crate) mod test_env;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod wait;

pub(crate) use balancer::Balancer;
pub(crate) use config::Config;
pub(crate) use server::Server;
pub(crate) use test_env::TestEnv;
pub(crate) use wait::until;

use std::io::{self, Write};

/// A configuration with one server, and the server: it sends back what it receives.
pub(crate) fn echoing(env: &TestEnv) -> (Config, Server) {
    let server = Server::echo(env.port(9001));
    (Config::new(env).server("a", server.address), server)
}

/// Reports a skipped test on standard error, where the test harness does not capture it: the
/// harness itself reports the test as passed.
pub(crate) fn skip(test: &str, why: &str) {
    // Standard error may be closed.
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}
