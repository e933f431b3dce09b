//! Processes of the bench: where they run, and how they end.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where a process runs: in which network namespace and on which core.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Host {
    /// The process whose network namespace it shares; this one's otherwise.
    pub(crate) namespace: Option<u32>,
    /// The core that it is pinned to; the caller's otherwise.
    pub(crate) core: Option<usize>,
}

impl Host {
    /// A command that dies with this process; the program and its arguments follow.
    pub(crate) fn command(self, batch: bool) -> Command {
        let mut command = tethered();
        if let Some(process) = self.namespace {
            command.args(["nsenter", "--net", "--target", &process.to_string(), "--"]);
        }
        if let Some(core) = self.core {
            command.args(["taskset", "--cpu-list", &core.to_string()]);
        }
        if batch {
            command.args(["chrt", "--batch", "0"]);
        }
        command
    }
}

/// A command that dies with this process; the program and its arguments follow.
pub(crate) fn tethered() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}

/// A process that is killed when the value is dropped or this process dies.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Running {
    /// A child that listens there, or is about to.
    pub(crate) const fn new(address: SocketAddr, child: Child) -> Self {
        Self { address, child }
    }

    /// Starts a responder; its answers begin with this number.
    pub(crate) fn responder(number: u8, bind: IpAddr, host: Host) -> io::Result<Self> {
        let mut command = host.command(false);
        command.arg(std::env::current_exe()?).arg("responder");
        command.args([number.to_string(), bind.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let mut running = Self { address: (bind, 0).into(), child };
        running.address =
            line.trim().parse().map_err(|_| io::Error::other("a responder did not start"))?;
        Ok(running)
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its process id and those of its children: nginx with several workers has some.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let own = self.process();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|process| process.parse().ok());
        std::iter::once(own).chain(children).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in self.processes() {
            kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL).ok();
        }
        self.child.wait().ok();
    }
}

/// Waits for other processes.
#[expect(clippy::disallowed_methods, reason = "no ring here, only other processes to wait for")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
