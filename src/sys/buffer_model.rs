//! Buffers and their queues against models: a kernel that receives into the buffer ring, and lists.
//! Nothing here is a system call but the mapping of memory, so that a checker of memory sees all.

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::sys::buffer::{BUFFER_SIZE, Buffer, BufferId, Buffers};
use crate::sys::buffer_queue::{BufferLinks, BufferQueue};
use crate::sys::ids::IdPool;

/// The kernel's end of a buffer ring.
struct Kernel {
    entries: *const BufRingEntry,
    count: u16,
    head: u16,
}

impl Kernel {
    fn new(buffers: &Buffers) -> Self {
        let (address, count) = buffers.ring();
        let address = usize::try_from(address).unwrap();
        Self { entries: ptr::with_exposed_provenance(address), count, head: 0 }
    }

    fn tail(&self) -> u16 {
        // SAFETY: `entries` is the buffer ring of a `Buffers` that outlives this.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: it is aligned and lives as long as the ring, and its writer is atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.load(Ordering::Acquire)
    }

    /// Receives `mark` into the first and the last byte of the next buffer.
    fn receive(&mut self, mark: u8) -> Option<u16> {
        if self.head == self.tail() {
            return None;
        }
        let place = usize::from(self.head % self.count);
        self.head = self.head.wrapping_add(1);
        // SAFETY: the ring has `count` entries, and the place is below that.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY: it was written before the tail passed it, and is not written until the head has.
        let entry = unsafe { &*entry };
        assert_eq!(entry.len() as usize, BUFFER_SIZE);
        let start: *mut u8 =
            { ptr::with_exposed_provenance_mut(usize::try_from(entry.addr()).unwrap()) };
        // SAFETY: an entry is `len` bytes of memory that nobody else uses until it is adopted.
        unsafe { start.write(mark) };
        // SAFETY: as above; the last byte is one of them.
        let last = unsafe { start.add(BUFFER_SIZE - 1) };
        // SAFETY: as above.
        unsafe { last.write(mark) };
        Some(entry.bid())
    }
}

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn assert_marked(buffers: &Buffers, held: &[(BufferId, u8)]) {
    for (buffer, mark) in held {
        let bytes = buffers.bytes(buffer, (0, u32::try_from(BUFFER_SIZE).unwrap()));
        assert_eq!((bytes[0], bytes[BUFFER_SIZE - 1]), (*mark, *mark), "{buffer:?}");
    }
}

#[test]
fn a_buffer_belongs_to_the_kernel_or_to_one_session_while_the_ring_turns_often() {
    for (count, seed) in [(8, 1), (64, 2), (1200, 3), (u16::MAX, 4)] {
        let mut random = Random(seed);
        let mut buffers = Buffers::new(count).unwrap();
        let mut kernel = Kernel::new(&buffers);
        let mut held: Vec<(BufferId, u8)> = Vec::new();
        let mut received = 0_u32;
        // The 16 bits of the tail pass zero.
        while received < 200_000 {
            for _ in 0..random.below(100) {
                let mark = u8::try_from(received % 251).unwrap();
                let Some(index) = kernel.receive(mark) else {
                    buffers.deepen();
                    break;
                };
                received += 1;
                assert!(held.iter().all(|(buffer, _)| buffer.index() != index), "seed {seed}");
                held.push((buffers.adopt(index), mark));
            }
            let kept = if random.below(4) == 0 { 0 } else { held.len() * random.below(9) / 10 };
            while held.len() > kept {
                let (buffer, _) = held.swap_remove(random.below(held.len()));
                buffers.release(buffer);
            }
            assert_marked(&buffers, &held);
            assert_eq!(buffers.held(), held.len(), "seed {seed}");
            if random.below(50) == 0 {
                buffers.give_back_memory();
            }
            buffers.provide();
            buffers.end_turn();
            assert_eq!(kernel.tail().wrapping_sub(kernel.head), buffers.provided(), "seed {seed}");
            assert_marked(&buffers, &held);
        }
    }
}

#[test]
fn queues_of_buffers_are_lists() {
    let mut random = Random(5);
    let (mut links, mut pool) = (BufferLinks::new(64), IdPool::<Buffer>::new(64));
    let mut queues: [(BufferQueue, VecDeque<(u16, u32)>); 4] = Default::default();
    for length in 0..200_000 {
        let (queue, list) = &mut queues[random.below(4)];
        match (random.below(3), pool.free()) {
            (0, 1..) => {
                let buffer = pool.take().unwrap();
                list.push_back((buffer.index(), length));
                queue.push(&mut links, buffer, length);
            }
            (1, 1..) => {
                let buffer = pool.take().unwrap();
                list.push_front((buffer.index(), length));
                queue.push_front(&mut links, buffer, length);
            }
            _ => {
                let popped = queue.pop(&mut links);
                let shown = popped.as_ref().map(|(buffer, length)| (buffer.index(), *length));
                assert_eq!(shown, list.pop_front());
                popped.into_iter().for_each(|(buffer, _)| pool.give_back(buffer));
            }
        }
        assert_eq!((usize::from(queue.count()), queue.is_empty()), (list.len(), list.is_empty()));
    }
}
