//! Tells the service manager about changes of state (`sd_notify(3)`); without `NOTIFY_SOCKET` each
//! of these does nothing.
//!
//! Sending never waits: a service manager that does not read must not stop the control thread.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::sys::descriptors;

const READY: &str = "READY=1\n";
const STOPPING: &str = "STOPPING=1\n";
const BARRIER: &[u8] = b"BARRIER=1\n";
const WATCHDOG: &str = "WATCHDOG=1\n";

/// For the service manager to read what was sent.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages to the watchdog within its time: two of them may be late.
const MESSAGES_IN_TIME: u32 = 3;

/// The service manager.
#[derive(Debug)]
pub struct Notifier {
    /// A non-blocking socket, and where it sends to; none: nobody is to be notified.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Changes of state that found its queue full, oldest first. A reload and a stop replace what
    /// came before them, so that these are two at most: RELOADING and READY.
    unsent: Vec<String>,
    /// The last status that was sent.
    status: String,
    /// The service manager listens to this process.
    is_main: bool,
    watchdog: Option<Watchdog>,
}

/// The watchdog of the service manager, which restarts a process that does not report.
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    /// When it was last told.
    last: Option<Instant>,
}

impl Notifier {
    /// The one that `NOTIFY_SOCKET` names.
    #[must_use]
    pub fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let opened = open(&name);
            opened.inspect_err(|error| tracing::warn!("NOTIFY_SOCKET cannot be used: {error}")).ok()
        });
        let named = |name: &str| env::var(name).ok();
        let interval = watchdog_interval(named("WATCHDOG_USEC"), named("WATCHDOG_PID"));
        let watchdog = interval.map(|interval| Watchdog { interval, last: None });
        Self { socket, unsent: Vec::new(), status: String::new(), is_main: true, watchdog }
    }

    /// Serving: the end of the start, and of each reload.
    pub fn ready(&mut self) {
        self.unsent.push(READY.to_owned());
        self.send_unsent();
    }

    /// A reload begins; [`Notifier::ready`] must follow, also when the file was bad.
    /// `Type=notify-reload` needs the time with it (systemd 253).
    pub fn reloading(&mut self) {
        // Without the time, systemd takes it as it did before version 253.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or_else(
            |_| String::new(),
            |now| format!("MONOTONIC_USEC={}{:06}\n", now.tv_sec(), now.tv_nsec() / 1000),
        );
        self.unsent = vec![format!("RELOADING=1\n{time}")];
        self.send_unsent();
    }

    /// The drain has begun.
    pub fn stopping(&mut self) {
        self.unsent = vec![STOPPING.to_owned()];
        self.send_unsent();
    }

    /// Another process is the main one from now on: the service manager waits for its end, and
    /// listens to it. Only the main process may say so (`NotifyAccess=main`).
    pub fn main_process(&mut self, pid: u32) {
        self.unsent.push(format!("MAINPID={pid}\n"));
        self.send_unsent();
    }

    /// Nothing more is sent for this process but what is unsent: another one is the main process.
    pub fn leave(&mut self) {
        self.is_main = false;
    }

    /// The end. If another process is the main one, waits until the service manager has handled
    /// all messages (`sd_notify_barrier(3)`), but not long: it must learn of that process before
    /// this one is gone. Blocks.
    pub fn finish(&mut self) {
        self.send_unsent();
        if self.is_main {
            return;
        }
        let Some((socket, address)) = self.socket.take() else { return };
        let waited = barrier(&socket, &address);
        if let Err(error) = waited {
            tracing::debug!("the service manager does not say that it has read: {error}");
        }
    }

    /// One line for `systemctl status`, sent when it differs from the last one. Sends the changes
    /// of state again that found the queue full, so it is to be called now and then.
    pub fn status(&mut self, line: &str) {
        self.send_unsent();
        if self.is_main
            && self.unsent.is_empty()
            && self.status != line
            && self.send(&format!("STATUS={}\n", one_line(line)))
        {
            line.clone_into(&mut self.status);
        }
    }

    /// The control thread and all workers run. To be called twice a second; tells the watchdog, if
    /// there is one, often enough. It watches the main process.
    pub fn watchdog(&mut self, now: Instant) {
        if !self.is_main {
            return;
        }
        let Some(Watchdog { interval, last }) = &self.watchdog else { return };
        if last.is_some_and(|last| now.duration_since(last) < *interval) || !self.send(WATCHDOG) {
            return;
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.last = Some(now);
        }
    }

    fn send_unsent(&mut self) {
        while let Some(message) = self.unsent.first()
            && self.send(message)
        {
            self.unsent.remove(0);
        }
    }

    /// False if the queue of the service manager is full: the message may be sent again. One that
    /// cannot be sent at all is dropped.
    fn send(&self, message: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        match socket.send_to_addr(message.as_bytes(), address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!("the service manager is not notified: {error}");
                true
            }
            Ok(_) => true,
        }
    }
}

/// Sends one end of a pair; the service manager closes it after all messages before it.
fn barrier(socket: &UnixDatagram, address: &SocketAddr) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    descriptors::send_to(socket, address, BARRIER, theirs.as_fd())?;
    drop(theirs);
    ours.set_read_timeout(Some(BARRIER_TIMEOUT))?;
    match ours.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// How often the watchdog is to be told, by `WATCHDOG_USEC` and `WATCHDOG_PID`; none: there is
/// none, or it is that of another process (`sd_watchdog_enabled(3)`).
fn watchdog_interval(usec: Option<String>, pid: Option<String>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let usec = usec.filter(|_| is_ours)?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec) / MESSAGES_IN_TIME)
}

/// A path, or `@` and the name of an abstract socket.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// A line break would begin another message of the protocol.
fn one_line(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_that_of_this_process_and_told_three_times_within_its_time() {
        let text = |text: &str| Some(text.to_owned());
        let own = std::process::id().to_string();
        let seconds = |number| Some(Duration::from_secs(number));
        assert_eq!(watchdog_interval(text("30000000"), Some(own)), seconds(10));
        assert_eq!(watchdog_interval(text("30000000"), None), seconds(10));
        assert_eq!(watchdog_interval(text("30000000"), text("1")), None);
        for usec in [None, text("0"), text("-1"), text("soon")] {
            assert_eq!(watchdog_interval(usec, None), None);
        }
    }

    #[test]
    fn a_status_cannot_contain_another_message() {
        assert_eq!(one_line("2 up\nMAINPID=1"), "2 up MAINPID=1");
    }
}
