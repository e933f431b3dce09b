//! Queues of received buffers. Each entry of a worker's table holds the buffer that follows it, so
//! that a queue of any length is a few bytes in its session, and a session without data holds none.

use crate::sys::buffer::BufferId;

/// For each buffer of a worker that is in a queue: how many bytes it holds, and the next buffer.
#[derive(Debug)]
pub struct BufferLinks(Box<[Link]>);

#[derive(Debug, Default)]
struct Link {
    length: u32,
    next: Option<BufferId>,
}

impl BufferLinks {
    /// For `count` buffers.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self((0..count).map(|_| Link::default()).collect())
    }

    fn of(&mut self, buffer: &BufferId) -> &mut Link {
        &mut self.0[usize::from(buffer.index())]
    }
}

/// Buffers in the order in which they were received.
#[derive(Debug, Default)]
pub struct BufferQueue {
    first: Option<BufferId>,
    /// Meaningless while there is no first.
    last: u16,
    count: u16,
}

impl BufferQueue {
    /// Adds a buffer with `length` bytes at the end.
    pub fn push(&mut self, links: &mut BufferLinks, buffer: BufferId, length: u32) {
        links.of(&buffer).length = length;
        let before = std::mem::replace(&mut self.last, buffer.index());
        if self.first.is_some() {
            links.0[usize::from(before)].next = Some(buffer);
        } else {
            self.first = Some(buffer);
        }
        self.count += 1;
    }

    /// Adds a buffer with `length` bytes in front of the others.
    pub fn push_front(&mut self, links: &mut BufferLinks, buffer: BufferId, length: u32) {
        let index = buffer.index();
        let next = self.first.replace(buffer);
        if next.is_none() {
            self.last = index;
        }
        links.0[usize::from(index)] = Link { length, next };
        self.count += 1;
    }

    /// Removes the first buffer; also how many bytes it holds.
    pub fn pop(&mut self, links: &mut BufferLinks) -> Option<(BufferId, u32)> {
        let first = self.first.take()?;
        let link = links.of(&first);
        self.first = link.next.take();
        self.count -= 1;
        Some((first, link.length))
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
    use crate::sys::ids::IdPool;

    use super::*;

    fn pop(queue: &mut BufferQueue, links: &mut BufferLinks) -> Option<(u16, u32)> {
        queue.pop(links).map(|(buffer, length)| (buffer.index(), length))
    }

    #[test]
    fn two_queues_share_the_links_and_keep_their_orders() {
        let (mut links, mut buffers) = (BufferLinks::new(4), IdPool::new(4));
        let (mut odd, mut even) = (BufferQueue::default(), BufferQueue::default());
        while let Some(buffer) = buffers.take() {
            let index = buffer.index();
            let queue = if index % 2 == 0 { &mut even } else { &mut odd };
            queue.push(&mut links, buffer, u32::from(index) + 10);
        }
        let (first, length) = odd.pop(&mut links).unwrap();
        assert_eq!((first.index(), length), (1, 11));
        odd.push(&mut links, first, 5);
        assert_eq!(pop(&mut odd, &mut links), Some((3, 13)));
        assert_eq!(pop(&mut odd, &mut links), Some((1, 5)));
        assert_eq!((pop(&mut odd, &mut links), even.count()), (None, 2));
        assert_eq!(pop(&mut even, &mut links), Some((0, 10)));
        assert_eq!(pop(&mut even, &mut links), Some((2, 12)));
        assert!(even.is_empty());
    }

    #[test]
    fn a_buffer_that_comes_back_to_the_front_is_the_next_one_removed() {
        let (mut links, mut buffers) = (BufferLinks::new(3), IdPool::new(3));
        let mut queue = BufferQueue::default();
        let [first, second, third] = [(); 3].map(|()| buffers.take().unwrap());
        // In front of nothing, then of another.
        queue.push_front(&mut links, first, 7);
        queue.push(&mut links, second, 8);
        let (first, _) = queue.pop(&mut links).unwrap();
        queue.push_front(&mut links, first, 6);
        queue.push(&mut links, third, 9);
        let lengths = std::iter::from_fn(|| pop(&mut queue, &mut links));
        assert_eq!(lengths.collect::<Vec<_>>(), [(0, 6), (1, 8), (2, 9)]);
    }
}
