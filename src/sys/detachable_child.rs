//! A child process that becomes the child of another process before it is put in charge. A service
//! manager waits for the end of its own children only, and inherits those whose parent has ended.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{self, SigHandler, SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{ForkResult, Pid, fork};

/// A process whose parent is a keeper, until it is detached: a copy of this process, without its
/// threads and descriptors, that ends as the child ends, or as soon as nobody holds the other end
/// of its socket.
#[derive(Debug)]
pub struct DetachableChild {
    pid: u32,
    /// A descriptor of the process: its number may be used again, and this names no other one.
    /// None: it has ended.
    process: Option<OwnedFd>,
    /// None: it is detached.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    process: Child,
    socket: UnixStream,
}

impl DetachableChild {
    /// Starts the process. What this process writes to its memory while the keeper lives costs a
    /// copy of each page.
    ///
    /// # Errors
    /// It cannot be started, or there is no descriptor left.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let (mut socket, theirs) = UnixStream::pair()?;
        let number = theirs.as_raw_fd();
        // SAFETY: between fork and exec `fork_again` makes system calls only, and allocates
        // nothing; `theirs` is open in the child, which has a copy of it.
        unsafe { command.pre_exec(move || fork_again(number)) };
        let mut process = command.spawn()?;
        drop(theirs);
        let mut pid = [0; 4];
        let opened = socket.read_exact(&mut pid).and_then(|()| open(u32::from_ne_bytes(pid)));
        // The number is free as soon as the keeper has ended, and may be that of another process.
        let has_ended = process.try_wait()?.is_some();
        let opened = match opened {
            Ok(_) if has_ended => None,
            Ok(opened) => Some(opened),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
            Err(error) => {
                // Its child finds the end of what it was started with.
                drop(socket);
                process.wait()?;
                return Err(error);
            }
        };
        let keeper = Some(Keeper { process, socket });
        Ok(Self { pid: u32::from_ne_bytes(pid), process: opened, keeper })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.has_ended_within(Duration::ZERO)
    }

    /// Gives it another parent: the service manager, or the first process of the machine.
    ///
    /// # Errors
    /// The keeper cannot be waited for.
    pub fn detach(&mut self) -> io::Result<()> {
        let Some(Keeper { mut process, socket }) = self.keeper.take() else { return Ok(()) };
        drop(socket);
        process.wait().map(drop)
    }

    /// Waits until it has ended, and kills it after `time`. Its exit status if it ended by itself
    /// and was not detached.
    pub fn end(&mut self, time: Duration) -> Option<ExitStatus> {
        let by_itself = self.has_ended_within(time);
        if !by_itself {
            self.kill();
        }
        let Keeper { process, .. } = self.keeper.as_mut()?;
        let status = process.wait().ok();
        self.keeper = None;
        status.filter(|_| by_itself)
    }

    fn has_ended_within(&self, time: Duration) -> bool {
        let Some(process) = &self.process else { return true };
        let mut process = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        poll(&mut process, time).is_ok_and(|ended| ended > 0)
    }

    fn kill(&self) {
        let Some(process) = &self.process else { return };
        // SAFETY: the descriptor is open; there is no siginfo, and there are no flags.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }
}

/// A descriptor of a process.
fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(descriptor) {
        // SAFETY: the kernel has just opened it, for nobody else.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs in the child of this process: becomes the keeper, and returns in its child.
fn fork_again(socket: RawFd) -> io::Result<()> {
    // SAFETY: this process has one thread, and its child goes on to exec.
    match unsafe { fork() }? {
        ForkResult::Child => Ok(()),
        ForkResult::Parent { child } => keep(child, socket),
    }
}

/// Ends as `child` does, or at the end of `socket`. It has no other descriptor: a copy of a socket
/// would keep it open. Nothing here allocates.
fn keep(child: Pid, socket: RawFd) -> ! {
    let process = open(child.as_raw().unsigned_abs());
    // SAFETY: `socket` is open, and nothing else in this process uses it.
    let mut stream = unsafe { UnixStream::from_raw_fd(socket) };
    let kept = [Some(socket), process.as_ref().ok().map(AsRawFd::as_raw_fd)];
    close_all_but(kept);
    let told = stream.write_all(&child.as_raw().to_ne_bytes());
    let (Ok(()), Ok(process)) = (told, process) else { exit(1) };
    let poll_fd = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
    let mut both = [poll_fd(process.as_fd()), poll_fd(stream.as_fd())];
    while poll(&mut both, PollTimeout::NONE).is_err() {}
    if both[0].any() != Some(true) {
        exit(0);
    }
    // Its number stays its own until this process has ended.
    match waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
        Ok(WaitStatus::Exited(_, code)) => exit(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => end_by(signal),
        _ => exit(1),
    }
}

/// Closes the descriptors of this process but these.
fn close_all_but(mut kept: [Option<RawFd>; 2]) {
    kept.sort_unstable();
    let mut first = 0;
    for descriptor in kept.into_iter().flatten() {
        close_range(first, descriptor - 1);
        first = descriptor + 1;
    }
    close_range(first, RawFd::MAX);
}

/// Closes the descriptors `first` to `last`, if there are any between them.
fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: no memory is passed, and this process uses none of these descriptors any more.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Ends this process by a signal, without the dump of its memory that the signal may cause.
fn end_by(by: Signal) -> ! {
    // SAFETY: no function handles it afterwards.
    let set = |()| unsafe { signal::signal(by, SigHandler::SigDfl) }.map(drop);
    let prepared = prctl::set_dumpable(false).and_then(set);
    // SIGKILL is not prepared, and needs not to be.
    let prepared = prepared.and_then(|()| SigSet::all().thread_unblock()).is_ok();
    let ended = signal::kill(Pid::this(), by).is_ok();
    exit(i32::from(!prepared || !ended))
}

/// Ends this process, which is a copy, and runs nothing that the other one has left to its end.
fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> DetachableChild {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        DetachableChild::start(command).unwrap()
    }

    fn parent(pid: u32) -> u32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn its_end_is_known_until_it_is_detached() {
        assert_eq!(shell("exit 3").end(LONG).unwrap().code(), Some(3));
        assert_eq!(shell("kill -TERM $$").end(LONG).unwrap().signal(), Some(libc::SIGTERM));
        assert_eq!(shell("kill -SEGV $$").end(LONG).unwrap().signal(), Some(libc::SIGSEGV));
        let mut silent = shell("read forever");
        assert!(!silent.runs() || silent.end(LONG).is_some());
    }

    #[test]
    fn a_process_that_ends_at_once_has_an_exit_status() {
        for _ in 0..5 {
            assert_eq!(shell("exit 3").end(LONG).unwrap().code(), Some(3));
        }
    }

    #[test]
    fn a_process_that_does_not_end_in_time_is_killed() {
        for is_detached in [false, true] {
            let mut child = shell("exec sleep 3600");
            if is_detached {
                child.detach().unwrap();
            }
            assert!(child.runs());
            assert_eq!(child.end(Duration::ZERO), None);
            assert!(child.has_ended_within(LONG));
        }
    }

    #[test]
    fn a_detached_process_has_another_parent_and_goes_on() {
        let mut child = shell("exec sleep 3600");
        let keeper = child.keeper.as_ref().unwrap().process.id();
        assert_eq!(parent(child.pid()), keeper);
        child.detach().unwrap();
        assert!(![keeper, std::process::id()].contains(&parent(child.pid())));
        assert!(child.runs());
        assert_eq!(child.end(Duration::ZERO), None);
    }

    #[test]
    fn a_program_that_is_missing_is_an_error() {
        let error = DetachableChild::start(Command::new("/nowhere/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
