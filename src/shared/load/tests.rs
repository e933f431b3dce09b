//! Counts, and searches for the least key beside a model that reads all of them.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::shared::maglev::{below, mix};

/// The same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 += 1;
        below(mix(self.0), limit)
    }
}

fn loads(count: usize) -> (Vec<Load>, Arc<LoadBlock>) {
    let mut loads = Loads(vec![Arc::new(LoadBlock::new(BLOCK))]);
    let block = Arc::clone(&loads.0[0]);
    ((0..count).map(|_| loads.take()).collect(), block)
}

/// The least key of a block, found by reading all.
fn least_of_all(block: &LoadBlock) -> u64 {
    (0..block.capacity()).map(|slot| block.key(slot)).min().unwrap_or(NEVER)
}

/// Each bound is at most what is below it.
fn assert_bounds_hold(block: &LoadBlock) {
    for level in 1..=LEVELS {
        for index in 0..block.bounds[level - 1].len() {
            let slot = index << (FAN_OUT_BITS * level);
            let bound = block.bound(level, slot).load(Ordering::SeqCst);
            let below = block.least_below(slot, level);
            assert!(bound <= below, "level {level}, {index}: {bound} is above {below}");
        }
    }
}

#[test]
fn each_endpoint_has_a_count_of_its_own_until_it_is_dropped() {
    let mut loads = Loads::default();
    let many: Vec<Load> = (0..FIRST_BLOCK + BLOCK + 1).map(|_| loads.take()).collect();
    many.iter().for_each(Load::raise);
    assert!(many.iter().all(|load| load.read() == 1));
    assert_eq!(loads.0.len(), 3, "a third block");
    drop(many);
    let again: Vec<Load> = (0..FIRST_BLOCK + BLOCK + 1).map(|_| loads.take()).collect();
    assert!(again.iter().all(|load| load.read() == 0));
    assert_eq!(loads.0.len(), 3, "counts that were given back are used again");
}

#[test]
fn a_search_finds_the_first_slot_with_the_least_key() {
    let (loads, block) = loads(300);
    let mut random = Random(1);
    for slot in 0..300 {
        block.set_cost(slot, [0, 1, 2, 3, 6][random.below(5)]);
    }
    let mut held: Vec<usize> = Vec::new();
    for step in 0..20_000 {
        // It fills up, and empties again.
        let grows = step / 4_000 % 2 == 0;
        if held.is_empty() || random.below(8) < if grows { 5 } else { 3 } {
            let range = random.below(300)..block.capacity();
            let odd_only = random.below(4) == 0;
            let may = |slot: usize| !odd_only || slot % 2 == 1;
            let found = block.least(range.clone(), NEVER, may);
            let admitted = range.filter(|slot| may(*slot));
            let expected = admitted.min_by_key(|slot| block.key(*slot));
            let expected = expected.filter(|slot| block.key(*slot) < NEVER);
            assert_eq!(found.map(|(slot, _)| slot), expected, "step {step}");
            if let Some((slot, key)) = found {
                assert_eq!(key, block.key(slot));
                block.raise_bounds(key);
                loads[slot].raise();
                held.push(slot);
            }
        } else {
            loads[held.swap_remove(random.below(held.len()))].lower();
        }
        if random.below(100) == 0 {
            block.set_cost(random.below(300), [0, 1, 2, 3, 6][random.below(5)]);
        }
        assert!(block.root() <= least_of_all(&block));
    }
    assert_bounds_hold(&block);
}

#[test]
fn a_search_that_found_nothing_lower_raises_the_bounds() {
    let (loads, block) = loads(BLOCK);
    for (slot, load) in loads.iter().enumerate() {
        block.set_cost(slot, 1);
        load.raise();
        load.raise();
    }
    assert_eq!((block.root(), least_of_all(&block)), (0, 2));
    let (_, key) = block.least(0..BLOCK, NEVER, |_| true).unwrap();
    block.raise_bounds(key);
    assert_eq!(block.root(), 2);
    loads[700].lower();
    assert_eq!(block.root(), 1, "the end of a session lowers it again");
    assert_eq!(block.least(0..BLOCK, NEVER, |_| true), Some((700, 1)));
    assert_eq!(block.least(0..BLOCK, NEVER, |slot| slot != 700), Some((0, 2)));
}

#[test]
fn a_slot_that_is_given_back_is_not_found() {
    let (mut loads, block) = loads(3);
    (0..3).for_each(|slot| block.set_cost(slot, 1));
    loads.iter().skip(1).for_each(Load::raise);
    drop(loads.remove(0));
    assert_eq!(block.least(0..BLOCK, NEVER, |_| true), Some((1, 1)));
}

/// Begins and ends sessions; how many stay open.
fn begin_and_end(loads: &[Load], block: &LoadBlock, seed: u64) -> usize {
    let (mut random, mut held) = (Random(seed << 32), Vec::<usize>::new());
    for _ in 0..20_000 {
        if !held.is_empty() && (held.len() >= 300 || random.below(2) == 1) {
            loads[held.swap_remove(random.below(held.len()))].lower();
        } else if let Some((slot, key)) = block.least(random.below(200)..BLOCK, NEVER, |_| true) {
            block.raise_bounds(key);
            loads[slot].raise();
            held.push(slot);
        }
    }
    held.len()
}

#[test]
fn bounds_hold_while_many_threads_begin_and_end_sessions() {
    const THREADS: u64 = 4;
    let (loads, block) = loads(200);
    (0..200).for_each(|slot| block.set_cost(slot, 1 + u32::from(slot % 3 == 0)));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                let (loads, block) = (&loads, &block);
                scope.spawn(move || begin_and_end(loads, block, seed))
            })
            .collect();
        // Costs change meanwhile, as a new table does it.
        let costs = scope.spawn(|| {
            let mut random = Random(77);
            while !done.load(Ordering::Relaxed) {
                block.set_cost(random.below(200), [0, 1, 2, 3][random.below(4)]);
            }
        });
        let held: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        costs.join().unwrap();
        let held: usize = held.into_iter().map(Result::unwrap).sum();
        let counted: u32 = loads.iter().map(Load::read).sum();
        assert_eq!(counted as usize, held, "the sum of the loads");
    });
    assert_bounds_hold(&block);
    (0..200).for_each(|slot| block.set_cost(slot, 1));
    let least = block.least(0..BLOCK, NEVER, |_| true);
    assert_eq!(least.map(|(_, key)| key), Some(least_of_all(&block)));
}
