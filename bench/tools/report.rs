//! From turns to figures: ratios and own cost, computed inside each round, then medians.

use std::io;

use serde::Serialize;

use crate::cpu::Used;
use crate::idle::Memory;
use crate::machine::Machine;
use crate::subject::Subject;
use crate::work::Kind;

/// One subject doing one kind of work once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Exchanges in the window.
    pub(crate) exchanges: f64,
    /// What the core was used for meanwhile.
    pub(crate) used: Used,
}

impl Turn {
    /// Exchanges a second of the core that was ours to use.
    fn rate(&self) -> f64 {
        self.exchanges / self.used.ours_and_idle
    }
}

/// All turns of one kind of work: `rounds[r][s]` is subject `s` in round `r`.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) kind: Kind,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rounds: Vec<Vec<Turn>>,
}

/// What a run gives: the JSON file, and what the table is made from.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) idle: Vec<IdleRow>,
    pub(crate) targets: Vec<Target>,
}

/// One subject and one kind of work. Costs are microseconds an exchange.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) work: &'static str,
    pub(crate) title: &'static str,
    pub(crate) subject: &'static str,
    /// Exchanges a second of (our CPU + idle).
    pub(crate) rate: Spread,
    /// Times plain HAProxy of the same round.
    pub(crate) ratio: Option<Spread>,
    /// `1/T - 1/T_direct` of the same round.
    pub(crate) cost: Option<Spread>,
    /// Times plain HAProxy's.
    pub(crate) cost_ratio: Option<Spread>,
    /// Share of the core that others had.
    pub(crate) others: Spread,
    /// CPU time on other cores, as a share of this one: paid for in the rate, and should be 0.
    pub(crate) elsewhere: Spread,
    /// Share of the core that nobody used: work was waiting for something else.
    pub(crate) unused: Spread,
}

/// Memory of one subject. Bytes of user memory.
#[derive(Debug, Serialize)]
pub(crate) struct IdleRow {
    pub(crate) subject: &'static str,
    /// The two counts that the slope is between.
    pub(crate) sessions: [usize; 2],
    pub(crate) at_start: Spread,
    pub(crate) session: Spread,
}

/// What `--check` demands.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) work: &'static str,
    pub(crate) demanded: f64,
    pub(crate) reached: f64,
    pub(crate) met: bool,
}

/// Median and extremes over the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values; none of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// The rows of one kind of work, and evenkeel's target in it.
///
/// # Errors
/// There was no round.
pub(crate) fn rows(turns: &Turns) -> io::Result<(Vec<Row>, Option<Target>)> {
    let place = |wanted: Subject| turns.subjects.iter().position(|subject| *subject == wanted);
    let (direct, base) = (place(Subject::Direct), place(Subject::Haproxy));
    let mut rows = Vec::new();
    for (index, subject) in turns.subjects.iter().enumerate() {
        let over_rounds = |figure: &dyn Fn(&[Turn]) -> Option<f64>| {
            Spread::of(turns.rounds.iter().filter_map(|round| figure(round)).collect())
        };
        let cost_of = |round: &[Turn], of: usize| -> Option<f64> {
            let direct = direct.filter(|direct| *direct != of)?;
            Some((round[of].rate().recip() - round[direct].rate().recip()) * 1e6)
        };
        let spread = |figure: &dyn Fn(&Turn) -> f64| {
            over_rounds(&|round| Some(figure(&round[index])))
                .ok_or_else(|| io::Error::other("no round was run"))
        };
        rows.push(Row {
            work: turns.kind.name,
            title: turns.kind.title,
            subject: subject.name(),
            rate: spread(&Turn::rate)?,
            ratio: over_rounds(&|round| Some(round[index].rate() / round[base?].rate())),
            cost: over_rounds(&|round| cost_of(round, index)),
            cost_ratio: over_rounds(&|round| {
                let (own, base) = (cost_of(round, index)?, cost_of(round, base?)?);
                (base > 0.0).then(|| own / base)
            }),
            others: spread(&|turn| turn.used.others)?,
            elsewhere: spread(&|turn| turn.used.elsewhere)?,
            unused: spread(&|turn| turn.used.idle)?,
        });
    }
    let own = rows.iter().find(|row| row.subject == Subject::Evenkeel.name());
    let reached = own.and_then(|row| row.ratio).map(|ratio| ratio.median);
    let target = reached.map(|reached| Target {
        work: turns.kind.name,
        demanded: turns.kind.target,
        reached,
        met: reached >= turns.kind.target,
    });
    Ok((rows, target))
}

/// The row of one subject's idle sessions, and the target if it is evenkeel.
pub(crate) fn idle_row(
    kind: &Kind,
    subject: Subject,
    sessions: [usize; 2],
    seen: &[Memory],
) -> Option<(IdleRow, Option<Target>)> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let at_start = Spread::of(seen.iter().map(|memory| memory.at_start as f64).collect())?;
    let session = Spread::of(seen.iter().map(|memory| memory.session).collect())?;
    let target = (subject == Subject::Evenkeel).then_some(Target {
        work: kind.name,
        demanded: kind.target,
        reached: session.median,
        met: session.median <= kind.target,
    });
    Some((IdleRow { subject: subject.name(), sessions, at_start, session }, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(exchanges: f64) -> Turn {
        Turn {
            exchanges,
            used: Used { ours_and_idle: 1.0, others: 0.0, elsewhere: 0.0, idle: 0.0 },
        }
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_two_middle_ones() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 9.0));
        assert!(Spread::of(Vec::new()).is_none());
    }

    #[test]
    fn ratio_and_cost_are_computed_inside_a_round() {
        let turns = Turns {
            kind: crate::work::KINDS[0],
            subjects: vec![Subject::Direct, Subject::Evenkeel, Subject::Haproxy],
            // The second round on a machine of half the speed: the ratio must not notice.
            rounds: vec![
                vec![turn(1e6), turn(5e5), turn(2.5e5)],
                vec![turn(5e5), turn(2.5e5), turn(1.25e5)],
            ],
        };
        let (rows, target) = rows(&turns).unwrap();
        let ratio = rows[1].ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.0));
        let cost = rows[1].cost.unwrap();
        assert!((cost.min - 1.0).abs() < 1e-9 && (cost.max - 2.0).abs() < 1e-9);
        assert!((rows[1].cost_ratio.unwrap().median - 1.0 / 3.0).abs() < 1e-9);
        assert!(rows[0].cost.is_none());
        assert!(target.unwrap().met);
    }
}
