//! Pipes for splice(2), in a bounded pool of empty pipes.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

use crate::sys::ids::{Id, IdPool};

/// Bytes of the largest pipe (figures: `bench/DECISIONS.md`).
const SIZE_MAX: u32 = 512 * 1024;

/// Bytes of the smallest pipe that is worth having: past `fs.pipe-user-pages-soft` the pipes of a
/// plain user are one or two pages (pipe(7)), and copying is faster.
const SIZE_MIN: u32 = 64 * 1024;

/// Bytes of all pipes of a plain user by the default of `fs.pipe-user-pages-soft`: 16,384 pages.
const USER_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Pipes that are worth making smaller for, where memory is scarce: fewer large ones would all be
/// held by a few clients that do not read.
const COUNT_MIN: u64 = 8;

/// The size in bytes of each of the `pipes` of a process: as large as useful, and so that all of
/// them fit without privilege.
#[must_use]
pub fn size_of_each(pipes: usize) -> u32 {
    let share = USER_BYTES_MAX / u32::try_from(pipes.max(1)).unwrap_or(u32::MAX);
    power_of_two(share.into()).clamp(SIZE_MIN, SIZE_MAX)
}

/// The largest power of two that is not above `bytes`.
fn power_of_two(bytes: u64) -> u32 {
    let power = bytes.checked_ilog2().map_or(0, |power| 1_u64 << power);
    u32::try_from(power).unwrap_or(1 << 31)
}

/// The pipes of one worker, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeLimits {
    /// How many.
    pub count: u16,
    /// Bytes of each.
    pub size: u32,
}

impl PipeLimits {
    /// As many of these as `bytes` can hold. They get smaller before they get fewer than 8; below
    /// 64 KiB there is none.
    #[must_use]
    pub fn within(self, bytes: u64) -> Self {
        let size = power_of_two(bytes / COUNT_MIN).clamp(SIZE_MIN, self.size.max(SIZE_MIN));
        let count = u16::try_from(bytes / u64::from(size)).unwrap_or(u16::MAX);
        Self { count: count.min(self.count), size }
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.count) * u64::from(self.size)
    }
}

/// The most bytes that one splice asks for. The limit of the kernel is far above, that of a pipe
/// far below.
const SPLICE_MAX: usize = 1024 * 1024;

/// One pipe of a worker.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
}

/// The right to use one pipe of a worker.
pub type PipeId = Id<Pipe>;

/// The pipes of a worker.
#[derive(Debug)]
pub struct Pipes {
    pipes: Vec<Option<Pipe>>,
    /// Empty pipes that no session holds, last in, first out.
    idle: Vec<PipeId>,
    /// The ids of pipes that were closed, or not made yet.
    vacant: IdPool<Pipe>,
    held: usize,
    taken: u64,
    /// Of each, in bytes.
    size: u32,
}

impl Pipes {
    /// None yet: each is made when it is first needed.
    #[must_use]
    pub fn new(limits: PipeLimits) -> Self {
        let PipeLimits { count, size } = limits;
        Self {
            size,
            pipes: (0..count).map(|_| None).collect(),
            idle: Vec::with_capacity(usize::from(count)),
            vacant: IdPool::new(count),
            held: 0,
            taken: 0,
        }
    }

    /// An empty pipe, which the caller holds now; none when all are held, no descriptor is left, or
    /// the kernel allows only a small one.
    pub fn take(&mut self) -> Option<PipeId> {
        let pipe = self.idle.pop().or_else(|| self.make())?;
        self.held += 1;
        self.taken += 1;
        Some(pipe)
    }

    fn make(&mut self) -> Option<PipeId> {
        let id = self.vacant.take()?;
        let place = &mut self.pipes[self.vacant.index(&id)];
        *place = Pipe::new(self.size);
        if place.is_none() {
            self.vacant.give_back(id);
            return None;
        }
        Some(id)
    }

    /// Takes an empty pipe back.
    pub fn give_back(&mut self, pipe: PipeId) {
        self.held -= 1;
        self.idle.push(pipe);
    }

    /// Closes a pipe that may hold bytes: in the pool they would go to another session.
    pub fn discard(&mut self, pipe: PipeId) {
        self.held -= 1;
        self.pipes[self.vacant.index(&pipe)] = None;
        self.vacant.give_back(pipe);
    }

    /// Closes every pipe that no session holds.
    pub fn close_idle(&mut self) {
        for pipe in self.idle.drain(..) {
            self.pipes[self.vacant.index(&pipe)] = None;
            self.vacant.give_back(pipe);
        }
    }

    /// Whether there are pipes that no session holds.
    #[must_use]
    pub const fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// How many times a pipe has been taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// How many pipes sessions hold.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Moves bytes that wait in `socket` into the pipe. `Ok(0)` is the end of the stream if the
    /// pipe had room. The socket must be non-blocking: the flag of splice(2) covers the pipe only.
    ///
    /// # Errors
    /// `EAGAIN`: the socket is empty, or the pipe has no slot left. Else the error of the socket.
    pub fn fill(&self, pipe: &PipeId, socket: impl AsFd) -> Result<usize, Errno> {
        let pipe = self.pipes[self.vacant.index(pipe)].as_ref().ok_or(Errno::EBADF)?;
        splice(socket, None, &pipe.input, None, SPLICE_MAX, flags())
    }

    /// Moves at most `pending` bytes from the pipe into `socket`.
    ///
    /// # Errors
    /// `EAGAIN`: the socket has no room now. Else the error of the socket.
    pub fn drain(&self, pipe: &PipeId, socket: impl AsFd, pending: usize) -> Result<usize, Errno> {
        let pipe = self.pipes[self.vacant.index(pipe)].as_ref().ok_or(Errno::EBADF)?;
        // Never SPLICE_F_MORE: it delays the last segment by 200 ms.
        splice(&pipe.output, None, socket, None, pending.min(SPLICE_MAX), flags())
    }
}

const fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK.union(SpliceFFlags::SPLICE_F_MOVE)
}

impl Pipe {
    fn new(size: u32) -> Option<Self> {
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        // If the kernel refuses to grow it (EPERM, EBUSY), its size stays as it was.
        fcntl(&input, FcntlArg::F_SETPIPE_SZ(i32::try_from(size).ok()?)).ok();
        let size = fcntl(&input, FcntlArg::F_GETPIPE_SZ).ok()?;
        (size.unsigned_abs() >= SIZE_MIN).then_some(Self { output, input })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pipes_fit_into_the_limit_of_a_plain_user() {
        let sizes = [64, 128, 256, 512].map(size_of_each);
        assert_eq!(sizes, [512, 512, 256, 128].map(|kib| kib * 1024));
        assert_eq!(size_of_each(100_000), SIZE_MIN);
    }

    #[test]
    fn the_pool_is_bounded_and_lends_a_returned_pipe_again() {
        let mut pipes = Pipes::new(PipeLimits { count: 2, size: SIZE_MIN });
        let (first, second) = (pipes.take().unwrap(), pipes.take().unwrap());
        assert!(pipes.take().is_none());
        let index = second.index();
        pipes.give_back(second);
        assert_eq!(pipes.take().unwrap().index(), index);
        pipes.discard(first);
        assert!(pipes.take().is_some());
        assert_eq!(pipes.held(), 2);
    }

    #[test]
    fn idle_pipes_are_closed_and_made_again() {
        let mut pipes = Pipes::new(PipeLimits { count: 1, size: SIZE_MIN });
        let pipe = pipes.take().unwrap();
        pipes.close_idle();
        assert!(!pipes.has_idle() && pipes.held() == 1);
        pipes.give_back(pipe);
        pipes.close_idle();
        assert!(!pipes.has_idle() && pipes.pipes[0].is_none());
        assert!(pipes.take().is_some());
    }
}
