//! A worker's io_uring: operations to completions, and the memory that operations point to.
//!
//! The ring owns its buffers and the addresses of connects, so that what an operation points to
//! lives until its completion whatever its caller does: the interface is safe.
//! See `io_uring(7)` and `io_uring_enter(2)`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, register::Restriction};
use nix::errno::Errno;
use socket2::SockAddr;

use crate::sys::alarm::Alarm;
use crate::sys::buffer::{BufferId, Buffers};
use crate::sys::release::Release;
use crate::sys::socket::{Socket, send_flags};
use crate::sys::waker::Waker;

/// Submissions that fit before the kernel has to be entered.
const SUBMISSIONS: u32 = 1024;

/// The only buffer group.
const GROUP: u16 = 0;

/// `user_data` of operations whose completion says nothing that anybody waits for: a cancel's own
/// result is a hint (only its target's last completion counts), a close's too.
const NOBODY: u64 = u64::MAX;

/// `user_data` of the alarm.
const ALARM: u64 = u64::MAX - 1;

/// Operations that this program uses: all that its rings are allowed.
const ALLOWED: [u8; 9] = [
    opcode::AcceptMulti::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::Connect::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::Timeout::CODE,
    opcode::TimeoutUpdate::CODE,
];

/// Marks the `user_data` of accepts, so that only what they answered with is taken for a
/// descriptor.
const ACCEPT: u64 = 1 << 63;

/// An answer of the kernel.
#[derive(Debug)]
pub struct Completion {
    /// The token that the operation was given.
    pub token: u64,
    /// What it would have returned as a system call.
    pub result: Result<u32, Errno>,
    /// Whether the operation lives on and will answer again. Nothing else says so.
    pub more: bool,
    /// Whether the socket that was received from holds more, or its end (kernel 5.19).
    pub left: bool,
    /// The buffer that bytes were received into; the caller holds it now.
    pub buffer: Option<BufferId>,
    /// What was accepted.
    pub socket: Option<Socket>,
}

/// What a poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Bytes, the end of the stream, or an error.
    Readable,
    /// Room to send, or an error.
    Writable,
}

/// Submissions and completions of a ring for about `sessions` sessions: room for two completions a
/// session in one turn; what does not fit the kernel keeps, but it ends multishot operations.
pub(super) fn sizes(sessions: u32) -> (u32, u32) {
    (SUBMISSIONS, sessions.saturating_mul(2).next_power_of_two().clamp(4096, 32_768))
}

/// A ring that its own thread made, and that no other thread may use.
pub struct Ring {
    uring: IoUring,
    buffers: Buffers,
    /// Of connects that were pushed but not submitted: the kernel copies them at submission
    /// (`IORING_FEAT_SUBMIT_STABLE`), so each is free again after the next enter.
    connects: Vec<SockAddr>,
    /// Operations that will still answer.
    in_flight: usize,
    /// Whether what is being looked at was the only completion of its turn.
    alone: bool,
    /// Sends that did not take the ring, and what they answered.
    sent: VecDeque<(u64, Result<u32, Errno>)>,
    /// Whether a multishot accept is safe on this kernel.
    accepts_many: bool,
    /// How it waits.
    waiting: EnterFlags,
    alarm: Alarm,
    /// Where its clock begins.
    started: Instant,
}

impl Ring {
    /// A ring for about `sessions` sessions, with `buffers` buffers.
    ///
    /// # Errors
    /// `ENOSYS` and `EPERM`: this kernel or sandbox has none; `ENOMEM`: `RLIMIT_MEMLOCK` is too low
    /// for even a small one.
    pub fn new(sessions: u32, buffers: u16) -> io::Result<Self> {
        // Before the ring: what goes last is dropped first.
        let buffers = Buffers::new(buffers)?;
        let (mut submissions, mut completions) = sizes(sessions);
        let mut uring = loop {
            match Self::build(submissions, completions) {
                Err(error) if error.raw_os_error() == Some(Errno::ENOMEM as i32) => {
                    submissions /= 2;
                    completions /= 2;
                    if submissions < 64 {
                        return Err(error);
                    }
                }
                other => break other?,
            }
        };
        let (address, entries) = buffers.ring();
        // SAFETY: the mapping has that many entries and is dropped after the ring (made before
        // it here, declared after it in `Self`), and the kernel is told of it by nobody else.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, entries, GROUP, 0) }?;
        // Saves the kernel a look-up an enter; without it (5.17 and before) the plain one serves.
        drop(uring.submitter().register_ring_fd());
        let mut allowed: Vec<Restriction> = ALLOWED.map(Restriction::sqe_op).into();
        let flags = Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
        allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
        uring.submitter().register_restrictions(&mut allowed)?;
        uring.submitter().register_enable_rings()?;
        let capacity = uring.submission().capacity();
        // A worker that waits for clients is idle, not held up by a disk (kernel 6.15).
        let idle = uring.params().is_feature_no_iowait();
        let waiting = if idle { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let accepts_many = !Release::of_this_kernel().is_some_and(Release::invents_descriptors);
        Ok(Self {
            uring,
            buffers,
            connects: Vec::with_capacity(capacity),
            in_flight: 0,
            alone: false,
            sent: VecDeque::with_capacity(8),
            accepts_many,
            waiting,
            alarm: Alarm::new(ALARM, NOBODY),
            started: Instant::now(),
        })
    }

    fn build(submissions: u32, completions: u32) -> io::Result<IoUring> {
        IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions)
            .setup_r_disabled()
            .build(submissions)
    }

    /// Accepts connections until cancelled, or one only. [`Completion::more`] tells which. Tokens
    /// of the whole ring are below 2^63.
    pub fn accept(&mut self, listener: &OwnedFd, token: u64, multishot: bool) {
        let listener = Fd(listener.as_raw_fd());
        let flags = nix::libc::SOCK_NONBLOCK | nix::libc::SOCK_CLOEXEC;
        let entry = if multishot && self.accepts_many {
            opcode::AcceptMulti::new(listener).flags(flags).build()
        } else {
            let none = std::ptr::null_mut();
            opcode::Accept::new(listener, none, std::ptr::null_mut()).flags(flags).build()
        };
        debug_assert!(token < ACCEPT);
        self.push(&entry.user_data(token | ACCEPT));
    }

    /// Receives into buffers of the ring until cancelled, the end, an error or want of buffers; or
    /// once only.
    pub fn receive(&mut self, socket: &Socket, token: u64, multishot: bool) {
        let socket = Fd(socket.descriptor());
        let entry = if multishot {
            opcode::RecvMulti::new(socket, GROUP).build()
        } else {
            // The length of a receive with buffer selection is at most that of the buffer.
            let length = u32::try_from(crate::sys::buffer::BUFFER_SIZE).unwrap_or(u32::MAX);
            opcode::Recv::new(socket, std::ptr::null_mut(), length)
                .buf_group(GROUP)
                .build()
                .flags(Flags::BUFFER_SELECT)
        };
        self.push(&entry.user_data(token));
    }

    /// Receives what is there now behind the first `filled` bytes of a buffer that the caller holds,
    /// without a submission: how many bytes, of which 0 are the end of the stream. No receive is in
    /// flight on the socket.
    ///
    /// # Errors
    /// As recv(2); EAGAIN: nothing is there.
    pub fn receive_rest(
        &mut self,
        socket: &Socket,
        buffer: BufferId,
        filled: u32,
    ) -> Result<u32, Errno> {
        let received = socket.receive(self.buffers.room(buffer, filled))?;
        u32::try_from(received).map_err(|_| Errno::EOVERFLOW)
    }

    /// Sends `range` of a buffer that the caller holds, and goes on holding until the completion.
    /// It may answer with less than all. With `more` the last segment is held back (`MSG_MORE`,
    /// send(2)) until more is sent, or the end.
    ///
    /// What follows on the only completion of a turn is sent by send(2) if there is room, and
    /// answers in the same turn: alone it costs less than by the ring, whose answer would end the
    /// next wait as well. Several together cost less by the ring, and much less on one core: each
    /// return to user space is one where those who were sent to take the core.
    pub fn send(
        &mut self,
        socket: &Socket,
        token: u64,
        buffer: BufferId,
        range: (u32, u32),
        more: bool,
    ) {
        let bytes = self.buffers.bytes(buffer, range);
        if self.alone {
            let sent = socket.send(bytes, more);
            if sent != Err(Errno::EAGAIN) {
                self.sent.push_back((token, sent));
                return;
            }
        }
        let (start, length) = (bytes.as_ptr(), range.1 - range.0);
        let entry = opcode::Send::new(Fd(socket.descriptor()), start, length)
            .flags(send_flags(more))
            .build();
        self.push(&entry.user_data(token));
    }

    /// Connects.
    pub fn connect(&mut self, socket: &Socket, address: SocketAddr, token: u64) {
        // It must not move; and a submission between here and its entry would take it for one
        // that the kernel has copied.
        while self.connects.len() == self.connects.capacity() || self.uring.submission().is_full() {
            self.submit();
        }
        self.connects.push(SockAddr::from(address));
        let Some(address) = self.connects.last() else { return };
        let address = (address.as_ptr().cast(), address.len());
        let entry = opcode::Connect::new(Fd(socket.descriptor()), address.0, address.1).build();
        self.push(&entry.user_data(token));
    }

    /// Answers once the socket is ready.
    pub fn poll(&mut self, socket: &Socket, token: u64, readiness: Readiness) {
        let events = match readiness {
            Readiness::Readable => nix::libc::POLLIN | nix::libc::POLLRDHUP,
            Readiness::Writable => nix::libc::POLLOUT,
        };
        self.push_poll(socket.descriptor(), events, token);
    }

    /// Answers once somebody wakes this worker.
    pub fn watch(&mut self, waker: &Waker, token: u64) {
        self.push_poll(waker.descriptor(), nix::libc::POLLIN, token);
    }

    fn push_poll(&mut self, descriptor: i32, events: nix::libc::c_short, token: u64) {
        let events = u32::from(events.cast_unsigned());
        self.push(&opcode::PollAdd::new(Fd(descriptor), events).build().user_data(token));
    }

    /// Asks the accept with this token to end; it will answer once more.
    pub fn cancel_accept(&mut self, token: u64) {
        self.cancel(token | ACCEPT);
    }

    /// Asks the operation with this token to end; it will answer once more.
    pub fn cancel(&mut self, token: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(token)).build();
        self.push(&entry.user_data(NOBODY));
    }

    /// Closes a socket on which no operation is in flight, in order with what was pushed before.
    pub fn close(&mut self, socket: Socket) {
        let entry = opcode::Close::new(Fd(socket.into_descriptor())).build();
        self.push(&entry.flags(Flags::SKIP_SUCCESS).user_data(NOBODY));
    }

    /// How long there has been this ring: its clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Submits what was pushed and waits until something is completed, at most `until`, if given.
    /// Times are those of [`Ring::now`]; `now` is when it was last asked. It may return without any
    /// of this.
    ///
    /// # Errors
    /// None that a later turn would not mend (a signal, a full completion queue) is reported.
    pub fn wait(&mut self, now: Duration, until: Option<Duration>) -> io::Result<()> {
        self.buffers.end_turn();
        self.buffers.provide();
        let answer = match until {
            Some(until) if until <= now => {
                let args = Timespec::new();
                let args = SubmitArgs::new().timespec(&args);
                self.uring.submitter().submit_with_args_and_flags(1, &args, self.waiting)
            }
            until => {
                if let Some(until) = until.filter(|until| self.alarm.is_too_late(now, *until)) {
                    // The turn may have been a long one.
                    let entry = self.alarm.set(self.now(), until);
                    self.push(&entry);
                }
                self.enter()
            }
        };
        self.recycle();
        self.alone = self.uring.completion().len() == 1;
        match answer.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)) {
            Ok(_) | Err(Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Submits what was pushed and waits for a completion.
    fn enter(&mut self) -> io::Result<usize> {
        let entries = self.uring.submission().len();
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let flags = (self.waiting | EnterFlags::GETEVENTS).bits();
        // SAFETY: there is no argument that a pointer could be in.
        unsafe { self.uring.submitter().enter::<()>(entries, 1, flags, None) }
    }

    /// The next answer, if there is one.
    pub fn completion(&mut self) -> Option<Completion> {
        if let Some((token, result)) = self.sent.pop_front() {
            let (more, left) = (false, false);
            return Some(Completion { token, result, more, left, buffer: None, socket: None });
        }
        loop {
            let Some(entry) = self.uring.completion().next() else {
                // What is sent from now on would be answered after the next wait.
                self.alone = false;
                return None;
            };
            let more = cqueue::more(entry.flags());
            match entry.user_data() {
                NOBODY => continue,
                ALARM => {
                    self.alarm.went_off();
                    continue;
                }
                _ => {}
            }
            if !more {
                self.in_flight -= 1;
            }
            let result = entry.result();
            let accepted = entry.user_data() & ACCEPT != 0 && result >= 0;
            let buffer = cqueue::buffer_select(entry.flags()).map(|id| self.buffers.adopt(id));
            return Some(Completion {
                token: entry.user_data() & !ACCEPT,
                socket: accepted.then(|| Socket::accepted(result)),
                result: u32::try_from(result).map_err(|_| Errno::from_raw(-result)),
                more,
                left: cqueue::sock_nonempty(entry.flags()),
                buffer,
            });
        }
    }

    /// Whether the completion queue has overflown and not yet been caught up with.
    pub fn overflown(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Operations that will still answer.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The buffers.
    #[must_use]
    pub const fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The buffers, to release one.
    pub const fn buffers_mut(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// Gives the memory of buffers back to the system, if nobody has bytes in one: no session, and
    /// no receive that has been answered and not been looked at yet (a full submission queue is
    /// submitted within a turn, and what is there is received at once).
    pub fn give_back_memory(&mut self) {
        if self.uring.completion().is_empty() && !self.overflown() {
            self.buffers.give_back_memory();
        }
    }

    fn push(&mut self, entry: &Entry) {
        if !matches!(entry.get_user_data(), NOBODY | ALARM) {
            self.in_flight += 1;
        }
        loop {
            // SAFETY: what the entry points to is in `self.buffers` (mapped until after the ring
            // is gone), in `self.connects` (kept until the kernel has copied it, below) or in
            // `self.alarm` (which ends after the ring).
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    fn submit(&mut self) {
        // Whatever it answers, the queue is tried again: an entry is never dropped.
        drop(self.uring.submitter().submit());
        self.recycle();
    }

    /// Addresses are free once the kernel has taken every entry.
    fn recycle(&mut self) {
        if !self.connects.is_empty() && self.uring.submission().is_empty() {
            self.connects.clear();
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
        self.submit();
        if self.in_flight > 0 {
            // A ring ends asynchronously: the kernel may write into these buffers for a while yet.
            if let Ok(none) = Buffers::new(0) {
                #[expect(clippy::mem_forget, reason = "the kernel may still write there")]
                mem::forget(mem::replace(&mut self.buffers, none));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::IntoRawFd;

    use super::*;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

    /// A ring that has received a letter as the only completion of its turn, and both ends.
    fn received() -> (Ring, Socket, BufferId, TcpStream) {
        let mut ring = Ring::new(64, 8).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::accepted(listener.accept().unwrap().0.into_raw_fd());
        peer.write_all(b"x").unwrap();
        ring.receive(&socket, 1, false);
        ring.wait(Duration::ZERO, PATIENCE).unwrap();
        let received = ring.completion().unwrap();
        assert_eq!((received.token, received.result), (1, Ok(1)));
        (ring, socket, received.buffer.unwrap(), peer)
    }

    #[test]
    fn what_is_sent_upon_the_only_completion_is_answered_in_the_same_turn() {
        let (mut ring, socket, buffer, mut peer) = received();
        ring.send(&socket, 2, buffer, (0, 1), false);
        let sent = ring.completion().unwrap();
        assert_eq!((sent.token, sent.result, sent.more), (2, Ok(1), false));
        assert!(ring.completion().is_none());
        peer.read_exact(&mut [0]).unwrap();

        ring.send(&socket, 3, buffer, (0, 1), false);
        assert!(ring.completion().is_none(), "after the last completion: by the ring");
        ring.wait(Duration::ZERO, PATIENCE).unwrap();
        assert_eq!(ring.completion().unwrap().token, 3);
        peer.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_connect_that_finds_the_queue_full_goes_to_its_own_address() {
        let mut ring = Ring::new(64, 8).unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        while !ring.uring.submission().is_full() {
            ring.cancel(1);
        }
        let connect = |listener: &TcpListener| {
            let address = listener.local_addr().unwrap();
            let socket = Socket::to(address).unwrap();
            ring.connect(&socket, address, 2);
            socket
        };
        let _sockets = listeners.each_ref().map(connect);
        let mut answered = 0;
        while answered < listeners.len() {
            ring.wait(Duration::ZERO, PATIENCE).unwrap();
            while let Some(connected) = ring.completion() {
                connected.result.unwrap();
                answered += 1;
            }
        }
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
            listener.accept().expect("one connection each");
        }
    }

    #[test]
    fn what_a_full_socket_has_no_room_for_is_sent_by_the_ring_once_there_is() {
        let (mut ring, socket, buffer, mut peer) = received();
        let whole = (0, u32::try_from(crate::sys::buffer::BUFFER_SIZE).unwrap());
        let (mut taken, mut sends) = (0, 0);
        loop {
            ring.send(&socket, 2, buffer, whole, false);
            sends += 1;
            let Some(sent) = ring.completion() else { break };
            taken += u64::from(sent.result.unwrap());
            assert!(sends < 10_000, "{taken} bytes fit into one socket");
        }
        let count = move || {
            let mut got = vec![0; 1 << 20];
            std::iter::from_fn(|| peer.read(&mut got).ok().filter(|read| *read > 0)).sum::<usize>()
        };
        let reader = std::thread::spawn(count);
        ring.wait(Duration::ZERO, PATIENCE).unwrap();
        let sent = ring.completion().unwrap();
        assert_eq!(sent.token, 2);
        taken += u64::from(sent.result.unwrap());
        socket.shut_down();
        assert_eq!(reader.join().unwrap() as u64, taken);
    }

    #[test]
    fn what_is_received_and_not_yet_looked_at_is_not_given_back() {
        let (mut ring, socket, buffer, mut peer) = received();
        ring.buffers_mut().release(buffer);
        peer.write_all(b"whole").unwrap();
        ring.receive(&socket, 2, false);
        // As a full submission queue does within a turn.
        ring.submit();
        ring.give_back_memory();
        let received = ring.completion().unwrap();
        assert_eq!((received.token, received.result), (2, Ok(5)));
        assert_eq!(ring.buffers().bytes(received.buffer.unwrap(), (0, 5)), b"whole");
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Sets the alarm to so much from now, and submits that.
    fn set_alarm(ring: &mut Ring, after: Duration) {
        let now = ring.now();
        let entry = ring.alarm.set(now, now + after);
        ring.push(&entry);
        ring.submit();
    }

    /// Waits for so long from now, again and again, and says how often it took.
    fn wait_for(ring: &mut Ring, time: Duration) -> usize {
        let until = ring.now() + time;
        for waits in 0..100 {
            let now = ring.now();
            if now >= until {
                return waits;
            }
            ring.wait(now, Some(until)).unwrap();
            assert!(ring.completion().is_none(), "nobody asked for the alarm's completion");
        }
        panic!("it returns at once, again and again");
    }

    #[test]
    fn a_wait_ends_when_it_was_told_to_earlier_or_later_than_the_one_before() {
        let mut ring = Ring::new(64, 8).unwrap();
        set_alarm(&mut ring, Duration::from_secs(3600));
        assert!(wait_for(&mut ring, millis(30)) <= 1, "an earlier one takes its place");
        // One that was not waited for to its end: it goes off in the middle of the next.
        set_alarm(&mut ring, millis(20));
        assert!(wait_for(&mut ring, millis(60)) <= 2);
        assert!(wait_for(&mut ring, millis(10)) <= 1);
        assert!(ring.now() < Duration::from_secs(60), "none waited for the first");
        assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn a_long_turn_does_not_make_the_waits_after_it_longer() {
        let mut ring = Ring::new(64, 8).unwrap();
        let until = Duration::from_secs(2);
        // As if this turn had begun long ago: what is left is counted from now.
        ring.started -= Duration::from_secs(1);
        ring.wait(Duration::ZERO, Some(until)).unwrap();
        while ring.now() < until {
            assert!(ring.completion().is_none());
            ring.wait(ring.now(), Some(until)).unwrap();
        }
        assert!(ring.now() < until + millis(700), "{:?}", ring.now());
    }

    #[test]
    fn an_alarm_that_went_off_unseen_is_set_again() {
        let mut ring = Ring::new(64, 8).unwrap();
        set_alarm(&mut ring, millis(5));
        ring.wait(ring.now(), None).unwrap();
        // Its completion is there, and nobody has looked at it: it cannot be moved any more.
        let (now, at) = (ring.now(), ring.now() - millis(4));
        let entry = ring.alarm.set(now, at.min(millis(1)));
        ring.push(&entry);
        ring.submit();
        assert!(ring.completion().is_none());
        assert!(wait_for(&mut ring, millis(20)) <= 1);
    }

    #[test]
    fn a_wait_until_now_looks_and_returns() {
        let (mut ring, socket, buffer, mut peer) = received();
        ring.buffers_mut().release(buffer);
        let now = Duration::from_secs(7);
        ring.wait(now, Some(now)).unwrap();
        assert!(ring.completion().is_none());
        ring.receive(&socket, 2, false);
        peer.write_all(b"x").unwrap();
        ring.wait(now, Some(now)).unwrap();
        assert_eq!(ring.completion().unwrap().token, 2);
    }
}
