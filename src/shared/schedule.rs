//! The rotation over the servers of a backend.

use std::sync::Arc;

use crate::shared::server::Server;

/// The servers that may be picked, and a rotation over them in which each has its share by weight,
/// spread evenly. Empty when none may be picked.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Each that may be picked, once.
    pub servers: Vec<Arc<Server>>,
    /// Indices into `servers`.
    pub rotation: Vec<u16>,
}

/// A server to be scheduled, with its weight (0: not scheduled).
pub type Share = (Arc<Server>, u32);

impl Schedule {
    /// The longest rotation: 128 KiB. Weights whose rotation would be longer are scaled down,
    /// which changes shares by less than a thousandth.
    pub const ROTATION_MAX: u64 = 65_536;

    /// Spreads the shares evenly: the k-th turn of a server of weight w stands at (2k + 1) / 2w
    /// of the way round, ties in the order given. With equal weights that is plain round robin.
    #[must_use]
    pub fn new(shares: Vec<Share>) -> Self {
        let shares: Vec<Share> = shares.into_iter().filter(|(_, weight)| *weight > 0).collect();
        let weights = reduce(shares.iter().map(|(_, weight)| *weight).collect());
        let mut turns: Vec<(u64, u16)> = Vec::new();
        for (index, weight) in weights.iter().enumerate() {
            let Ok(index) = u16::try_from(index) else { break };
            for k in 0..u64::from(*weight) {
                // A fixed-point fraction of the way round: 40 bits are finer than any two turns.
                turns.push((((2 * k + 1) << 40) / (2 * u64::from(*weight)), index));
            }
        }
        turns.sort_unstable();
        Self {
            servers: shares.into_iter().map(|(server, _)| server).collect(),
            rotation: turns.into_iter().map(|(_, index)| index).collect(),
        }
    }

    /// Whether no server may be picked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }
}

/// The smallest whole weights with (nearly) the same shares.
fn reduce(mut weights: Vec<u32>) -> Vec<u32> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let divisor = weights.iter().copied().reduce(greatest_common_divisor).unwrap_or(1);
    let reduced = total / u64::from(divisor.max(1));
    for weight in &mut weights {
        if reduced > Schedule::ROTATION_MAX {
            let scaled = u64::from(*weight) * Schedule::ROTATION_MAX / total;
            *weight = u32::try_from(scaled).unwrap_or(u32::MAX).max(1);
        } else {
            *weight /= divisor.max(1);
        }
    }
    weights
}

const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
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
    use crate::shared::counters::PerWorker;
    use crate::shared::limit::Limit;
    use crate::shared::server::ServerShared;
    use crate::terms::ServerId;

    fn server(id: u32) -> Arc<Server> {
        let shared = ServerShared {
            id: ServerId(id),
            backend: Arc::from("b"),
            name: Arc::from(format!("s{id}")),
            sessions: Limit::new(None),
            cells: PerWorker::new(1),
        };
        Arc::new(Server::new(SocketAddr::from(([127, 0, 0, 1], 1)), Arc::new(shared)))
    }

    fn rotation(weights: &[u32]) -> Vec<u16> {
        let shares = (0..).zip(weights).map(|(id, weight)| (server(id), *weight)).collect();
        Schedule::new(shares).rotation
    }

    #[test]
    fn equal_weights_take_plain_turns() {
        assert_eq!(rotation(&[100, 100, 100]), [0, 1, 2]);
    }

    #[test]
    fn a_heavier_server_is_spread_not_bunched() {
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
}
