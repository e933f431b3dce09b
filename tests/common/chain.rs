//! Upgrades of a balancer: each process is replaced by the next one.

use std::fs;
use std::ops::Deref;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::balancer::printed;
use super::wait::until;
use super::{Balancer, Config, TestEnv};

/// A balancer and the processes that have replaced it. Dropping it ends them all.
pub(crate) struct Chain<'a> {
    pub(crate) first: Balancer<'a>,
    /// Process ids, the first one's first.
    pub(crate) pids: Vec<u32>,
}

impl<'a> Chain<'a> {
    pub(crate) fn start(env: &'a TestEnv, config: &Config) -> Self {
        Self::of(Balancer::start(env, config))
    }

    pub(crate) fn of(first: Balancer<'a>) -> Self {
        let pids = vec![first.pid()];
        Self { first, pids }
    }

    /// The process in charge.
    pub(crate) fn pid(&self) -> u32 {
        self.pids[self.pids.len() - 1]
    }

    /// Upgrades, and returns what the command printed.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> String {
        let before = self.pid();
        let text = self.first.control_ok(&["upgrade"]);
        let new = text.strip_prefix("upgraded: process ").and_then(|rest| {
            let (pid, rest) = rest.split_once(' ')?;
            rest.contains(&format!("has replaced process {before}, ")).then(|| pid.parse().ok())?
        });
        self.pids.push(new.unwrap_or_else(|| panic!("{text}")));
        text
    }

    /// Replaces the configuration file and upgrades.
    #[track_caller]
    pub(crate) fn upgrade_to(&mut self, config: &Config) {
        self.first.rewrite(&config.text());
        self.upgrade();
    }

    /// Runs `evenkeel upgrade`, which must fail.
    #[track_caller]
    pub(crate) fn fails(&self) -> String {
        let output = self.first.control(&["upgrade"]);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        let text = printed(&output);
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        text
    }

    /// Waits until a process has ended.
    #[track_caller]
    pub(crate) fn ended(&mut self, index: usize) {
        if index == 0 {
            let status = self.first.wait();
            assert!(status.success(), "{status}");
            return;
        }
        let pid = self.pids[index];
        until(&format!("process {pid} has ended"), || !runs(pid));
    }

    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        kill(pid(self.pids[index]), signal).unwrap();
    }

    /// Waits until the log has a line with this text.
    #[track_caller]
    pub(crate) fn logged(&self, text: &str) {
        until(&format!("the log has {text:?}"), || self.first.application_log().contains(text));
    }

    pub(crate) fn count(&self, outcome: &str) -> f64 {
        self.first.metrics().value("evenkeel_upgrades_total", &[("outcome", outcome)])
    }
}

impl<'a> Deref for Chain<'a> {
    type Target = Balancer<'a>;

    fn deref(&self) -> &Balancer<'a> {
        &self.first
    }
}

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        let group = self.pids[0].to_string();
        for process in &self.pids[1..] {
            // It may have ended, and its number may be another process's now.
            if stat(*process).is_some_and(|fields| fields[2] == group) {
                kill(pid(*process), Signal::SIGKILL).ok();
            }
        }
    }
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// The fields of proc(5) from the third on: state, parent, process group.
pub(crate) fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

pub(crate) fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}
