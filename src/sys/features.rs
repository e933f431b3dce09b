//! What this kernel's io_uring gives: each feature that a worker relies on, tried for real.
//!
//! `doctor` shows every one; `run` asks [`ring_available`] first, so that a kernel or a sandbox
//! without io_uring is named in one sentence and not by an errno.

#![expect(unsafe_code, reason = "the ring is the kernel's: src/sys is where it is made safe")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};
use nix::errno::Errno;

use crate::sys::ring::sizes;

/// Why there is no ring for a worker. Displayed as one sentence with its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingProblem {
    /// ENOSYS without a seccomp filter: the kernel was built without io_uring.
    Missing,
    /// ENOSYS or EPERM by a seccomp filter, of a container or a service manager.
    Seccomp,
    /// EPERM by `kernel.io_uring_disabled`, which has this value (1: all but a group, 2: all).
    Sysctl(u32),
    /// EPERM or EACCES, and neither of these two shows itself: a security module.
    Forbidden,
    /// EINVAL: the kernel does not know `SINGLE_ISSUER` and `DEFER_TASKRUN` (6.1).
    Old,
    /// ENOMEM: `RLIMIT_MEMLOCK` leaves no room for a ring.
    Memory,
    /// EMFILE or ENFILE: out of descriptors.
    Descriptors,
    /// Any other errno.
    Other(i32),
}

impl RingProblem {
    /// What stands in the way.
    #[must_use]
    pub fn cause(self) -> String {
        match self {
            Self::Missing => "this kernel has no io_uring".to_owned(),
            Self::Seccomp => "io_uring is forbidden here by a seccomp profile".to_owned(),
            Self::Sysctl(value) => {
                format!("io_uring is forbidden here by kernel.io_uring_disabled = {value}")
            }
            Self::Forbidden => "io_uring is forbidden here by a security policy".to_owned(),
            Self::Old => "this kernel's io_uring is older than 6.1".to_owned(),
            Self::Memory => "no memory for a ring within RLIMIT_MEMLOCK".to_owned(),
            Self::Descriptors => "no file descriptor is left for a ring".to_owned(),
            Self::Other(errno) => {
                format!("io_uring cannot be set up: {}", io::Error::from_raw_os_error(errno))
            }
        }
    }

    /// What to do about it; a command where there is one.
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
            Self::Forbidden => "let the security policy of this machine allow io_uring",
            Self::Old => "boot kernel 6.1 or newer",
            Self::Memory => "ulimit -l 65536 (or LimitMEMLOCK=64M in the service)",
            Self::Descriptors => "ulimit -n 20000 (or LimitNOFILE=20000 in the service)",
            Self::Other(_) => "evenkeel doctor",
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

/// Whether a ring as a worker needs it can be made and entered here.
///
/// # Errors
/// The likely cause, with its remedy.
pub fn ring_available() -> Result<(), RingProblem> {
    let tried = worker_ring(8).and_then(|mut ring| {
        submit(&mut ring, &opcode::Nop::new().build())?;
        next(&mut ring, Instant::now() + PATIENCE).map(drop)
    });
    tried.map_err(|error| RingProblem::of(&error))
}

/// How many rings for about `sessions` sessions each this process may have at once, in full size
/// and at least in the smallest that a worker contents itself with: `wanted` of them are made, and
/// let go again. Less than `wanted` when memory or descriptors ran out before.
#[must_use]
pub fn rings_that_fit(wanted: usize, sessions: u32) -> (usize, usize) {
    let (submissions, completions) = sizes(sessions);
    let fit = |part: u32| {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(completions / part);
        let rings: Vec<IoUring> =
            (0..wanted).map_while(|_| builder.build(submissions / part).ok()).collect();
        rings.len()
    };
    (fit(1), fit(SMALLER_AT_MOST))
}

/// What a ring of this kernel can do, of what a worker asks of it.
#[derive(Debug)]
pub struct RingFeatures {
    /// Waits with a timeout in the same system call (`EXT_ARG`, kernel 5.11).
    pub ext_arg: bool,
    /// Operations by name, and whether the ring knows them.
    pub operations: Vec<(&'static str, bool)>,
    /// One submission that accepts again and again (kernel 5.19), tried on a loopback listener.
    pub multishot_accept: io::Result<()>,
    /// One submission that receives again and again into a buffer ring (kernel 6.0), tried on a
    /// loopback connection.
    pub multishot_receive: io::Result<()>,
}

/// Tries what a worker needs; about a millisecond.
///
/// # Errors
/// There is no ring, or no list of its operations.
pub fn ring_features() -> io::Result<RingFeatures> {
    let ring = worker_ring(8)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let operations = OPERATIONS.map(|(name, code)| (name, probe.is_supported(code)));
    Ok(RingFeatures {
        ext_arg: ring.params().is_feature_ext_arg(),
        operations: operations.to_vec(),
        multishot_accept: try_multishot_accept(),
        multishot_receive: try_multishot_receive(),
    })
}

/// A worker whose ring does not fit halves it, four times.
const SMALLER_AT_MOST: u32 = 16;

const OPERATIONS: [(&str, u8); 9] = [
    ("accept", opcode::Accept::CODE),
    ("connect", opcode::Connect::CODE),
    ("receive", opcode::Recv::CODE),
    ("send", opcode::Send::CODE),
    ("poll", opcode::PollAdd::CODE),
    ("cancel", opcode::AsyncCancel::CODE),
    ("close", opcode::Close::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("timeout removal", opcode::TimeoutRemove::CODE),
];

/// Loopback answers in microseconds; a machine that swaps may need longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The buffer group and the buffers of the trial.
const GROUP: u16 = 0;
const BUFFERS: u16 = 4;
const BUFFER_SIZE: u8 = 64;

fn worker_ring(entries: u32) -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries)
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

/// Two clients come; each descriptor must be of the connection that its client made (kernels 6.6.1
/// to 6.7.4 answered with descriptors that were none).
fn try_multishot_accept() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut ring = worker_ring(8)?;
    submit(&mut ring, &opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build())?;
    let outcome = accept_two(&mut ring, address);
    cancel(&mut ring, listener.as_raw_fd())?;
    outcome
}

fn accept_two(ring: &mut IoUring, address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..2 {
        let client = TcpStream::connect(address)?;
        let entry = next(ring, deadline)?;
        let accepted = adopt(&entry)?;
        if accepted.peer_addr().ok() != Some(client.local_addr()?) {
            // Not ours, so not ours to close.
            let descriptor = accepted.into_raw_fd();
            let problem = format!("descriptor {descriptor} is not the connection that came");
            return Err(io::Error::other(problem));
        }
        expect_more(&entry)?;
    }
    Ok(())
}

/// Two messages come, each into a buffer of its own.
fn try_multishot_receive() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let area = Area::new();
    let mut ring = worker_ring(8)?;
    // SAFETY: the area is page-aligned, long enough for its entries, and is dropped after the
    // ring, whose end takes the registration away.
    unsafe { ring.submitter().register_buf_ring_with_flags(area.address(), BUFFERS, GROUP, 0)? };
    area.offer();
    submit(&mut ring, &opcode::RecvMulti::new(Fd(server.as_raw_fd()), GROUP).build())?;
    let outcome = receive_two(&mut ring, &mut client, &area);
    cancel(&mut ring, server.as_raw_fd())?;
    ring.submitter().unregister_buf_ring(GROUP)?;
    outcome
}

fn receive_two(ring: &mut IoUring, client: &mut TcpStream, area: &Area) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for message in [b"one", b"two"] {
        client.write_all(message)?;
        let entry = next(ring, deadline)?;
        let length = usize::try_from(result(&entry)?).unwrap_or(0);
        let buffer = cqueue::buffer_select(entry.flags())
            .ok_or_else(|| io::Error::other("it received into no buffer"))?;
        if area.bytes(buffer, length) != message {
            return Err(io::Error::other("it received something else"));
        }
        expect_more(&entry)?;
    }
    Ok(())
}

/// Ends what is armed on `descriptor`, and waits for its last completion.
fn cancel(ring: &mut IoUring, descriptor: RawFd) -> io::Result<()> {
    /// To be told from the operation that it cancels, which has 0.
    const CANCEL: u64 = 1;
    let what = CancelBuilder::fd(Fd(descriptor)).all();
    submit(ring, &opcode::AsyncCancel2::new(what).build().user_data(CANCEL))?;
    let deadline = Instant::now() + PATIENCE;
    let (mut cancelled, mut ended) = (false, false);
    while !(cancelled && ended) {
        let entry = next(ring, deadline)?;
        if entry.user_data() == CANCEL {
            cancelled = true;
            // There was nothing left to cancel: its last completion has been seen before.
            ended |= entry.result() == -(Errno::ENOENT as i32);
        } else {
            ended |= !cqueue::more(entry.flags());
        }
    }
    Ok(())
}

fn submit(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> io::Result<()> {
    // SAFETY: no entry of this file points to memory but to the registered area, and each
    // descriptor in one is open until its operation was seen to end.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| io::Error::other("the submission queue is full"))?;
    ring.submit().map(drop)
}

/// The next completion; ETIME at the deadline.
fn next(ring: &mut IoUring, deadline: Instant) -> io::Result<cqueue::Entry> {
    loop {
        if let Some(entry) = ring.completion().next() {
            return Ok(entry);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::ETIME.into());
        }
        let timeout = Timespec::from(left);
        match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Err(error) if error.raw_os_error() == Some(Errno::ETIME as i32) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
}

fn result(entry: &cqueue::Entry) -> io::Result<i32> {
    let result = entry.result();
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn expect_more(entry: &cqueue::Entry) -> io::Result<()> {
    if cqueue::more(entry.flags()) {
        Ok(())
    } else {
        Err(io::Error::other("it ended after the first completion"))
    }
}

/// The connection that an accept gave us.
fn adopt(entry: &cqueue::Entry) -> io::Result<TcpStream> {
    let descriptor = result(entry)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { TcpStream::from_raw_fd(descriptor) })
}

/// A ring must start on a page, and no Linux page is larger.
#[repr(C, align(65536))]
struct LargestPage([u8; 1 << 16]);

/// The memory of a buffer ring and of its buffers.
struct Area {
    start: NonNull<u8>,
}

impl Area {
    const LAYOUT: Layout = Layout::new::<LargestPage>();

    /// Where the buffers begin, behind the entries.
    const BUFFERS_AT: usize = 4096;

    fn new() -> Self {
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(Self::LAYOUT) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(Self::LAYOUT) };
        Self { start }
    }

    fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    fn buffer(&self, index: u16) -> NonNull<u8> {
        let offset = Self::BUFFERS_AT + usize::from(index % BUFFERS) * usize::from(BUFFER_SIZE);
        // SAFETY: `BUFFERS` buffers behind the entries end within the area.
        unsafe { self.start.add(offset) }
    }

    /// Hands all buffers to the kernel.
    fn offer(&self) {
        let entries = self.start.cast::<BufRingEntry>();
        for index in 0..BUFFERS {
            // SAFETY: the area begins with `BUFFERS` entries.
            let mut entry = unsafe { entries.add(usize::from(index)) };
            // SAFETY: it is aligned and zeroed, and nobody else refers to it.
            let entry = unsafe { entry.as_mut() };
            entry.set_addr(self.buffer(index).as_ptr() as u64);
            entry.set_len(u32::from(BUFFER_SIZE));
            entry.set_bid(index);
        }
        // SAFETY: `entries` is the first entry of the ring, and initialized.
        let tail = unsafe { BufRingEntry::tail(entries.as_ptr()) };
        // SAFETY: the tail is a field of the first entry, aligned, and from here on is written
        // atomically only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(BUFFERS, Ordering::Release);
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        let start = self.buffer(buffer).as_ptr();
        // SAFETY: the kernel has filled this buffer, and does not touch it before it is offered
        // again, which never happens.
        unsafe { std::slice::from_raw_parts(start, length.min(usize::from(BUFFER_SIZE))) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), Self::LAYOUT) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_names_its_cause_and_a_remedy_in_one_sentence() {
        let text = RingProblem::Sysctl(2).to_string();
        assert!(text.contains("kernel.io_uring_disabled = 2"), "{text}");
        assert!(text.contains("sysctl -w kernel.io_uring_disabled=0"), "{text}");
        assert!(RingProblem::Seccomp.to_string().contains("seccomp"));
        assert!(!RingProblem::Memory.to_string().contains('\n'));
    }

    #[test]
    fn where_a_ring_can_be_made_its_features_are_tried_for_real() {
        if let Err(problem) = ring_available() {
            writeln!(io::stderr(), "skipped: {problem}").unwrap();
            return;
        }
        let features = ring_features().unwrap();
        assert!(features.ext_arg);
        assert!(features.operations.iter().all(|(_, known)| *known), "{features:?}");
        features.multishot_accept.unwrap();
        features.multishot_receive.unwrap();
        assert_eq!(rings_that_fit(1, 8), (1, 1));
    }
}
