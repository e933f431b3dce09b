//! Whether io_uring works here as a worker needs it. Each feature is tried on a ring of a worker.
//!
//! `doctor` reports every feature; `run` calls [`ring_available`] before it starts workers, so that
//! a kernel or a sandbox without io_uring is reported in one sentence instead of an errno.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::ring::completion::Completion;
use crate::sys::ring::{Ring, RingSize};
use crate::sys::socket::Socket;

/// Why a worker cannot have a ring. Displayed as one sentence with its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingProblem {
    /// ENOSYS without a seccomp filter: the kernel was built without io_uring.
    Missing,
    /// ENOSYS or EPERM from a seccomp filter of a container or a service manager.
    Seccomp,
    /// EPERM from `kernel.io_uring_disabled`, which has this value (1: all but a group, 2: all).
    Sysctl(u32),
    /// EPERM or EACCES from neither of these two: a security module.
    Forbidden,
    /// EINVAL: the kernel does not know `SINGLE_ISSUER` and `DEFER_TASKRUN` (6.1).
    Old,
    /// ENOMEM: `RLIMIT_MEMLOCK` leaves no room for a ring.
    Memory,
    /// EMFILE or ENFILE: no file descriptor is left.
    Descriptors,
    /// Any other errno.
    Other(i32),
}

impl RingProblem {
    /// The cause.
    #[must_use]
    pub fn cause(self) -> String {
        match self {
            Self::Missing => "this kernel has no io_uring".to_owned(),
            Self::Seccomp => "io_uring is forbidden here by a seccomp profile".to_owned(),
            Self::Sysctl(value) => {
                format!("io_uring is forbidden here by kernel.io_uring_disabled = {value}")
            }
            Self::Forbidden => "io_uring is forbidden here by a security policy".to_owned(),
            Self::Old => "this kernel has no SINGLE_ISSUER or no DEFER_TASKRUN (6.1)".to_owned(),
            Self::Memory => "RLIMIT_MEMLOCK leaves no memory for a ring".to_owned(),
            Self::Descriptors => "no file descriptor is left for a ring".to_owned(),
            Self::Other(errno) => {
                format!("io_uring cannot be set up: {}", io::Error::from_raw_os_error(errno))
            }
        }
    }

    /// The remedy: a command where there is one.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Missing => "boot a kernel with CONFIG_IO_URING=y, 6.1 or newer",
            Self::Seccomp => {
                "start the container with --security-opt seccomp=unconfined (or a profile that \
                 allows io_uring_setup, io_uring_enter and io_uring_register), or the service \
                 with SystemCallFilter=@aio among its groups"
            }
            Self::Sysctl(_) => "sysctl -w kernel.io_uring_disabled=0",
            Self::Forbidden => "allow io_uring in the security policy of this machine",
            Self::Old => "boot kernel 6.1 or newer",
            Self::Memory => "ulimit -l 65536 (or LimitMEMLOCK=64M in the service)",
            Self::Descriptors => "ulimit -n 20000 (or LimitNOFILE=20000 in the service)",
            Self::Other(_) => "boot another kernel, 6.1 or newer",
        }
    }

    fn of(error: &io::Error) -> Self {
        let filtered = seccomp_filtered();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSYS) if filtered => Self::Seccomp,
            Some(Errno::ENOSYS) => Self::Missing,
            Some(Errno::EPERM | Errno::EACCES) => match io_uring_disabled() {
                Some(value @ 1..) => Self::Sysctl(value),
                _ if filtered => Self::Seccomp,
                _ => Self::Forbidden,
            },
            Some(Errno::EINVAL) => Self::Old,
            Some(Errno::ENOMEM) => Self::Memory,
            Some(Errno::EMFILE | Errno::ENFILE) => Self::Descriptors,
            Some(other) => Self::Other(other as i32),
            None => Self::Other(0),
        }
    }
}

impl fmt::Display for RingProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; {}", self.cause(), self.remedy())
    }
}

impl std::error::Error for RingProblem {}

/// Check whether a worker can make a ring and enter it.
///
/// # Errors
/// The likely cause, with its remedy.
pub fn ring_available() -> Result<(), RingProblem> {
    let entered =
        small_ring().and_then(|mut ring| Ok(ring.wait(Duration::ZERO, Some(Duration::ZERO))?));
    entered.map_err(|error| RingProblem::of(&error))
}

/// How many rings for about `sessions` sessions each this process can have at once: in full size,
/// and in the smallest size that a worker accepts. At most `wanted` are made, and dropped again; it
/// is less when memory or descriptors run out before.
#[must_use]
pub fn rings_that_fit(wanted: usize, sessions: u32) -> (usize, usize) {
    let fit = |size| {
        let rings = (0..wanted).map_while(|_| Ring::of_size(size, BUFFERS).ok());
        rings.collect::<Vec<_>>().len()
    };
    let size = RingSize::for_sessions(sessions);
    (fit(size), fit(size.smallest()))
}

/// Try a multishot accept (kernel 5.19) with two clients on loopback. Each descriptor must belong
/// to the connection that its client made (kernels 6.6.1 to 6.7.4 returned descriptors that did
/// not).
///
/// # Errors
/// It does not work, or there is no loopback interface.
pub fn try_multishot_accept() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, listener) = (listener.local_addr()?, OwnedFd::from(listener));
    let mut ring = small_ring()?;
    ring.accept(&listener, OPERATION, true);
    let outcome = accept_two(&mut ring, address);
    ring.cancel_accept(OPERATION);
    ring.finish(TIMEOUT);
    outcome
}

/// Try a multishot receive (kernel 6.0) with two messages on a loopback connection, each into a
/// buffer of the buffer ring.
///
/// # Errors
/// It does not work, or there is no loopback interface.
pub fn try_multishot_receive() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let server = listener.accept()?.0;
    server.set_nonblocking(true)?;
    let server = Socket::from_descriptor(server.into());
    let mut ring = small_ring()?;
    ring.receive(&server, OPERATION, true);
    let outcome = receive_two(&mut ring, &mut client);
    ring.cancel(OPERATION);
    ring.finish(TIMEOUT);
    outcome
}

/// Loopback answers in microseconds; a machine that swaps may need longer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The user data of the operation that is tried.
const OPERATION: u64 = 1;

/// The buffers of a ring that is tried: as few as possible.
const BUFFERS: u16 = 8;

fn small_ring() -> io::Result<Ring> {
    Ring::of_size(RingSize::for_sessions(0).smallest(), BUFFERS)
}

/// `kernel.io_uring_disabled`; none before kernel 6.6.
fn io_uring_disabled() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Whether a seccomp filter is in force for this thread (proc(5), `Seccomp: 2`).
fn seccomp_filtered() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

fn accept_two(ring: &mut Ring, address: SocketAddr) -> io::Result<()> {
    for _ in 0..2 {
        let client = TcpStream::connect(address)?;
        let completion = next(ring)?;
        let accepted = completion.socket.ok_or(io::ErrorKind::UnexpectedEof)?;
        if accepted.peer().ok() != Some(client.local_addr()?.into()) {
            // It belongs to somebody else, who will close it.
            let descriptor = accepted.into_descriptor();
            let problem = format!("descriptor {descriptor} is not the connection of the client");
            return Err(io::Error::other(problem));
        }
        expect_more(completion.more)?;
    }
    Ok(())
}

fn receive_two(ring: &mut Ring, client: &mut TcpStream) -> io::Result<()> {
    for message in [b"one", b"two"] {
        client.write_all(message)?;
        let completion = next(ring)?;
        let length = completion.result?;
        let buffer = completion.buffer;
        let buffer = buffer.ok_or_else(|| io::Error::other("the receive used no buffer"))?;
        let is_right = length > 0 && ring.buffers().bytes(&buffer, (0, length)) == message;
        ring.release(buffer);
        if !is_right {
            return Err(io::Error::other("other bytes were received than were sent"));
        }
        expect_more(completion.more)?;
    }
    Ok(())
}

/// The next completion without an error; ETIME if there is none in time.
fn next(ring: &mut Ring) -> io::Result<Completion> {
    let deadline = ring.now() + TIMEOUT;
    loop {
        if let Some(completion) = ring.completion() {
            completion.result?;
            return Ok(completion);
        }
        let now = ring.now();
        if now >= deadline {
            return Err(Errno::ETIME.into());
        }
        ring.wait(now, Some(deadline))?;
    }
}

fn expect_more(more: bool) -> io::Result<()> {
    if more { Ok(()) } else { Err(io::Error::other("it ended after the first completion")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ring::RingFeatures;

    #[test]
    fn every_problem_names_its_cause_and_a_remedy_in_one_sentence() {
        let text = RingProblem::Sysctl(2).to_string();
        assert!(text.contains("kernel.io_uring_disabled = 2"), "{text}");
        assert!(text.contains("sysctl -w kernel.io_uring_disabled=0"), "{text}");
        assert!(RingProblem::Seccomp.to_string().contains("seccomp"));
        assert!(!RingProblem::Memory.to_string().contains('\n'));
    }

    #[test]
    fn if_a_ring_can_be_made_all_its_features_work() {
        if let Err(problem) = ring_available() {
            writeln!(io::stderr(), "skipped: {problem}").unwrap();
            return;
        }
        let features = RingFeatures::of_this_kernel().unwrap();
        assert!(features.ext_arg);
        assert!(features.operations.iter().all(|(_, known)| *known), "{features:?}");
        try_multishot_accept().unwrap();
        try_multishot_receive().unwrap();
        assert_eq!(rings_that_fit(1, 8), (1, 1));
    }
}
