//! The endpoints of a backend, arranged so that one can be chosen for a session without a lock.

use std::ops::Range;
use std::sync::Arc;

use crate::config::Balance;
use crate::shared::load::{LoadBlock, NEVER};
use crate::shared::maglev;
use crate::shared::server::Endpoint;

/// The endpoints that can be chosen, arranged for the algorithm of their backend. Empty when none
/// can be chosen.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Each that can be chosen, once, in the order of the file. For leastconn in a large backend:
    /// in the order of their places in memory.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Indices into `endpoints`: a rotation in which each has its share by weight, spread evenly;
    /// for balance = "source", the table of [`maglev`].
    pub rotation: Vec<u16>,
    /// For each of `endpoints`: where its load is, and its cost.
    loads: Vec<WeightedLoad>,
    /// The blocks of these loads.
    blocks: Vec<Arc<LoadBlock>>,
    /// For each slot of each block: the index of its endpoint, or [`NOBODY`]. Empty if all loads
    /// are read for each session, because they are few or the algorithm is another one.
    indices: Vec<Box<[u16]>>,
}

/// Where the load of an endpoint is, and its cost.
#[derive(Debug, Clone, Copy)]
struct WeightedLoad {
    /// What a session adds to the key that is compared: inversely proportional to the weight.
    cost: u32,
    /// Index into [`Schedule::blocks`].
    block: u16,
    slot: u16,
}

/// No endpoint of this schedule is in the slot.
const NOBODY: u16 = u16::MAX;

/// The endpoints of a server that can be chosen, and the weight of the server (0: not scheduled),
/// which they share evenly.
pub type Share = (Vec<Arc<Endpoint>>, u32);

/// Bounds what weights are multiplied by so that they divide evenly: a common multiple of the
/// numbers of endpoints up to it is exact, one above is off by less than a millionth.
const SCALE_MAX: u64 = 1 << 20;

/// From so many endpoints on, leastconn searches the tree of [`LoadBlock`] instead of reading each
/// load, which takes 1.5 ns for each endpoint.
const LARGE: usize = 64;

/// Steps of a walk for each endpoint. An endpoint that none of them reached is offered at the end:
/// a rotation has up to 65,536 turns, and a backend that is full must be found full soon.
const STEPS: usize = 2;

impl Schedule {
    /// The longest rotation: 128 KiB. Weights whose rotation would be longer are scaled down,
    /// which changes shares by less than a thousandth.
    pub const ROTATION_MAX: u64 = 65_536;

    /// Arranges the endpoints of servers for `balance`. A rotation spreads the shares evenly: the
    /// k-th turn of an endpoint of weight w is at (2k + 1) / 2w of the rotation, ties in the order
    /// given. With equal weights that is plain round robin.
    #[must_use]
    pub fn new(balance: Balance, shares: Vec<Share>) -> Self {
        let shares: Vec<Share> = shares.into_iter().filter(|(_, weight)| *weight > 0).collect();
        let counts = shares.iter().map(|(endpoints, _)| (endpoints.len() as u64).max(1));
        let scale = counts.fold(1, |scale, count| {
            (scale / greatest_common_divisor(scale, count) * count).min(SCALE_MAX)
        });
        let weights = shares.iter().flat_map(|(endpoints, weight)| {
            let weight = u64::from(*weight) * scale / (endpoints.len() as u64).max(1);
            endpoints.iter().map(move |_| weight)
        });
        let mut weights = reduce(weights.collect());
        let mut endpoints: Vec<_> =
            shares.into_iter().flat_map(|(endpoints, _)| endpoints).collect();
        let is_large = balance == Balance::LeastConn && endpoints.len() >= LARGE;
        if is_large {
            (endpoints, weights) = in_order_of_slots(endpoints, weights);
        }
        let mut rotation = rotation(&weights);
        if balance == Balance::Source {
            rotation = maglev::table(endpoints.iter().map(|one| &**one), &weights, rotation);
        }
        let blocks = blocks_of(&endpoints);
        let loads = endpoints.iter().zip(costs(&weights)).map(|(endpoint, cost)| {
            let (block, slot) = endpoint.load.place();
            let place = blocks.iter().position(|known| Arc::ptr_eq(known, block));
            let block = place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX);
            WeightedLoad { cost, block, slot }
        });
        let loads = loads.collect();
        let mut schedule = Self { endpoints, rotation, loads, blocks, indices: Vec::new() };
        if is_large {
            schedule.arrange();
        }
        schedule
    }

    /// Gives the loads their costs, so that the trees can be searched. From now on, a table before
    /// this one chooses by these costs as well.
    fn arrange(&mut self) {
        let unused = |block: &Arc<LoadBlock>| vec![NOBODY; block.capacity()].into_boxed_slice();
        self.indices = self.blocks.iter().map(unused).collect();
        for (index, load) in (0..NOBODY).zip(&self.loads) {
            self.indices[usize::from(load.block)][usize::from(load.slot)] = index;
        }
        for (block, indices) in self.blocks.iter().zip(&self.indices) {
            for (slot, index) in indices.iter().enumerate() {
                let load = self.loads.get(usize::from(*index));
                block.set_cost(slot, load.map_or(0, |load| load.cost));
            }
        }
    }

    /// The endpoint with the fewest sessions in proportion to its weight among those that may be
    /// chosen, by index. The first one from `start` on wins a tie.
    #[must_use]
    pub fn least_loaded(&self, start: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
        if !self.indices.is_empty() {
            return self.search(start, may);
        }
        let (before, from) = (0..start, start..self.loads.len());
        let (mut least, mut found) = (NEVER, None);
        for index in from.chain(before) {
            let key = self.key(index);
            if key < least && may(index) {
                (least, found) = (key, Some(index));
            }
        }
        found
    }

    /// As [`Schedule::least_loaded`], by the trees.
    fn search(&self, start: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
        let WeightedLoad { block: first, slot, .. } = self.loads[start];
        let (first, slot) = (usize::from(first), usize::from(slot));
        // The usual case while many are equal.
        let key = self.blocks[first].key(slot);
        if key < NEVER && self.blocks.iter().all(|block| key <= block.root()) && may(start) {
            return Some(start);
        }
        let (mut least, mut found) = (NEVER, None);
        let mut look = |block: usize, slots: Range<usize>| {
            let indices = &self.indices[block];
            let may = |slot: usize| indices[slot] != NOBODY && may(usize::from(indices[slot]));
            if let Some((slot, key)) = self.blocks[block].least(slots, least, may) {
                (least, found) = (key, Some(usize::from(indices[slot])));
            }
        };
        look(first, slot..self.blocks[first].capacity());
        for block in (first + 1..self.blocks.len()).chain(0..first) {
            look(block, 0..self.blocks[block].capacity());
        }
        look(first, 0..slot);
        for block in self.blocks.iter().filter(|block| block.root() < least) {
            block.raise_bounds(least);
        }
        found
    }

    /// The one of two endpoints with fewer sessions in proportion to its weight, then the other.
    #[must_use]
    pub fn lighter_first(&self, [a, b]: [usize; 2]) -> [usize; 2] {
        if self.key(b) < self.key(a) { [b, a] } else { [a, b] }
    }

    /// The endpoints from the turn or entry at `position` on: if one is full or has just failed,
    /// the next in the rotation takes its turn, so that the weights of the others hold. Not to be
    /// called if the schedule is empty.
    pub fn walk(&self, position: usize) -> impl Iterator<Item = &Arc<Endpoint>> {
        let Self { endpoints, rotation, .. } = self;
        let (before, from) = rotation.split_at(position % rotation.len());
        let steps = STEPS * endpoints.len();
        let walk = from.iter().chain(before).take(steps);
        let rest = if rotation.len() > steps { &endpoints[..] } else { &[] };
        walk.map(|index| &endpoints[usize::from(*index)]).chain(rest)
    }

    /// A number that is proportional to the sessions of an endpoint by its weight.
    #[must_use]
    pub fn key(&self, index: usize) -> u64 {
        let WeightedLoad { cost, block, slot } = self.loads[index];
        u64::from(self.blocks[usize::from(block)].read(slot)) * u64::from(cost)
    }

    /// Whether no endpoint can be chosen.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }
}

/// The blocks of the loads of these endpoints.
fn blocks_of(endpoints: &[Arc<Endpoint>]) -> Vec<Arc<LoadBlock>> {
    let mut blocks: Vec<Arc<LoadBlock>> = Vec::new();
    for endpoint in endpoints {
        let (block, _) = endpoint.load.place();
        if !blocks.iter().any(|known| Arc::ptr_eq(known, block)) {
            blocks.push(Arc::clone(block));
        }
    }
    blocks
}

/// Sorts endpoints and their weights by the places of their loads, so that ties take turns in the
/// order of a search.
fn in_order_of_slots(
    endpoints: Vec<Arc<Endpoint>>,
    weights: Vec<u64>,
) -> (Vec<Arc<Endpoint>>, Vec<u64>) {
    let blocks = blocks_of(&endpoints);
    let mut both: Vec<_> = endpoints.into_iter().zip(weights).collect();
    both.sort_by_cached_key(|(endpoint, _)| {
        let (block, slot) = endpoint.load.place();
        (blocks.iter().position(|known| Arc::ptr_eq(known, block)), slot)
    });
    both.into_iter().unzip()
}

/// What one session of each endpoint costs: inversely proportional to the weights. Exact if they
/// have a common multiple below 2^32 times the lowest; otherwise off by less than a part in 65,000.
fn costs(weights: &[u64]) -> Vec<u32> {
    let limit = u64::from(u32::MAX) * weights.iter().copied().min().unwrap_or(1);
    let multiple = |common: u64, weight: &u64| {
        (common / greatest_common_divisor(common, *weight)).checked_mul(*weight)
    };
    let common = weights.iter().try_fold(1, multiple).map_or(limit, |common| common.min(limit));
    weights
        .iter()
        .map(|weight| u32::try_from(common / weight.max(&1)).unwrap_or(u32::MAX))
        .collect()
}

/// The turns of each endpoint, spread evenly.
pub(super) fn rotation(weights: &[u64]) -> Vec<u16> {
    let mut turns: Vec<(u64, u16)> = Vec::new();
    for (index, weight) in weights.iter().enumerate() {
        let Ok(index) = u16::try_from(index) else { break };
        for k in 0..*weight {
            // A fixed-point fraction of the rotation: 40 bits are finer than any two turns.
            turns.push((((2 * k + 1) << 40) / (2 * weight), index));
        }
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, index)| index).collect()
}

/// The smallest whole weights with (nearly) the same shares.
fn reduce(mut weights: Vec<u64>) -> Vec<u64> {
    let total: u64 = weights.iter().sum();
    let divisor = weights.iter().copied().reduce(greatest_common_divisor).unwrap_or(1).max(1);
    let scaled_down = total / divisor > Schedule::ROTATION_MAX;
    for weight in &mut weights {
        *weight = if scaled_down {
            (*weight * Schedule::ROTATION_MAX / total).max(1)
        } else {
            *weight / divisor
        };
    }
    weights
}

const fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::shared::counters::{BackendCells, PerWorker};
    use crate::shared::limit::Limit;
    use crate::shared::load::Loads;
    use crate::shared::queue::Queue;
    use crate::shared::server::ServerShared;
    use crate::terms::{EndpointId, ServerId};

    fn endpoints(server: u32, count: u32) -> Vec<Arc<Endpoint>> {
        let server = ServerId(server);
        let shared = Arc::new(ServerShared {
            id: server,
            backend: Arc::from("b"),
            name: Arc::from("s"),
            sessions: Limit::new(None),
            cells: PerWorker::new(1),
            backend_cells: Arc::new(BackendCells::new(1)),
            queue: Arc::new(Queue::new(1, 0)),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let load = || Loads::default().take();
        let endpoint =
            |number| Endpoint::new(EndpointId { server, number }, address, shared.clone(), load());
        (0..count).map(|number| Arc::new(endpoint(number))).collect()
    }

    /// By weights of servers, each with so many endpoints.
    fn rotation_of(servers: &[(u32, u32)]) -> Vec<u16> {
        let share = |(id, (weight, count)): (u32, &(u32, u32))| (endpoints(id, *count), *weight);
        let shares = (0..).zip(servers).map(share).collect();
        Schedule::new(Balance::RoundRobin, shares).rotation
    }

    fn rotation(weights: &[u32]) -> Vec<u16> {
        rotation_of(&weights.iter().map(|weight| (*weight, 1)).collect::<Vec<_>>())
    }

    #[test]
    fn equal_weights_are_plain_round_robin() {
        assert_eq!(rotation(&[100, 100, 100]), [0, 1, 2]);
    }

    #[test]
    fn the_turns_of_a_heavier_server_are_spread() {
        assert_eq!(rotation(&[200, 100]), [0, 1, 0]);
        assert_eq!(rotation(&[500, 100, 100]), [0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn a_weight_of_zero_gets_no_turn() {
        assert_eq!(rotation(&[0, 100]), [0]);
        assert_eq!(rotation(&[0, 0]), [0u16; 0]);
    }

    #[test]
    fn a_rotation_stays_below_its_limit() {
        let weights: Vec<u32> = (0..1000).map(|n| 1 + n % 1000).collect();
        let rotation = rotation(&weights);
        assert!(rotation.len() as u64 <= Schedule::ROTATION_MAX + 1000);
        let last = rotation.iter().filter(|index| **index == 999).count();
        let first = rotation.iter().filter(|index| **index == 99).count();
        assert!((9..=11).contains(&(last / first)), "{last} to {first}");
    }

    #[test]
    fn endpoints_share_the_weight_of_their_server_evenly() {
        assert_eq!(rotation_of(&[(100, 2), (100, 1)]), [2, 0, 1, 2]);
        assert_eq!(rotation_of(&[(100, 3)]), [0, 1, 2]);
        let rotation = rotation_of(&[(100, 3), (200, 2), (100, 1)]);
        let turns = |index: u16| rotation.iter().filter(|one| **one == index).count();
        assert_eq!((rotation.len(), [0, 1, 2, 3, 4, 5].map(turns)), (12, [1, 1, 1, 3, 3, 3]));
    }

    #[test]
    fn endpoints_of_many_servers_have_their_share_within_a_thousandth() {
        let servers: Vec<(u32, u32)> = (1..=64).map(|count| (100, count)).collect();
        let rotation = rotation_of(&servers);
        assert!(rotation.len() as u64 <= Schedule::ROTATION_MAX + 2080);
        let of_last = rotation.iter().filter(|index| **index >= 2016).count();
        assert!((1000..=1088).contains(&of_last), "{of_last} of {}", rotation.len());
    }
}
