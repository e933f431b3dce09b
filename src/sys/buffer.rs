//! The buffers of a worker: memory of our own, of which the kernel's buffer ring holds a few.
//!
//! The ring is kept shallow and refilled last in, first out, so that bytes are received into memory
//! that is still in the cache (a ring that walks through all its memory lost a third of bulk
//! throughput). The memory is not mapped by the kernel (CVE-2024-0582 was in that kind of ring).

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::sys::ids::{Id, IdPool};

/// Bytes in one buffer: the most that one receive takes. Two full buffers in a row are bulk.
pub const BUFFER_SIZE: usize = 16 * 1024;

/// Buffers that the kernel holds to receive into: what all sessions together may receive in one
/// turn before their receives have to be armed again; an eighth of the buffers if that is less. A
/// kernel since 6.13 receives for about 40 sessions in one enter, so more buffers are only colder;
/// an older one for all that are ready.
const DEPTH: u16 = 64;

/// The ring is never shallower, however few buffers there are.
const DEPTH_MIN: u16 = 4;

/// What one turn fills is one part in so many of all buffers. A stall is noticed when a third is
/// held for longer than a turn, and the receives are ended a turn later: until then three turns may
/// have filled the ring, and more than a quarter is left.
const DEPTH_SHARE: u16 = 8;

/// The most that one receive takes while buffers are stalled. A socket that has reported room has a
/// third of its buffer free, 15 KiB of the smallest: so much is sent at once.
pub(crate) const STALLED_LENGTH: usize = 8 * 1024;

/// The depth of the ring when that was too little, as long as it is.
const RING_ENTRIES: u16 = 1024;

/// After so many refills in a row that took less than half of the ring, it becomes shallower.
const REFILLS: u16 = 128;

/// How far the buffers of a worker go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// There are enough.
    Ample,
    /// Fewer than half are free: each receive takes one buffer at most.
    Low,
    /// More than a third are held by bytes that their peer does not take. What is left belongs to
    /// sessions that move: nothing is received that cannot be sent at once.
    Stalled,
}

/// A buffer of a worker: [`BUFFER_SIZE`] bytes.
#[derive(Debug)]
pub enum Buffer {}

/// The right to use one buffer of a worker, until it is released.
pub type BufferId = Id<Buffer>;

/// All buffers of a worker.
#[derive(Debug)]
pub struct Buffers {
    memory: Mapping,
    ring: Mapping,
    /// What is not lent is held neither by a session nor by the kernel.
    ids: IdPool<Buffer>,
    /// How many the kernel holds.
    provided: u16,
    /// How many it should hold.
    depth: u16,
    /// The kernel has asked for more than it held.
    too_shallow: bool,
    /// Refills since the depth was last checked, and the most that one of them took.
    refills: (u16, u16),
    tail: u16,
    /// The most that sessions held at once since memory was last given back.
    held_most: usize,
    /// Buffers that were filled in this turn: their bytes have had no chance to be sent yet.
    filled: usize,
    /// Whether more than a third of the buffers are held for longer than a turn.
    stalled: bool,
}

impl Buffers {
    /// `count` buffers (at least 8, at most 65,535). Memory is reserved, and taken only when bytes
    /// are received into it.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(count: u16) -> io::Result<Self> {
        let count = count.max(8);
        let memory = Mapping::new(usize::from(count) * BUFFER_SIZE)?;
        let ring = Mapping::new(usize::from(RING_ENTRIES) * size_of::<BufRingEntry>())?;
        let mut buffers = Self {
            memory,
            ring,
            // The lowest are lent first, so that the memory in use stays together.
            ids: IdPool::new(count),
            provided: 0,
            depth: Self::usual_depth(count),
            too_shallow: false,
            refills: (0, 0),
            tail: 0,
            held_most: 0,
            filled: 0,
            stalled: false,
        };
        buffers.provide();
        Ok(buffers)
    }

    /// The address of the ring and its number of entries, to register it.
    pub(crate) fn ring(&self) -> (u64, u16) {
        (self.ring.start.as_ptr() as u64, RING_ENTRIES)
    }

    /// The kernel has received into this buffer: the caller holds it now.
    pub(super) fn adopt(&mut self, index: u16) -> BufferId {
        self.provided -= 1;
        self.filled += 1;
        self.held_most = self.held_most.max(self.held());
        self.ids.id(index)
    }

    /// Takes a buffer back from its holder.
    pub(super) fn release(&mut self, buffer: BufferId) {
        self.ids.give_back(buffer);
    }

    /// Gives free buffers to the kernel until its ring has its depth. Once a turn.
    pub(super) fn provide(&mut self) {
        let before = self.tail;
        self.adapt_depth();
        while self.provided < self.depth {
            let Some(index) = self.ids.take().map(|id| id.index()) else { break };
            let entries = self.ring.start.cast::<BufRingEntry>();
            let place = usize::from(self.tail & (RING_ENTRIES - 1));
            // SAFETY: the mapping holds RING_ENTRIES entries, and the place is below that.
            let mut entry = unsafe { entries.add(place) };
            // SAFETY: it is aligned and initialised (zero bytes are a valid entry), and the kernel
            // reads entries from head to tail only: this one is not there yet.
            let entry = unsafe { entry.as_mut() };
            let start = u64::from(index) * BUFFER_SIZE as u64;
            entry.set_addr(self.memory.start.as_ptr() as u64 + start);
            entry.set_len(u32::try_from(BUFFER_SIZE).unwrap_or(u32::MAX));
            entry.set_bid(index);
            self.tail = self.tail.wrapping_add(1);
            self.provided += 1;
        }
        if self.tail != before {
            let entries = self.ring.start.cast::<BufRingEntry>();
            // SAFETY: the mapping is a buffer ring, whose tail lies in its first entry.
            let tail = unsafe { BufRingEntry::tail(entries.as_ptr()) };
            // SAFETY: `tail` is aligned, lives as long as the mapping, and is only ever accessed
            // atomically: by this store and by the kernel.
            let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
            tail.store(self.tail, Ordering::Release);
        }
    }

    /// A turn has ended. What was filled before it and is still held was not taken by its peer: a
    /// send that finds room in the socket is answered within a turn.
    pub(super) fn end_turn(&mut self) {
        let held = self.held().saturating_sub(std::mem::take(&mut self.filled));
        let count = usize::from(self.count());
        // Two bounds, so that one session does not make the answer change at every turn.
        self.stalled = held * if self.stalled { 4 } else { 3 } > count;
    }

    /// The depth when nothing asks for more, with so many buffers.
    fn usual_depth(count: u16) -> u16 {
        (count / DEPTH_SHARE).clamp(DEPTH_MIN, DEPTH)
    }

    fn usual(&self) -> u16 {
        Self::usual_depth(self.count())
    }

    fn adapt_depth(&mut self) {
        let (refills, most) = self.refills;
        let most = most.max(self.depth.saturating_sub(self.provided));
        self.refills = (refills + 1, most);
        if std::mem::take(&mut self.too_shallow) {
            let most = (self.count() / DEPTH_SHARE).clamp(self.usual(), RING_ENTRIES);
            self.depth = self.depth.saturating_mul(2).min(most);
            self.refills = (0, 0);
        } else if refills >= REFILLS {
            if most < self.depth / 2 {
                self.depth = (self.depth / 2).max(self.usual());
            }
            self.refills = (0, 0);
        }
    }

    /// How many the kernel holds to receive into.
    #[must_use]
    pub const fn provided(&self) -> u16 {
        self.provided
    }

    /// The kernel found no buffer in its ring: it gets more from the next turn on. False if there
    /// are none to give, because sessions hold them.
    pub(super) const fn deepen(&mut self) -> bool {
        let some_are_free = self.ids.free() > 0;
        self.too_shallow |= some_are_free;
        some_are_free
    }

    /// Whether a burst used memory that is not needed any more.
    #[must_use]
    pub fn has_slack(&self) -> bool {
        let used = self.held_most.max(usize::from(self.depth));
        self.held() == 0 && used > usize::from(self.usual())
    }

    /// Gives the memory of all buffers back to the system, if no session holds one. No completion
    /// of a receive may be unread: its bytes would become zeros.
    pub(super) fn give_back_memory(&mut self) {
        if self.held() == 0 {
            self.held_most = 0;
            self.depth = self.usual();
            self.memory.discard();
        }
    }

    /// Never unmaps the memory: the kernel may still write into it.
    pub(super) const fn leave_mapped(&mut self) {
        self.memory.stays = true;
        self.ring.stays = true;
    }

    /// How far the buffers go.
    #[must_use]
    pub fn supply(&self) -> Supply {
        let free = self.ids.free() + usize::from(self.provided);
        if self.stalled {
            Supply::Stalled
        } else if free < usize::from(self.count()) / 2 {
            Supply::Low
        } else {
            Supply::Ample
        }
    }

    /// How many sessions hold.
    #[must_use]
    pub fn held(&self) -> usize {
        usize::from(self.count()) - self.ids.free() - usize::from(self.provided)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.ids.count()
    }

    /// The room behind the first `filled` bytes of a buffer.
    pub(super) fn room(&mut self, buffer: &BufferId, filled: u32) -> &mut [u8] {
        let (index, filled) = (self.ids.index(buffer), filled as usize);
        assert!(filled <= BUFFER_SIZE, "a part of a buffer: {filled} bytes");
        // SAFETY: the index is below the number of buffers, which the mapping holds.
        let start = unsafe { self.memory.start.add(index * BUFFER_SIZE + filled) };
        // SAFETY: these bytes lie in one buffer of the mapping, zero or received. Its only id is
        // here, so neither a receive nor a send of the kernel uses it, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), BUFFER_SIZE - filled) }
    }

    /// What was received into a buffer, or a part of it.
    pub(crate) fn bytes(&self, buffer: &BufferId, (from, to): (u32, u32)) -> &[u8] {
        let (index, from, to) = (self.ids.index(buffer), from as usize, to as usize);
        assert!(from < to && to <= BUFFER_SIZE, "a part of a buffer: {from} to {to}");
        // SAFETY: the index is below the number of buffers, which the mapping holds.
        let start = unsafe { self.memory.start.add(index * BUFFER_SIZE + from) };
        // SAFETY: these bytes lie in one buffer of the mapping, zero or received. Its only id is
        // here, so that no receive of the kernel writes into it.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), to - from) }
    }
}

/// Anonymous memory, unmapped when it is dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
    /// It is never unmapped.
    stays: bool,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new private anonymous mapping at an address that the kernel chooses overlaps
        // nothing that exists.
        let start = unsafe {
            mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags)
        }?;
        // SAFETY: the range is the mapping just made; the advice changes no contents. A huge page
        // would turn the first byte of a session into 2 MiB of memory. Without the advice (a kernel
        // without huge pages) nothing is lost.
        unsafe { madvise(start, length.get(), MmapAdvise::MADV_NOHUGEPAGE) }.ok();
        Ok(Self { start: start.cast(), length, stays: false })
    }

    /// Makes every byte zero, without memory behind it until it is next written.
    fn discard(&self) {
        let start = self.start.cast();
        // SAFETY: the range is this mapping, private and anonymous, and no reference into it exists
        // while `Buffers::give_back_memory` runs. A receive into it finds a fresh page.
        unsafe { madvise(start, self.length.get(), MmapAdvise::MADV_DONTNEED) }.ok();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // SAFETY: the mapping was made by `new` with this length, and nothing borrows from it. The
        // ring through which the kernel could write into it was dropped before (`sys::ring`).
        unsafe { munmap(self.start.cast(), self.length.get()) }.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` of the buffers that the kernel holds, as if it had received into them.
    fn received(buffers: &mut Buffers, count: u16) -> Vec<BufferId> {
        let lent = (0..buffers.count()).filter(|index| buffers.ids.is_lent(*index));
        let some: Vec<u16> = lent.take(usize::from(count)).collect();
        some.into_iter().map(|index| buffers.adopt(index)).collect()
    }

    fn release(buffers: &mut Buffers, held: Vec<BufferId>) {
        held.into_iter().for_each(|buffer| buffers.release(buffer));
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back_once_no_session_holds_a_buffer() {
        let mut buffers = Buffers::new(1200).unwrap();
        assert!(buffers.deepen());
        buffers.provide();
        let held = received(&mut buffers, 2 * DEPTH);
        assert!(!buffers.has_slack());
        release(&mut buffers, held);
        assert!(buffers.has_slack());
        buffers.give_back_memory();
        assert!(!buffers.has_slack());
    }

    #[test]
    fn more_than_a_third_held_for_longer_than_a_turn_is_a_stall_until_it_is_clearly_less() {
        let mut buffers = Buffers::new(64).unwrap();
        let mut held = Vec::new();
        while held.len() < 30 {
            held.extend(received(&mut buffers, 3));
            buffers.provide();
        }
        buffers.end_turn();
        assert_eq!(buffers.supply(), Supply::Ample, "they were filled in this turn");
        buffers.end_turn();
        assert_eq!(buffers.supply(), Supply::Stalled);
        for (left, supply) in [(17, Supply::Stalled), (16, Supply::Ample)] {
            held.drain(left..).for_each(|buffer| buffers.release(buffer));
            buffers.end_turn();
            assert_eq!(buffers.supply(), supply, "{left} are held");
        }
    }

    #[test]
    fn the_ring_is_deeper_while_it_needs_to_be() {
        let mut buffers = Buffers::new(1200).unwrap();
        assert!(buffers.deepen() && buffers.deepen());
        buffers.provide();
        assert_eq!(buffers.provided, 2 * DEPTH, "twice as deep, however often it was asked for");
        let turn = |buffers: &mut Buffers, count: u16| {
            let held = received(buffers, count);
            release(buffers, held);
            buffers.provide();
        };
        (0..1000).for_each(|_| turn(&mut buffers, DEPTH + 1));
        assert_eq!(buffers.provided, 2 * DEPTH);
        (0..1000).for_each(|_| turn(&mut buffers, 2));
        assert_eq!(buffers.depth, DEPTH);
        while buffers.ids.take().is_some() {}
        assert!(!buffers.deepen(), "there is none to give");
    }

    #[test]
    fn a_buffer_that_is_released_is_provided_next() {
        let mut buffers = Buffers::new(600).unwrap();
        let held = received(&mut buffers, 2);
        let indices: Vec<u16> = held.iter().map(Id::index).collect();
        assert_eq!(buffers.held(), 2);
        release(&mut buffers, held);
        buffers.provide();
        assert_eq!((buffers.held(), buffers.provided), (0, DEPTH));
        assert!(indices.into_iter().all(|index| buffers.ids.is_lent(index)));
    }
}
