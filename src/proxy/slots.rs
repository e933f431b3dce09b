//! Places for sessions that never move, with generations: a completion that comes after its session
//! has ended finds nobody.

/// Slots that are made at once.
const CHUNK: usize = 64;

/// Generations that fit into a token; then they begin again.
pub(super) const GENERATIONS: u32 = 1 << 24;

/// A slot, in one of its generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The slot.
    pub slot: u32,
    /// How often the slot was emptied before, modulo 2^24.
    pub generation: u32,
}

/// A growing table of `T`.
#[derive(Debug)]
pub struct Slots<T> {
    chunks: Vec<Box<[Slot<T>]>>,
    /// Last in, first out: what was used last is still in the cache.
    free: Vec<u32>,
    used: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slots<T> {
    /// Without slots: they are made as they are needed.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), used: 0 }
    }

    /// The key that the next [`Slots::insert`] will need.
    pub fn reserve(&mut self) -> Key {
        if self.free.is_empty() {
            let first = self.chunks.len() * CHUNK;
            let chunk = (0..CHUNK).map(|_| Slot { generation: 0, value: None });
            self.chunks.push(chunk.collect());
            let numbers = (first..first + CHUNK).rev();
            self.free.extend(numbers.filter_map(|slot| u32::try_from(slot).ok()));
        }
        let slot = self.free.last().copied().unwrap_or_default();
        Key { slot, generation: self.slot(slot).map_or(0, |slot| slot.generation) }
    }

    /// Puts a value where [`Slots::reserve`] said.
    pub fn insert(&mut self, key: Key, value: T) {
        let reserved = self.free.pop();
        debug_assert_eq!(reserved, Some(key.slot), "nothing was inserted in between");
        if let Some(slot) = self.slot(key.slot) {
            slot.value = Some(value);
            self.used += 1;
        }
    }

    /// The value that was inserted with that key, if it is still there.
    pub fn get(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slot(key.slot)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// The value at a slot, in whatever generation.
    pub fn at(&mut self, slot: u32) -> Option<(Key, &mut T)> {
        let Slot { generation, value } = self.slot(slot)?;
        Some((Key { slot, generation: *generation }, value.as_mut()?))
    }

    /// Takes that value out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot(key.slot).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(key.slot);
        self.used -= 1;
        Some(value)
    }

    /// Whether no slot has a value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Slots there are, used or not: every key is below it.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.chunks.len() * CHUNK).unwrap_or(u32::MAX)
    }

    fn slot(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_an_earlier_generation_finds_nobody() {
        let mut slots = Slots::new();
        let old = slots.reserve();
        slots.insert(old, "old");
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.reserve();
        slots.insert(new, "new");
        assert_eq!((old.slot, slots.get(old)), (new.slot, None));
        assert_eq!(slots.get(new), Some(&mut "new"));
        assert_eq!(slots.remove(old), None);
    }

    #[test]
    fn a_chunk_grows_when_all_are_used() {
        let mut slots = Slots::new();
        let keys: Vec<Key> = (0..CHUNK + 1)
            .map(|number| {
                let key = slots.reserve();
                slots.insert(key, number);
                key
            })
            .collect();
        assert_eq!(slots.get(keys[CHUNK]), Some(&mut 64));
        assert_eq!(slots.capacity() as usize, 2 * CHUNK);
    }
}
