//! Queues of received buffers, linked through a table of the worker, so that a session of any
//! backlog is one small piece of memory and an idle one holds nothing.

use crate::sys::buffer::BufferId;

/// For each buffer of a worker: how many bytes it holds, and which comes after it in its queue.
#[derive(Debug)]
pub struct Links(Box<[Link]>);

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    length: u32,
    next: u16,
}

impl Links {
    /// For `count` buffers.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self(vec![Link::default(); usize::from(count)].into_boxed_slice())
    }
}

/// Buffers in the order in which they were received.
#[derive(Debug, Default, Clone, Copy)]
pub struct Queue {
    first: u16,
    last: u16,
    count: u16,
}

impl Queue {
    /// Puts a buffer with `length` bytes at the end.
    pub fn push(&mut self, links: &mut Links, buffer: BufferId, length: u32) {
        links.0[usize::from(buffer.0)].length = length;
        if self.count == 0 {
            self.first = buffer.0;
        } else {
            links.0[usize::from(self.last)].next = buffer.0;
        }
        self.last = buffer.0;
        self.count += 1;
    }

    /// The first buffer and how many bytes it holds.
    #[must_use]
    pub fn first(&self, links: &Links) -> Option<(BufferId, u32)> {
        let length = links.0.get(usize::from(self.first))?.length;
        (self.count > 0).then_some((BufferId(self.first), length))
    }

    /// Takes the first buffer out.
    pub fn pop(&mut self, links: &Links) -> Option<BufferId> {
        if self.count == 0 {
            return None;
        }
        let first = self.first;
        self.first = links.0[usize::from(first)].next;
        self.count -= 1;
        Some(BufferId(first))
    }

    /// How many buffers are in it.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_queues_share_the_links_and_keep_their_orders() {
        let mut links = Links::new(4);
        let (mut odd, mut even) = (Queue::default(), Queue::default());
        for id in 0..4 {
            let queue = if id % 2 == 0 { &mut even } else { &mut odd };
            queue.push(&mut links, BufferId(id), u32::from(id) + 10);
        }
        assert_eq!(odd.first(&links), Some((BufferId(1), 11)));
        assert_eq!((odd.pop(&links), odd.pop(&links)), (Some(BufferId(1)), Some(BufferId(3))));
        assert_eq!((odd.pop(&links), even.count()), (None, 2));
        odd.push(&mut links, BufferId(1), 5);
        assert_eq!(even.pop(&links), Some(BufferId(0)));
        assert_eq!(odd.first(&links), Some((BufferId(1), 5)));
    }
}
