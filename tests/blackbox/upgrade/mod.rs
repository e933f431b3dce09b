//! Upgrades: a new process takes the listening sockets of the old one, without a gap. The cases are
//! 63 to 82 of the list.

mod failures;
mod load;
mod service_manager;
mod sockets;
mod state;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::balancer::{PROGRAM, printed, run_command, write_config};
use crate::common::wait::until;
use crate::common::{Balancer, Config, TestEnv};

/// A balancer and the processes that have replaced it. Dropping it ends them all.
struct Chain<'a> {
    first: Balancer<'a>,
    /// Process ids, the first one's first.
    pids: Vec<u32>,
}

impl<'a> Chain<'a> {
    fn start(env: &'a TestEnv, config: &Config) -> Self {
        Self::of(Balancer::start(env, config))
    }

    fn of(first: Balancer<'a>) -> Self {
        let pids = vec![first.pid()];
        Self { first, pids }
    }

    /// The process in charge.
    fn pid(&self) -> u32 {
        self.pids[self.pids.len() - 1]
    }

    /// Upgrades, and returns what the command printed.
    #[track_caller]
    fn upgrade(&mut self) -> String {
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
    fn upgrade_to(&mut self, config: &Config) {
        self.first.rewrite(&config.text());
        self.upgrade();
    }

    /// Runs `evenkeel upgrade`, which must fail.
    #[track_caller]
    fn fails(&self) -> String {
        let output = self.first.control(&["upgrade"]);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        let text = printed(&output);
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        text
    }

    /// Waits until a process has ended.
    #[track_caller]
    fn ended(&mut self, index: usize) {
        if index == 0 {
            let status = self.first.wait();
            assert!(status.success(), "{status}");
            return;
        }
        let pid = self.pids[index];
        until(&format!("process {pid} has ended"), || !runs(pid));
    }

    fn signal(&self, index: usize, signal: Signal) {
        kill(pid(self.pids[index]), signal).unwrap();
    }

    /// Waits until the log has a line with this text.
    #[track_caller]
    fn logged(&self, text: &str) {
        until(&format!("the log has {text:?}"), || self.first.application_log().contains(text));
    }

    fn count(&self, outcome: &str) -> f64 {
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

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// The fields of proc(5) from the third on: state, parent, process group.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// A copy of the program, which a test may replace.
fn copied_program(env: &TestEnv) -> PathBuf {
    let copy = env.file("program");
    copy_file(Path::new(PROGRAM), &copy);
    copy
}

/// Copies a program in a process of its own: as long as this one has a file open for writing, which
/// a program that another test starts meanwhile inherits, it cannot be executed (ETXTBSY).
fn copy_file(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Puts a copy of the program in the place of `file`, as package managers do.
fn replace_by_program(file: &Path) {
    replace(file, Path::new(PROGRAM));
}

/// Puts a shell script in the place of `file`.
fn replace_by_script(file: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let text = file.with_extension("text");
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    replace(file, &text);
}

fn replace(file: &Path, with: &Path) {
    let new = file.with_extension("new");
    copy_file(with, &new);
    fs::rename(&new, file).unwrap();
}

/// Starts `program` with that configuration.
fn start_program<'a>(env: &'a TestEnv, program: &Path, config: &Config) -> Chain<'a> {
    let mut command = Command::new(program);
    command.args(["run", "-c"]).arg(write_config(env, &config.text()));
    Chain::of(Balancer::start_command(env, command))
}
