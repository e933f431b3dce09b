//! A worker's io_uring: operations go in, completions come out.
//!
//! The ring owns the memory that its operations point to: the buffers, the addresses of connects,
//! the wait timer. So it lives until the completion of the operation, whatever the caller does, and
//! the interface is safe. See `io_uring(7)` and `io_uring_enter(2)`.

mod buffers;
pub mod completion;
mod setup;
mod shortage;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{EnterFlags, IoUring, opcode};
use nix::errno::Errno;
use nix::libc;
use socket2::SockAddr;

use crate::sys::buffer::{BUFFER_SIZE, BufferId, Buffers, STALLED_LENGTH, Supply};
use crate::sys::kernel_version::KernelVersion;
use crate::sys::socket::{Socket, send_flags};
use crate::sys::wait_timer::WaitTimer;
use crate::sys::waker::Waker;

pub use setup::{RingFeatures, RingSize};
use shortage::Enters;
pub use shortage::RingError;

/// The only buffer group.
const GROUP: u16 = 0;

/// The user data of operations whose completion nobody waits for: the result of a cancel is a hint
/// (only the last completion of its target counts), and so is that of a close.
const NOBODY: u64 = u64::MAX;

/// The user data of the wait timer.
const WAIT_TIMER: u64 = u64::MAX - 1;

/// Marks the user data of accepts, so that only their results are taken for descriptors.
const ACCEPT: u64 = 1 << 63;

/// Marks the user data of sends. The rest of it is the index of the buffer.
const SEND: u64 = 1 << 62;

/// Names a send in flight, to cancel it.
#[derive(Debug, Clone, Copy)]
pub struct SendKey(u16);

/// What a poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Bytes, the end of the stream, or an error.
    Readable,
    /// Room to send, or an error.
    Writable,
}

/// A ring that its own thread made, and that no other thread may use.
pub struct Ring {
    uring: IoUring,
    /// Dropped after `uring`.
    buffers: Buffers,
    /// The addresses of connects that were pushed but not submitted. The kernel copies them at
    /// submission (`IORING_FEAT_SUBMIT_STABLE`), so all are free after the next enter.
    connects: Vec<SockAddr>,
    /// The buffers that the kernel sends from, by index, and the user data of their sends.
    sending: Box<[Option<(u64, BufferId)>]>,
    /// Operations that will still complete.
    in_flight: usize,
    /// Whether the completion that is being handled is the only one of its turn.
    alone: bool,
    /// Sends and connects that were done without the ring, and their results.
    done: VecDeque<(u64, Option<BufferId>, Result<u32, Errno>)>,
    /// Whether a multishot accept is safe on this kernel.
    accepts_many: bool,
    /// How the ring waits.
    waiting: EnterFlags,
    enters: Enters,
    wait_timer: WaitTimer,
    /// When the clock of the ring began.
    started: Instant,
}

impl Ring {
    /// A ring for about `sessions` sessions, with `buffers` buffers; a smaller one if
    /// `RLIMIT_MEMLOCK` leaves no room for that.
    ///
    /// # Errors
    /// `ENOSYS` and `EPERM`: this kernel or sandbox has no io_uring; `ENOMEM`: `RLIMIT_MEMLOCK` is
    /// too low even for a small ring.
    pub fn new(sessions: u32, buffers: u16) -> io::Result<Self> {
        let wanted = RingSize::for_sessions(sessions);
        let mut size = wanted;
        loop {
            match Self::of_size(size, buffers) {
                Err(error) if error.raw_os_error() == Some(Errno::ENOMEM as i32) => {
                    size = size.halved().ok_or(error)?;
                }
                Ok(ring) if size != wanted => {
                    tracing::warn!(
                        "RLIMIT_MEMLOCK is too low: a worker uses a smaller ring; a ring of full \
                         size needs {} KiB; raise it with ulimit -l (or LimitMEMLOCK= in the \
                         service)",
                        wanted.locked_memory() / 1024
                    );
                    return Ok(ring);
                }
                other => return other,
            }
        }
    }

    /// A ring of exactly this size, with `buffers` buffers.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn of_size(size: RingSize, buffers: u16) -> io::Result<Self> {
        let buffers = Buffers::new(buffers)?;
        let mut uring = setup::build(size)?;
        let (address, entries) = buffers.ring();
        // SAFETY: the mapping has that many entries, no other ring knows of it, and it is unmapped
        // after this ring, which is declared after it here and before it in `Self`.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, entries, GROUP, 0) }?;
        // Saves the kernel a look-up in each enter; without it (5.17 and before) the plain
        // descriptor serves.
        drop(uring.submitter().register_ring_fd());
        setup::enable(&uring)?;
        let capacity = uring.submission().capacity();
        // A worker that waits for clients is idle, and does not wait for a disk (kernel 6.15).
        let idle = uring.params().is_feature_no_iowait();
        let waiting = if idle { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let version = KernelVersion::of_this_kernel();
        Ok(Self {
            uring,
            sending: (0..buffers.count()).map(|_| None).collect(),
            buffers,
            connects: Vec::with_capacity(capacity),
            in_flight: 0,
            alone: false,
            done: VecDeque::with_capacity(8),
            accepts_many: !version.is_some_and(KernelVersion::invents_descriptors),
            waiting,
            enters: Enters::default(),
            wait_timer: WaitTimer::new(WAIT_TIMER, NOBODY),
            started: Instant::now(),
        })
    }

    /// Accepts connections until cancelled, or one only;
    /// [`more`](completion::Completion::more) tells which.
    pub fn accept(&mut self, listener: &OwnedFd, user_data: u64, multishot: bool) {
        let listener = Fd(listener.as_raw_fd());
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let entry = if multishot && self.accepts_many {
            opcode::AcceptMulti::new(listener).flags(flags).build()
        } else {
            let none = std::ptr::null_mut();
            opcode::Accept::new(listener, none, std::ptr::null_mut()).flags(flags).build()
        };
        self.start(entry, user_data, ACCEPT);
    }

    /// Receives into buffers of the ring: once, or until it is cancelled, the stream ends, fails,
    /// or no buffer is left.
    pub fn receive(&mut self, socket: &Socket, user_data: u64, multishot: bool) {
        let socket = Fd(socket.descriptor());
        let entry = if multishot {
            opcode::RecvMulti::new(socket, GROUP).build()
        } else {
            let length = match self.buffers.supply() {
                Supply::Stalled => STALLED_LENGTH,
                Supply::Ample | Supply::Low => BUFFER_SIZE,
            };
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            opcode::Recv::new(socket, std::ptr::null_mut(), length)
                .buf_group(GROUP)
                .build()
                .flags(Flags::BUFFER_SELECT)
        };
        self.start(entry, user_data, 0);
    }

    /// Sends `range` of a buffer. The ring holds the buffer until the completion, which returns it.
    /// A send may complete with less than all. With `more` the last segment is held back
    /// (`MSG_MORE`, send(2)) until more is sent, or the end.
    ///
    /// A send that follows the only completion of a turn is done by send(2) if there is room, and
    /// completes in the same turn: alone it costs less than by the ring, whose completion would
    /// also end the next wait. Several sends together cost less by the ring, and much less on one
    /// core: at each return to user space their receivers may take the core.
    pub fn send(
        &mut self,
        socket: &Socket,
        user_data: u64,
        buffer: BufferId,
        range: (u32, u32),
        more: bool,
    ) -> SendKey {
        let bytes = self.buffers.bytes(&buffer, range);
        let index = buffer.index();
        if self.alone {
            let sent = socket.send(bytes, more);
            if sent != Err(Errno::EAGAIN) {
                self.done.push_back((user_data, Some(buffer), sent));
                return SendKey(index);
            }
        }
        let (start, length) = (bytes.as_ptr(), range.1 - range.0);
        let entry = opcode::Send::new(Fd(socket.descriptor()), start, length)
            .flags(send_flags(more))
            .build();
        self.sending[usize::from(index)] = Some((user_data, buffer));
        self.start(entry, u64::from(index), SEND);
        SendKey(index)
    }

    /// Connects. To a unix socket by connect(2), which never waits: the ring would repeat a connect
    /// that finds a full backlog, then leave it to a kernel thread that waits without a limit
    /// (`io_connect`).
    pub fn connect(&mut self, socket: &Socket, address: impl Into<SockAddr>, user_data: u64) {
        let address = address.into();
        if address.is_unix() {
            let connected = socket.connect_unix(&address).map(|()| 0);
            self.done.push_back((user_data, None, connected));
            return;
        }
        // The address must not move. And a submission between here and the push of its entry would
        // take it for one that the kernel has copied.
        while self.connects.len() == self.connects.capacity() || self.uring.submission().is_full() {
            self.submit();
        }
        self.connects.push(address);
        let Some(address) = self.connects.last() else { return };
        let address = (address.as_ptr().cast(), address.len());
        let entry = opcode::Connect::new(Fd(socket.descriptor()), address.0, address.1).build();
        self.start(entry, user_data, 0);
    }

    /// Completes once the socket is ready.
    pub fn poll(&mut self, socket: &Socket, user_data: u64, readiness: Readiness) {
        let events = match readiness {
            Readiness::Readable => libc::POLLIN | libc::POLLRDHUP,
            Readiness::Writable => libc::POLLOUT,
        };
        self.start_poll(socket.descriptor(), events, user_data);
    }

    /// Completes once another thread wakes this worker.
    pub fn watch(&mut self, waker: &Waker, user_data: u64) {
        self.start_poll(waker.descriptor(), libc::POLLIN, user_data);
    }

    fn start_poll(&mut self, descriptor: RawFd, events: libc::c_short, user_data: u64) {
        let events = u32::from(events.cast_unsigned());
        self.start(opcode::PollAdd::new(Fd(descriptor), events).build(), user_data, 0);
    }

    /// Asks the accept with this user data to end; it completes once more.
    pub fn cancel_accept(&mut self, user_data: u64) {
        self.cancel(user_data | ACCEPT);
    }

    /// Asks a send to end; it completes once more.
    pub fn cancel_send(&mut self, key: SendKey) {
        self.cancel(u64::from(key.0) | SEND);
    }

    /// Asks the operation with this user data to end; it completes once more.
    pub fn cancel(&mut self, user_data: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data)).build();
        self.push(&entry.user_data(NOBODY));
    }

    /// Closes a socket on which no operation is in flight, after all that was pushed before.
    pub fn close(&mut self, socket: Socket) {
        let entry = opcode::Close::new(Fd(socket.into_descriptor())).build();
        self.push(&entry.flags(Flags::SKIP_SUCCESS).user_data(NOBODY));
    }

    /// The time since the ring was made: its clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Operations that will still complete.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Pushes an operation that will complete. `mark` is added to the user data of the caller.
    fn start(&mut self, entry: Entry, user_data: u64, mark: u64) {
        // The ring would not know the completion of another one, or lose count of it.
        assert!(user_data < SEND, "user data is below 2^62");
        self.in_flight += 1;
        self.push(&entry.user_data(user_data | mark));
    }

    fn push(&mut self, entry: &Entry) {
        loop {
            // SAFETY: what the entry points to is in `self.buffers` (mapped until after the ring
            // is gone), in `self.connects` (kept until the kernel has copied it, below) or in
            // `self.wait_timer` (dropped after the ring).
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ring").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closes are entries too.
        drop(self.uring.submitter().submit());
        if self.in_flight > 0 {
            // A ring ends asynchronously: the kernel may write into the buffers for a while.
            self.buffers.leave_mapped();
        }
    }
}
