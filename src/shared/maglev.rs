//! The lookup table of balance = "source": Maglev hashing (Eisenbud and others, "Maglev: A Fast and
//! Reliable Software Network Load Balancer", 2016, section 3.4), with weights.

use std::net::IpAddr;

use crate::shared::server::Endpoint;

/// Entries; a prime number, about a hundred for each of 655 endpoints.
pub const ENTRIES: usize = 65_537;

/// Which endpoint has each entry, by index. Each gets entries in proportion to its weight, and
/// keeps nearly all of them when another one comes or goes. Empty if no endpoint has a weight.
#[must_use]
pub fn table<'a>(endpoints: impl Iterator<Item = (&'a Endpoint, u64)>) -> Vec<u16> {
    let mut hopefuls: Vec<Permutation> =
        endpoints.map(|(endpoint, weight)| Permutation::new(endpoint, weight)).collect();
    let Some(heaviest) = hopefuls.iter().map(|one| one.weight).max().filter(|max| *max > 0) else {
        return Vec::new();
    };
    let mut table = vec![NOBODY; ENTRIES];
    let mut left = ENTRIES;
    loop {
        for (index, one) in (0..NOBODY).zip(&mut hopefuls) {
            // The heaviest one takes an entry in each round, the others in their share of rounds.
            one.credit += one.weight;
            if one.credit < heaviest {
                continue;
            }
            one.credit -= heaviest;
            let entry = one.next_of(&table);
            table[entry] = index;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
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

/// The order in which an endpoint wants the entries.
struct Permutation {
    next: usize,
    step: usize,
    weight: u64,
    /// What it has gathered for its next entry.
    credit: u64,
}

impl Permutation {
    fn new(endpoint: &Endpoint, weight: u64) -> Self {
        let hash = hash(&endpoint.shared.name, &endpoint.address.to_string());
        let step = 1 + below(mix(hash), ENTRIES - 1);
        Self { next: below(hash, ENTRIES), step, weight, credit: 0 }
    }

    /// The next entry of its order that nobody has.
    fn next_of(&mut self, table: &[u16]) -> usize {
        loop {
            let entry = self.next;
            self.next = (self.next + self.step) % ENTRIES;
            if table[entry] == NOBODY {
                return entry;
            }
        }
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
    use crate::shared::counters::PerWorker;
    use crate::shared::limit::Limit;
    use crate::shared::load::Loads;
    use crate::shared::queue::Queue;
    use crate::shared::server::ServerShared;
    use crate::terms::{EndpointId, ServerId};

    fn endpoints(count: u8) -> Vec<Endpoint> {
        let mut loads = Loads::default();
        let endpoint = |n: u8| {
            let id = ServerId(n.into());
            let shared = ServerShared {
                id,
                backend: Arc::from("b"),
                name: format!("s{n}").into(),
                sessions: Limit::new(None),
                cells: PerWorker::new(1),
                queue: Arc::new(Queue::new(1, 0)),
            };
            let address = std::net::SocketAddr::from(([192, 0, 2, n], 80));
            let id = EndpointId { server: id, number: n.into() };
            Endpoint::new(id, address, Arc::new(shared), loads.take())
        };
        (0..count).map(endpoint).collect()
    }

    fn of(endpoints: &[Endpoint], weight: impl Fn(usize) -> u64) -> Vec<u16> {
        table(endpoints.iter().enumerate().map(|(index, one)| (one, weight(index))))
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
        // With 100 servers it is 1.55 / n: the last entries of a table are taken from a rest.
        for count in [2, 3, 10, 50] {
            let endpoints = endpoints(count);
            let before = of(&endpoints, |_| 100);
            let after = of(&endpoints[..usize::from(count) - 1], |_| 100);
            let gone = u16::from(count) - 1;
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
            let bound = 1.5 * ENTRIES as f64 / f64::from(count);
            assert!((moved as f64) < bound, "{count} servers: {moved} of {ENTRIES} moved");
            assert!(after.iter().all(|index| *index != gone));
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
