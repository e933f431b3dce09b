//! Numbered resources that are lent to one holder at a time.
//!
//! An [`Id`] is the right to use one resource of a pool. It can be neither copied nor made by
//! hand, so that safe code cannot use a resource that it has given back, or give it back twice. An
//! id that is dropped is lost: its resource stays lent for as long as the pool lives.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

/// The right to use one resource of a pool. `Kind` tells the pools of different resources apart.
pub struct Id<Kind> {
    /// The number of its pool.
    pool: NonZeroU32,
    index: u16,
    kind: PhantomData<fn() -> Kind>,
}

impl<Kind> Id<Kind> {
    /// The place of the resource in its pool: below [`IdPool::count`].
    #[must_use]
    pub const fn index(&self) -> u16 {
        self.index
    }
}

impl<Kind> PartialEq for Id<Kind> {
    fn eq(&self, other: &Self) -> bool {
        (self.pool, self.index) == (other.pool, other.index)
    }
}

impl<Kind> Eq for Id<Kind> {}

impl<Kind> fmt::Debug for Id<Kind> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Id({})", self.index)
    }
}

/// The ids of a pool of resources. Performs no I/O, so that a simulation can use it too.
pub struct IdPool<Kind> {
    /// No other pool of the process has it.
    number: NonZeroU32,
    count: u16,
    /// Not lent, last in, first out.
    free: Vec<u16>,
    kind: PhantomData<fn() -> Kind>,
}

/// The number of the next pool, less 1.
static NEXT_POOL: AtomicU32 = AtomicU32::new(0);

impl<Kind> IdPool<Kind> {
    /// `count` ids, none of them lent. The lowest is lent first.
    #[must_use]
    pub fn new(count: u16) -> Self {
        let number = NonZeroU32::MIN.saturating_add(NEXT_POOL.fetch_add(1, Ordering::Relaxed));
        Self { number, count, free: (0..count).rev().collect(), kind: PhantomData }
    }

    /// Lends the id that was given back last; none if all are lent.
    pub fn take(&mut self) -> Option<Id<Kind>> {
        let index = self.free.pop()?;
        Some(self.id(index))
    }

    /// Takes an id back.
    ///
    /// # Panics
    /// It belongs to another pool.
    #[expect(clippy::needless_pass_by_value, reason = "the right to use the resource ends")]
    pub fn give_back(&mut self, id: Id<Kind>) {
        self.free.push(self.own(&id));
    }

    /// The place of a resource.
    ///
    /// # Panics
    /// The id belongs to another pool.
    pub fn index(&self, id: &Id<Kind>) -> usize {
        usize::from(self.own(id))
    }

    /// How many ids there are.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// How many ids are not lent.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.free.len()
    }

    /// The id of a lent resource whose holder, the kernel, knows no more than the number. The
    /// caller makes it once for each [`IdPool::take`] whose id it has dropped.
    pub(super) const fn id(&self, index: u16) -> Id<Kind> {
        Id { pool: self.number, index, kind: PhantomData }
    }

    #[cfg(test)]
    pub(super) fn is_lent(&self, index: u16) -> bool {
        !self.free.contains(&index)
    }

    fn own(&self, id: &Id<Kind>) -> u16 {
        assert!(id.pool == self.number, "{id:?} belongs to another pool");
        id.index
    }
}

impl<Kind> fmt::Debug for IdPool<Kind> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "IdPool({} of {} are free)", self.free.len(), self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    enum Thing {}

    #[test]
    fn each_id_is_lent_once_and_the_last_one_given_back_is_lent_first() {
        let mut pool = IdPool::<Thing>::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!((first.index(), second.index()), (0, 1));
        assert!(pool.take().is_none());
        pool.give_back(second);
        pool.give_back(first);
        assert_eq!((pool.free(), pool.take().unwrap().index()), (2, 0));
    }

    #[test]
    #[should_panic(expected = "belongs to another pool")]
    fn an_id_of_another_pool_is_not_taken_back() {
        let [mut one, mut other] = [(); 2].map(|()| IdPool::<Thing>::new(1));
        other.give_back(one.take().unwrap());
    }

    #[test]
    fn an_id_that_may_be_absent_takes_eight_bytes() {
        assert_eq!(size_of::<Option<Id<Thing>>>(), 8);
    }
}
