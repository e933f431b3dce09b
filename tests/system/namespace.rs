//! A second host for a test: network namespaces of the test and of the host, with a link between
//! them that can be cut.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::common::wait::until;
use crate::common::{TestEnv, skip};
use crate::program::{Program, run};
use crate::support::{command, has_programs};

const PROGRAMS: [&str; 4] = ["ip", "nsenter", "unshare", "sleep"];

/// A host behind a link of its own.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    env: &'a TestEnv,
    /// A process that holds its network namespace.
    holder: Program,
}

/// Moves this thread, and the programs that it starts, to a new network namespace that has only
/// loopback. To be called before the `TestEnv` is made. False: that is not possible, and `test` is
/// reported as skipped.
pub(crate) fn enter(test: &str) -> bool {
    if !geteuid().is_root() {
        skip(test, "only root may create a network namespace");
        return false;
    }
    if !has_programs(test, &PROGRAMS) {
        return false;
    }
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        skip(test, &format!("network namespaces cannot be created: {error}"));
        return false;
    }
    let mut up = command("ip");
    up.args("link set lo up".split(' '));
    assert!(up.status().unwrap().success());
    true
}

impl<'a> Host<'a> {
    /// Connects a new host, 192.0.2.2, to the namespace of this thread, which becomes 192.0.2.1.
    pub(crate) fn new(env: &'a TestEnv) -> Self {
        let mut holder = command("unshare");
        holder.args(["--net", "sleep", "infinity"]);
        let mut host = Self { env, holder: Program::start(env, holder) };
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = namespace("thread-self");
        until("the host has its namespace", || {
            assert!(!host.holder.has_ended(), "{}", host.holder.stderr());
            let its = namespace(&host.holder.pid().to_string());
            its.is_some() && its != own
        });
        let pid = host.holder.pid();
        host.ip(&format!("link add near type veth peer name far netns {pid}"));
        host.ip("address add 192.0.2.1/24 dev near");
        host.ip("link set near up");
        for words in ["link set lo up", "address add 192.0.2.2/24 dev far", "link set far up"] {
            host.run_there(words);
        }
        host
    }

    /// An address of the host.
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 2], port))
    }

    /// A command that runs on the host; its process id is that of the program.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut inside = command("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.holder.pid()));
        inside.arg(command(program).get_program());
        inside
    }

    /// Cuts the link: nothing arrives any more, and nobody is told.
    pub(crate) fn cut(&self) {
        self.run_there("link set far down");
    }

    fn ip(&self, words: &str) {
        let mut ip = command("ip");
        ip.args(words.split(' '));
        run(self.env, ip);
    }

    fn run_there(&self, words: &str) {
        let mut ip = self.command("ip");
        ip.args(words.split(' '));
        run(self.env, ip);
    }
}
