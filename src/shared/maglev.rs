//! The lookup table of balance = "source": consistent hashing with a table and turns as in Maglev
//! (Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", 2016,
//! section 3.4), with weights.
//!
//! In the paper, an endpoint whose entry is taken goes on to its next free one within its turn.
//! The last entries then move whenever another endpoint comes or goes: with 100 equal endpoints,
//! 1.6 times as many clients move as the one that goes had, and with 1,000 endpoints 6.6 times as
//! many. Here it loses the turn, so that an entry is nearly always that of the endpoint which draws
//! it first, whichever others there are. A quota bounds the shares.

use std::net::IpAddr;

use crate::shared::server::Endpoint;

/// Entries, as in the paper: about a hundred for each of 655 endpoints.
pub const ENTRIES: usize = 65_537;

/// An endpoint has at most so many entries more than its share, and at most an eighth more. With
/// fewer, more clients move; with more, the shares differ more.
const EXCESS_MAX: u64 = 8;

/// Which endpoint has each entry, by index. Each gets entries in proportion to its weight, and
/// keeps nearly all of them when another one comes or goes. `turns`: a rotation of the endpoints by
/// these weights; empty if none has a weight, and then the table is.
#[must_use]
pub fn table<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    weights: &[u64],
    mut turns: Vec<u16>,
) -> Vec<u16> {
    let total: u64 = weights.iter().sum();
    let mut owners: Vec<Draws> =
        endpoints.zip(weights).map(|(one, weight)| Draws::new(one, *weight, total)).collect();
    let mut table = vec![NOBODY; ENTRIES];
    let mut left = ENTRIES;
    while !turns.is_empty() {
        for index in &turns {
            let owner = &mut owners[usize::from(*index)];
            if owner.quota == 0 {
                continue;
            }
            let entry = owner.draw();
            if table[entry] != NOBODY {
                continue;
            }
            table[entry] = *index;
            owner.quota -= 1;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
        turns.retain(|index| owners[usize::from(*index)].quota > 0);
    }
    Vec::new()
}

/// The entry of a client.
#[must_use]
pub fn entry_of(client: IpAddr) -> usize {
    let hash = match client.to_canonical() {
        IpAddr::V4(ip) => mix(u64::from(ip.to_bits())),
        IpAddr::V6(ip) => {
            #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
            let [high, low] = [(ip.to_bits() >> 64) as u64, ip.to_bits() as u64];
            mix(mix(high) ^ low)
        }
    };
    below(hash, ENTRIES)
}

/// No endpoint has this entry yet.
const NOBODY: u16 = u16::MAX;

/// The entries that an endpoint draws, one after the other (`SplitMix64`).
struct Draws {
    state: u64,
    /// Entries that it can still get. All quotas together exceed the table.
    quota: u64,
}

impl Draws {
    fn new(endpoint: &Endpoint, weight: u64, total: u64) -> Self {
        let share = ENTRIES as u64 * weight / total.max(1);
        Self {
            state: hash(&endpoint.shared.name, &endpoint.address.to_string()),
            quota: share + 1 + (share / 8).min(EXCESS_MAX),
        }
    }

    fn draw(&mut self) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        below(mix(self.state), ENTRIES)
    }
}

/// The same on every machine and in every version, so that several balancers agree: FNV-1a over
/// both, then mixed.
#[must_use]
pub fn hash(name: &str, address: &str) -> u64 {
    let bytes = name.bytes().chain([0]).chain(address.bytes());
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// Every bit of the result depends on every bit of `x` (the finalizer of `SplitMix64`).
#[must_use]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number below `limit`, by the high bits of `hash` (Lemire's reduction).
#[must_use]
pub const fn below(hash: u64, limit: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "it is below `limit`")]
    let number = ((hash as u128 * limit as u128) >> 64) as usize;
    number
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use super::*;
    use crate::shared::counters::{BackendCells, PerWorker};
    use crate::shared::limit::Limit;
    use crate::shared::load::Loads;
    use crate::shared::queue::Queue;
    use crate::shared::schedule::rotation;
    use crate::shared::server::ServerShared;
    use crate::terms::{EndpointId, ServerId};

    fn endpoints(count: u16) -> Vec<Endpoint> {
        let mut loads = Loads::default();
        let endpoint = |n: u16| {
            let id = ServerId(n.into());
            let shared = ServerShared {
                id,
                backend: Arc::from("b"),
                name: format!("s{n}").into(),
                sessions: Limit::new(None),
                cells: PerWorker::new(1),
                backend_cells: Arc::new(BackendCells::new(1)),
                queue: Arc::new(Queue::new(1, 0)),
            };
            let [high, low] = n.to_be_bytes();
            let address = std::net::SocketAddr::from(([192, 0, 2 + high, low], 80));
            let id = EndpointId { server: id, number: n.into() };
            Endpoint::new(id, address, Arc::new(shared), loads.take())
        };
        (0..count).map(endpoint).collect()
    }

    fn of(endpoints: &[Endpoint], weight: impl Fn(usize) -> u64) -> Vec<u16> {
        let weights: Vec<u64> = (0..endpoints.len()).map(weight).collect();
        table(endpoints.iter(), &weights, rotation(&weights))
    }

    /// How many entries move when the endpoint at `gone` goes, in proportion to its share.
    fn moved(endpoints: &mut Vec<Endpoint>, weight: fn(usize) -> u64, gone: usize) -> f64 {
        let before = of(endpoints, weight);
        let total: u64 = (0..endpoints.len()).map(weight).sum();
        let endpoint = endpoints.remove(gone);
        // Those after it keep their weights and have other indices.
        let old = |index: usize| index + usize::from(index >= gone);
        let after = of(endpoints, |index| weight(old(index)));
        endpoints.insert(gone, endpoint);
        let differ = |(a, b): &(&u16, &u16)| usize::from(**a) != old(usize::from(**b));
        let moved = before.iter().zip(&after).filter(differ).count() as f64;
        moved / (ENTRIES as f64 * weight(gone) as f64 / total as f64)
    }

    #[test]
    fn each_has_entries_in_proportion_to_its_weight() {
        let endpoints = endpoints(10);
        let count = |table: &[u16], index| table.iter().filter(|one| **one == index).count();
        let even = of(&endpoints, |_| 100);
        for index in 0..10 {
            let count = count(&even, index);
            assert!((6_500..6_610).contains(&count), "{index}: {count}");
        }
        let uneven = of(&endpoints, |index| if index == 3 { 300 } else { 100 });
        let share = count(&uneven, 3);
        assert!((16_300..16_500).contains(&share), "3 of 12: {share}");
        assert_eq!(count(&of(&endpoints, |index| index as u64), 0), 0, "a weight of zero");
        assert!(of(&endpoints, |_| 0).is_empty());
    }

    #[test]
    fn few_clients_move_when_a_server_goes() {
        for count in [2, 3, 10, 50, 100, 200, 500, 1000] {
            let mut endpoints = endpoints(count);
            for gone in [0, usize::from(count) / 2, usize::from(count) - 1] {
                let moved = moved(&mut endpoints, |_| 1, gone);
                assert!(moved < 1.4, "{count} servers, without {gone}: {moved} of its share moved");
            }
        }
    }

    #[test]
    fn few_clients_move_when_a_server_goes_whatever_the_weights_are() {
        let weight = |index: usize| 1 + index as u64 % 5;
        for count in [10, 50, 100] {
            let mut endpoints = endpoints(count);
            for gone in 0..5 {
                let moved = moved(&mut endpoints, weight, gone);
                assert!(moved < 1.5, "{count} servers, without {gone}: {moved} of its share moved");
            }
        }
    }

    #[test]
    fn no_server_has_many_more_entries_than_its_share() {
        for (count, most) in [(10, 1.002), (100, 1.015), (1000, 1.14)] {
            let table = of(&endpoints(count), |_| 1);
            let mut counts = vec![0.0; usize::from(count)];
            table.iter().for_each(|index| counts[usize::from(*index)] += 1.0);
            let share = ENTRIES as f64 / f64::from(count);
            let max = counts.iter().copied().fold(0.0, f64::max);
            assert!(max <= most * share, "{count} servers: {max} of {share}");
            let min = counts.iter().copied().fold(f64::MAX, f64::min);
            assert!(min >= 0.6 * share, "{count} servers: {min} of {share}");
        }
    }

    #[test]
    fn clients_spread_over_the_entries() {
        let mut tenths = [0; 10];
        for host in 0..10_000_u32 {
            let client = Ipv4Addr::from_bits(0x0a00_0000 + host);
            tenths[entry_of(client.into()) * 10 / ENTRIES] += 1;
            assert_eq!(entry_of(client.into()), entry_of(client.to_ipv6_mapped().into()));
        }
        assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
        let v6 = |low: u128| entry_of(Ipv6Addr::from_bits(0x2001_0db8 << 96 | low).into());
        assert_ne!(v6(1), v6(2));
        assert_ne!(v6(1), v6(1 << 64 | 1));
    }
}
