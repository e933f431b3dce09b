//! A timer wheel: one deadline a session, put in, moved and taken out in constant time.
//!
//! One hashed wheel (Varghese and Lauck, 1987, scheme 6) with links by slot. A deadline beyond the
//! horizon waits in the farthest bucket and is put in again as that comes round: a session with a
//! timeout of five minutes is touched once in four seconds.

use std::time::Duration;

/// A point in time of one worker, in microseconds since its ring was made. Monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// The worker's start.
    pub const START: Self = Self(0);
    /// Never.
    pub const NEVER: Self = Self(u64::MAX);

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// From `earlier` to this one; zero if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Microseconds of one bucket: deadlines are met up to so much late.
const BUCKET_MICROS: u64 = 8_192;
/// Buckets; a power of two.
const BUCKETS: usize = 512;
/// No slot.
const NONE: u32 = u32::MAX;

/// The deadlines of all sessions of a worker, by slot.
#[derive(Debug)]
pub struct TimerWheel {
    /// The first slot of each bucket.
    buckets: Box<[u32; BUCKETS]>,
    /// A bit for each bucket that is not empty.
    occupied: [u64; BUCKETS / 64],
    /// By slot.
    entries: Vec<Entry>,
    /// The next tick to be looked at.
    tick: u64,
    armed: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    deadline: Tick,
    next: u32,
    previous: u32,
    /// [`NONE`] while the slot has no deadline.
    bucket: u32,
}

impl Entry {
    const OUT: Self = Self { deadline: Tick::NEVER, next: NONE, previous: NONE, bucket: NONE };
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self::new()
    }
}

impl TimerWheel {
    /// Empty, at the worker's start.
    #[must_use]
    pub fn new() -> Self {
        let buckets = Box::new([NONE; BUCKETS]);
        Self { buckets, occupied: [0; BUCKETS / 64], entries: Vec::new(), tick: 0, armed: 0 }
    }

    /// Gives `slot` this deadline, instead of the one it had. [`Tick::NEVER`] takes it out.
    pub fn set(&mut self, slot: u32, deadline: Tick) {
        let index = slot as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, Entry::OUT);
        }
        if self.entries[index].deadline == deadline {
            return;
        }
        self.remove(slot);
        if deadline != Tick::NEVER {
            self.insert(slot, deadline);
        }
    }

    /// The deadline of `slot`, or [`Tick::NEVER`].
    #[must_use]
    pub fn deadline(&self, slot: u32) -> Tick {
        self.entries.get(slot as usize).map_or(Tick::NEVER, |entry| entry.deadline)
    }

    /// Takes out every slot whose deadline has come and hands it to `due`.
    pub fn advance(&mut self, now: Tick, due: &mut Vec<u32>) {
        let last = now.0 / BUCKET_MICROS;
        // After a long sleep one round over all buckets meets every deadline.
        let first = self.tick.max((last + 1).saturating_sub(BUCKETS as u64));
        for tick in first..last {
            let mut slot = self.buckets[bucket_of(tick)];
            while slot != NONE {
                let Entry { deadline, next, .. } = self.entries[slot as usize];
                if deadline <= now {
                    self.remove(slot);
                    due.push(slot);
                } else {
                    // Of a later round.
                    self.remove(slot);
                    self.tick = tick + 1;
                    self.insert(slot, deadline);
                }
                slot = next;
            }
        }
        self.tick = self.tick.max(last);
    }

    /// When [`TimerWheel::advance`] may next find something; none while there is no deadline.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        if self.armed == 0 {
            return None;
        }
        let first = bucket_of(self.tick);
        // The words from the first bucket's on, all round, and its own once more for what is
        // before it.
        let words = BUCKETS / 64;
        let ahead = (0..=words).find_map(|step| {
            let index = (first / 64 + step) % words;
            let passed = u64::MAX << (first % 64);
            let word = match step {
                0 => self.occupied[index] & passed,
                _ if step == words => self.occupied[index] & !passed,
                _ => self.occupied[index],
            };
            let bucket = index * 64 + word.trailing_zeros() as usize;
            (word != 0).then(|| (bucket + BUCKETS - first) % BUCKETS)
        })?;
        Some(Tick((self.tick + ahead as u64 + 1) * BUCKET_MICROS))
    }

    fn insert(&mut self, slot: u32, deadline: Tick) {
        let tick = (deadline.0 / BUCKET_MICROS).clamp(self.tick, self.tick + BUCKETS as u64 - 1);
        let bucket = bucket_of(tick);
        let next = self.buckets[bucket];
        self.buckets[bucket] = slot;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        if next != NONE {
            self.entries[next as usize].previous = slot;
        }
        let place = u32::try_from(bucket).unwrap_or(NONE);
        self.entries[slot as usize] = Entry { deadline, next, previous: NONE, bucket: place };
        self.armed += 1;
    }

    fn remove(&mut self, slot: u32) {
        let entry = self.entries[slot as usize];
        if entry.bucket == NONE {
            return;
        }
        if entry.previous == NONE {
            let bucket = entry.bucket as usize;
            self.buckets[bucket] = entry.next;
            if entry.next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.entries[entry.previous as usize].next = entry.next;
        }
        if entry.next != NONE {
            self.entries[entry.next as usize].previous = entry.previous;
        }
        self.entries[slot as usize] = Entry::OUT;
        self.armed -= 1;
    }
}

const fn bucket_of(tick: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "below BUCKETS after the mask")]
    let bucket = (tick & (BUCKETS as u64 - 1)) as usize;
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_at(wheel: &mut TimerWheel, now: Tick) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn a_deadline_is_met_once_never_early_and_at_most_a_tick_late() {
        let mut wheel = TimerWheel::new();
        let mut random = 0x2545_f491_u64;
        let mut deadlines = Vec::new();
        for slot in 0..1000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let deadline = Tick(random >> 38);
            wheel.set(slot, deadline);
            deadlines.push((deadline, slot));
        }
        let mut met = 0;
        let mut now = Tick::START;
        for _ in 0..100_000 {
            now = Tick(now.0 + 3000);
            for slot in due_at(&mut wheel, now) {
                let (deadline, _) = deadlines[slot as usize];
                assert!(deadline <= now, "slot {slot} early");
                assert!(now.0 - deadline.0 <= 2 * BUCKET_MICROS + 3000, "slot {slot} late");
                met += 1;
            }
        }
        assert_eq!((met, wheel.next()), (1000, None));
    }

    #[test]
    fn a_moved_deadline_replaces_the_old_one() {
        let mut wheel = TimerWheel::new();
        wheel.set(7, Tick(50_000));
        wheel.set(7, Tick(900_000_000));
        assert!(due_at(&mut wheel, Tick(100_000)).is_empty());
        wheel.set(7, Tick(200_000));
        assert_eq!(due_at(&mut wheel, Tick(300_000)), [7]);
        wheel.set(7, Tick(400_000));
        wheel.set(7, Tick::NEVER);
        assert!(due_at(&mut wheel, Tick(900_000)).is_empty());
    }

    #[test]
    fn a_long_sleep_meets_everything_that_was_due() {
        let mut wheel = TimerWheel::new();
        for slot in 0..100 {
            wheel.set(slot, Tick(u64::from(slot) * 1_000_000));
        }
        assert_eq!(due_at(&mut wheel, Tick(3_600_000_000)).len(), 100);
    }

    #[test]
    fn the_wait_is_for_the_first_of_many_wherever_the_wheel_stands() {
        let mut wheel = TimerWheel::new();
        let mut now = Tick::START;
        for step in 0..5000u64 {
            let first = now.after(Duration::from_micros(1 + step * 7919 % 3_000_000));
            wheel.set(1, first);
            wheel.set(2, first.after(Duration::from_millis(900)));
            let until = wheel.next().unwrap();
            assert!(
                until > first && until.0 - first.0 <= 2 * BUCKET_MICROS,
                "{step}: {until:?} {first:?}"
            );
            now = now.after(Duration::from_millis(step % 700));
            due_at(&mut wheel, now);
        }
    }

    #[test]
    fn the_wait_ends_when_the_next_deadline_is_met() {
        let mut wheel = TimerWheel::new();
        wheel.set(1, Tick(100_000));
        let next = wheel.next().unwrap();
        assert_eq!(due_at(&mut wheel, next), [1]);
    }
}
