//! From turns to figures: ratios and own cost, computed inside each round, then medians.

use std::io;

use serde::Serialize;

use crate::complain;
use crate::cpu::Used;
use crate::histogram::Quantiles;
use crate::machine::Machine;
use crate::subject::Subject;

/// One subject doing one kind of work once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Exchanges in the window.
    pub(crate) exchanges: f64,
    /// What the core was used for meanwhile.
    pub(crate) used: Used,
    /// Segments of TCP meanwhile, if all hops of an exchange are of this network namespace.
    pub(crate) segments: Option<u64>,
}

impl Turn {
    /// Exchanges a second of the core that was ours to use.
    fn rate(&self) -> f64 {
        self.exchanges / self.used.ours_and_idle
    }

    /// Segments an exchange.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn segments(&self) -> Option<f64> {
        self.segments.map(|segments| segments as f64 / self.exchanges)
    }
}

/// All turns of one kind of work: `rounds[r][s]` is subject `s` in round `r`.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) work: String,
    pub(crate) title: String,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rounds: Vec<Vec<Turn>>,
}

/// Latencies of one subject, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LatencyTurn {
    pub(crate) quantiles: Quantiles,
    /// Exchanges a second of wall time.
    pub(crate) rate: f64,
    /// Bulk exchanges a second beside them.
    pub(crate) bulk: Option<f64>,
}

/// As `Turns`.
#[derive(Debug)]
pub(crate) struct LatencyTurns {
    pub(crate) work: String,
    pub(crate) title: String,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rounds: Vec<Vec<LatencyTurn>>,
}

/// What a run gives: the JSON file, and what the table is made from.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// The commit of `evenkeel-before`, if it is among the subjects.
    pub(crate) before: Option<String>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) latencies: Vec<LatencyRow>,
    pub(crate) idle: Vec<IdleRow>,
    pub(crate) growth: Vec<GrowthRow>,
    pub(crate) targets: Vec<Target>,
    /// What was not measured, and why.
    pub(crate) left_out: Vec<String>,
}

/// One subject and one kind of work. Costs are microseconds an exchange.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) title: String,
    pub(crate) subject: &'static str,
    /// Exchanges a second of (our CPU + idle).
    pub(crate) rate: Spread,
    /// Times plain HAProxy of the same round.
    pub(crate) ratio: Option<Spread>,
    /// `1/T - 1/T_direct` of the same round.
    pub(crate) cost: Option<Spread>,
    /// Times plain HAProxy's.
    pub(crate) cost_ratio: Option<Spread>,
    /// Segments of TCP an exchange, on all hops, acknowledgements among them.
    pub(crate) segments: Option<Spread>,
    /// Share of the core that others had.
    pub(crate) others: Spread,
    /// CPU time on other cores, as a share of this one: paid for in the rate, and should be 0.
    pub(crate) elsewhere: Spread,
    /// Share of the core that nobody used: work was waiting for something else.
    pub(crate) unused: Spread,
    /// The rate of each round.
    pub(crate) by_round: Vec<f64>,
}

/// One subject's latencies in one kind of work, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyRow {
    pub(crate) work: String,
    pub(crate) title: String,
    pub(crate) subject: &'static str,
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
    pub(crate) p999: Spread,
    pub(crate) max: Spread,
    /// Exchanges a second.
    pub(crate) rate: Spread,
    /// Bulk exchanges a second beside them.
    pub(crate) bulk: Option<Spread>,
    /// p50, p99 and p99.9 of each round.
    pub(crate) by_round: Vec<[f64; 3]>,
}

/// Memory of one subject. Bytes.
#[derive(Debug, Serialize)]
pub(crate) struct IdleRow {
    pub(crate) subject: &'static str,
    /// The two counts that slopes are between.
    pub(crate) sessions: [usize; 2],
    /// User memory without sessions.
    pub(crate) at_start: Spread,
    /// User memory a session, the slope.
    pub(crate) session: Spread,
    /// User memory above that at the start, a session, with the larger count.
    pub(crate) with_most: Spread,
    /// Kernel memory of a session's two sockets: what is more than without a balancer.
    pub(crate) kernel: Option<f64>,
}

/// A figure that should not grow, or be small.
#[derive(Debug, Serialize)]
pub(crate) struct GrowthRow {
    pub(crate) what: String,
    pub(crate) subject: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: Spread,
}

/// What `--check` demands.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(crate) work: String,
    /// What is compared, with its unit.
    pub(crate) what: String,
    pub(crate) reached: f64,
    pub(crate) demanded: f64,
    /// `demanded` is the most; otherwise the least.
    pub(crate) at_most: bool,
    pub(crate) met: bool,
}

impl Target {
    pub(crate) fn at_most(work: &str, what: &str, reached: f64, demanded: f64) -> Self {
        let (work, what) = (work.to_owned(), what.to_owned());
        Self { work, what, reached, demanded, at_most: true, met: reached <= demanded }
    }

    pub(crate) fn at_least(work: &str, what: &str, reached: f64, demanded: f64) -> Self {
        let (work, what) = (work.to_owned(), what.to_owned());
        Self { work, what, reached, demanded, at_most: false, met: reached >= demanded }
    }
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

impl Report {
    /// Something is not measured; says so at once and at the end.
    pub(crate) fn leave_out(&mut self, why: String) {
        if !self.left_out.contains(&why) {
            complain(&format!("left out: {why}"));
            self.left_out.push(why);
        }
    }

    /// Those that can be run here; the others are left out, with the reason.
    pub(crate) fn present(&mut self, subjects: &[Subject]) -> Vec<Subject> {
        let mut present = subjects.to_vec();
        present.retain(|subject| match subject.missing() {
            Some(why) => {
                self.leave_out(why.to_owned());
                false
            }
            None => true,
        });
        present
    }

    /// Leaves out a subject that failed.
    ///
    /// # Errors
    /// It is one that must not.
    pub(crate) fn forgive(
        &mut self,
        work: &str,
        subject: Subject,
        error: &io::Error,
    ) -> io::Result<()> {
        let why = format!("{work}, {}: {error}", subject.name());
        if subject.must_not_fail() {
            return Err(io::Error::other(why));
        }
        self.leave_out(why);
        Ok(())
    }

    /// The rows of one kind of work, and evenkeel's target in it, if there is one.
    ///
    /// # Errors
    /// There was no round.
    pub(crate) fn add(&mut self, turns: &Turns, demanded: Option<f64>) -> io::Result<()> {
        let rows = rows(turns)?;
        let own = rows.iter().find(|row| row.subject == Subject::Evenkeel.name());
        let reached = own.and_then(|row| row.ratio).map(|ratio| ratio.median);
        if let Some((reached, demanded)) = reached.zip(demanded) {
            self.targets.push(Target::at_least(&turns.work, "x HAProxy", reached, demanded));
        }
        self.rows.extend(rows);
        Ok(())
    }

    /// The rows of latencies.
    pub(crate) fn add_latencies(&mut self, turns: &LatencyTurns) {
        for (index, subject) in turns.subjects.iter().enumerate() {
            let over = |figure: &dyn Fn(&LatencyTurn) -> f64| {
                Spread::of(turns.rounds.iter().map(|round| figure(&round[index])).collect())
            };
            let quantiles = (
                over(&|turn| turn.quantiles.p50),
                over(&|turn| turn.quantiles.p99),
                over(&|turn| turn.quantiles.p999),
                over(&|turn| turn.quantiles.max),
                over(&|turn| turn.rate),
            );
            let (Some(p50), Some(p99), Some(p999), Some(max), Some(rate)) = quantiles else {
                continue; // no rounds
            };
            let bulk = turns.rounds.iter().filter_map(|round| round[index].bulk).collect();
            let by_round = turns.rounds.iter().map(|round| {
                let Quantiles { p50, p99, p999, .. } = round[index].quantiles;
                [p50, p99, p999]
            });
            self.latencies.push(LatencyRow {
                work: turns.work.clone(),
                title: turns.title.clone(),
                subject: subject.name(),
                p50,
                p99,
                p999,
                max,
                rate,
                bulk: Spread::of(bulk),
                by_round: by_round.collect(),
            });
        }
    }
}

fn rows(turns: &Turns) -> io::Result<Vec<Row>> {
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
            work: turns.work.clone(),
            title: turns.title.clone(),
            subject: subject.name(),
            rate: spread(&Turn::rate)?,
            ratio: over_rounds(&|round| Some(round[index].rate() / round[base?].rate())),
            cost: over_rounds(&|round| cost_of(round, index)),
            cost_ratio: over_rounds(&|round| {
                let (own, base) = (cost_of(round, index)?, cost_of(round, base?)?);
                (base > 0.0).then(|| own / base)
            }),
            segments: over_rounds(&|round| round[index].segments()),
            others: spread(&|turn| turn.used.others)?,
            elsewhere: spread(&|turn| turn.used.elsewhere)?,
            unused: spread(&|turn| turn.used.idle)?,
            by_round: turns.rounds.iter().map(|round| round[index].rate()).collect(),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(exchanges: f64) -> Turn {
        Turn {
            exchanges,
            used: Used { ours_and_idle: 1.0, others: 0.0, elsewhere: 0.0, idle: 0.0 },
            segments: None,
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
            work: "keepalive".to_owned(),
            title: "keep-alive".to_owned(),
            subjects: vec![Subject::Direct, Subject::Evenkeel, Subject::Haproxy],
            // The second round on a machine of half the speed: the ratio must not notice.
            rounds: vec![
                vec![turn(1e6), turn(5e5), turn(2.5e5)],
                vec![turn(5e5), turn(2.5e5), turn(1.25e5)],
            ],
        };
        let rows = rows(&turns).unwrap();
        let ratio = rows[1].ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.0));
        let cost = rows[1].cost.unwrap();
        assert!((cost.min - 1.0).abs() < 1e-9 && (cost.max - 2.0).abs() < 1e-9);
        assert!((rows[1].cost_ratio.unwrap().median - 1.0 / 3.0).abs() < 1e-9);
        assert!(rows[0].cost.is_none());
    }
}
