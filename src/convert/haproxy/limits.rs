//! Limits of a frontend, of which evenkeel has one of each kind: the stricter one of two.

use crate::convert::draft::Entry;
use crate::convert::literal;
use crate::convert::report::{Place, Report};

/// At most that many sessions, or that many new ones in a period.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) key: &'static str,
    pub(super) most: u64,
    /// In ms; none: it is no rate.
    pub(super) period: Option<u64>,
    /// The line that sets it.
    pub(super) place: Place,
}

/// Bounds that allow the same are equal, whatever lines set them.
impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        (self.key, self.most, self.period) == (other.key, other.most, other.period)
    }
}

impl Eq for Bound {}

impl Bound {
    /// As TOML.
    pub(super) fn entry(&self) -> Entry {
        let text = self.text();
        (self.key, if self.period.is_some() { literal::quoted(&text) } else { text })
    }

    fn text(&self) -> String {
        let unit = match self.period {
            None => return self.most.to_string(),
            Some(1000) => "s".to_owned(),
            Some(60_000) => "m".to_owned(),
            Some(3_600_000) => "h".to_owned(),
            Some(period) => literal::duration(period).trim_matches('"').to_owned(),
        };
        format!("{}/{unit}", self.most)
    }

    /// What compares two of one kind: the number of a period that both have.
    fn rate(&self, other: &Self) -> u128 {
        u128::from(self.most) * u128::from(other.period.unwrap_or(1))
    }

    /// Whether it allows no more than the other one: no higher rate, and no larger burst.
    fn implies(&self, other: &Self) -> bool {
        self.rate(other) <= other.rate(self) && self.most <= other.most
    }
}

/// Adds a bound. Of two of one kind, the one with the lower rate stays, and the line of the other
/// one is noted.
pub(super) fn add(bounds: &mut Vec<Bound>, mut new: Bound, report: &Report) {
    let Some(kept) = bounds.iter_mut().find(|bound| bound.key == new.key) else {
        return bounds.push(new);
    };
    if new == *kept {
        return;
    }
    let (rate, before) = (new.rate(kept), kept.rate(&new));
    if rate < before || (rate == before && new.most < kept.most) {
        std::mem::swap(kept, &mut new);
    }
    let (line, text) = (kept.place.line, kept.text());
    if kept.implies(&new) {
        report.near(new.place, format!("the limit of line {line} ({text}) is stricter, and acts"));
    } else {
        let (key, burst) = (new.key, kept.most);
        let reason = format!(
            "evenkeel has one {key}, that of line {line} ({text}): bursts of {burst} are accepted"
        );
        report.urgent(new.place, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(most: u64, period: Option<u64>, line: usize) -> Bound {
        Bound { key: "rate.per_client", most, period, place: Place { file: 0, line } }
    }

    /// The bound that stays of two, and the line that is noted.
    fn together(first: (u64, u64), second: (u64, u64)) -> (String, Vec<(usize, bool)>) {
        let report = Report::new("x", "a\nb\n");
        let mut bounds = Vec::new();
        for (line, (most, period)) in (1..).zip([first, second]) {
            add(&mut bounds, bound(most, Some(period), line), &report);
        }
        let notes = report.notes().into_iter().map(|(_, note)| (note.line, note.is_urgent));
        (bounds[0].text(), notes.collect())
    }

    #[test]
    fn the_lower_rate_stays_and_the_line_of_the_other_one_is_noted() {
        const HOUR: u64 = 3_600_000;
        assert_eq!(together((20, 1000), (20, 1000)), ("20/s".into(), vec![]));
        assert_eq!(together((20, 1000), (30, 1000)), ("20/s".into(), vec![(2, false)]));
        assert_eq!(together((30, HOUR), (20, 10_000)), ("30/h".into(), vec![(2, true)]));
        assert_eq!(together((20, 10_000), (10, HOUR)), ("10/h".into(), vec![(1, false)]));
        assert_eq!(together((20, 10_000), (100, 60_000)), ("100/m".into(), vec![(1, true)]));
        assert_eq!(together((120, 60_000), (20, 10_000)), ("20/10s".into(), vec![(1, false)]));
        assert_eq!(bound(5, None, 1).entry(), ("rate.per_client", "5".to_owned()));
    }
}
