//! The value that most servers have, where evenkeel has one for all servers of a backend.

use std::collections::HashMap;
use std::hash::Hash;

use super::report::Place;

/// The value that is there most often; of several, the first.
pub(super) fn most_common<T: Copy + Eq + Hash>(values: &[(T, Place)]) -> Option<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for (value, _) in values {
        *counts.entry(*value).or_default() += 1;
    }
    let mut best: Option<(usize, T)> = None;
    for (value, _) in values {
        let count = counts.get(value).copied().unwrap_or_default();
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, *value));
        }
    }
    best.map(|(_, value)| value)
}
