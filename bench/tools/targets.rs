//! What evenkeel must reach, and what must not have become worse since a recorded result.

use crate::report::{Report, Row, median};
use crate::subject::{
    DIRECT, EVENKEEL, EVENKEEL_BATCH, EVENKEEL_OPEN, HAPROXY, HAPROXY_NULL, Subject,
};

/// The most that a row may be worse by and still count as no worse.
const NOISE_MAX: f64 = 0.05;

/// The same for p99 and p99.9, which the worst moments of the machine decide.
const TAIL_NOISE_MAX: f64 = 0.25;

/// The part of a recorded ratio that must be left.
const REST: f64 = 0.8;

/// A demand, and what was reached.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) work: String,
    /// What is compared, with its unit.
    pub(crate) what: String,
    pub(crate) reached: f64,
    pub(crate) demanded: f64,
    /// `demanded` is the most; otherwise the least.
    pub(crate) at_most: bool,
}

impl Target {
    pub(crate) fn is_met(&self) -> bool {
        if self.at_most { self.reached <= self.demanded } else { self.reached >= self.demanded }
    }
}

fn at_most(work: &str, what: impl Into<String>, reached: f64, demanded: f64) -> Target {
    Target { work: work.to_owned(), what: what.into(), reached, demanded, at_most: true }
}

fn at_least(work: &str, what: impl Into<String>, reached: f64, demanded: f64) -> Target {
    Target { work: work.to_owned(), what: what.into(), reached, demanded, at_most: false }
}

/// The targets of everything that was measured. Where a row must be no worse than another, a
/// difference as between `haproxy` and `haproxy-null` counts as none.
pub(crate) fn fastest(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    for (work, rate, cost) in [
        ("keepalive", 1.25, 0.62),
        ("connection", 1.25, 0.62),
        ("bulk", 1.05, 0.95),
        ("upload", 1.05, 0.95),
    ] {
        let reached = rate_to_best(report, work, Subject::is_haproxy);
        targets.extend(reached.map(|(reached, best)| {
            at_least(work, format!("x the rate of the best HAProxy ({best})"), reached, rate)
        }));
        targets.extend(cost_to_haproxy(report, work).map(|(reached, best)| {
            at_most(work, format!("x the own cost of the best HAProxy ({best})"), reached, cost)
        }));
    }
    for work in ["keepalive", "connection"] {
        let without = |name: &str| name == EVENKEEL_OPEN;
        let reached = to_best(report, (work, EVENKEEL, "rate"), without, f64::min);
        targets.extend(reached.map(|(reached, _)| {
            at_least(work, "x the rate without seccomp and Landlock", reached, 0.95)
        }));
    }
    for work in report.works("windowed_p50") {
        for (figure, noise_max) in [
            ("windowed_p50", NOISE_MAX),
            ("windowed_p99", TAIL_NOISE_MAX),
            ("p999", TAIL_NOISE_MAX),
        ] {
            let most = 1.0 + noise(report, work, figure, noise_max);
            for (own, which) in [
                (EVENKEEL, Subject::is_default_peer as fn(&str) -> bool),
                (EVENKEEL_BATCH, Subject::is_batch_peer),
            ] {
                let best = to_best(report, (work, own, figure), which, f64::max);
                targets.extend(best.map(|(reached, best)| {
                    let what = format!("{own}: x the {figure} of the best other ({best})");
                    at_most(work, what, reached, most)
                }));
            }
        }
    }
    targets.extend(memory_to_haproxy(report).map(|reached| {
        at_most("idle", "x HAProxy's user memory of an idle session", reached, 0.25)
    }));
    targets.extend(two(report));
    targets.extend(growth(report));
    targets.extend(control_plane(report));
    targets.extend(neighbours(report));
    for work in report.works("rate") {
        let least = 1.0 - noise(report, work, "rate", NOISE_MAX);
        let best = rate_to_best(report, work, Subject::is_peer);
        targets.extend(best.map(|(reached, best)| {
            at_least(work, format!("x the rate of the fastest peer ({best})"), reached, least)
        }));
    }
    targets
}

/// What must not be a fifth worse, relative to HAProxy, than in the recorded results: those from a
/// processor of the same name or else, as bulk depends on what the processor takes for a copy, the
/// weakest of all.
pub(crate) fn not_worse(report: &Report, mut recorded: Vec<Report>) -> Vec<Target> {
    let is_alike = |other: &Report| other.run.machine.cpu == report.run.machine.cpu;
    if recorded.iter().any(is_alike) {
        recorded.retain(is_alike);
    }
    let to_haproxy = |report: &Report, work: &str, figure: &str| {
        let of = |subject| report.row(work, subject)?.median(figure);
        Some(of(EVENKEEL)? / of(HAPROXY)?)
    };
    let mut targets = Vec::new();
    for Row { work, .. } in report.rows.iter().filter(|row| row.subject == EVENKEEL) {
        let ratio = |report: &Report| report.row(work, EVENKEEL)?.median("ratio");
        let weakest = recorded.iter().filter_map(ratio).min_by(f64::total_cmp);
        targets.extend(ratio(report).zip(weakest).map(|(reached, weakest)| {
            let what = format!("x the rate of HAProxy, recorded {weakest:.2}");
            at_least(work, what, reached, weakest * REST)
        }));
    }
    // Of latencies only the median is repeatable in short turns.
    let latencies = report.works("windowed_p50").into_iter().map(|work| (work, "windowed_p50"));
    for (work, figure) in latencies.chain([("idle", "user")]) {
        let before = recorded.iter().filter_map(|report| to_haproxy(report, work, figure));
        let weakest = before.max_by(f64::total_cmp);
        targets.extend(to_haproxy(report, work, figure).zip(weakest).map(|(reached, weakest)| {
            let what = format!("x the {figure} of HAProxy, recorded {weakest:.2}");
            at_most(work, what, reached, weakest / REST)
        }));
    }
    targets
}

/// The ratio of a figure of one of evenkeel's subjects to that of the subject to which it is the
/// worst, of those that `which` accepts; each ratio is the median over the rounds.
fn to_best<'a>(
    report: &'a Report,
    (work, own, figure): (&str, &str, &str),
    which: fn(&str) -> bool,
    worst: fn(f64, f64) -> f64,
) -> Option<(f64, &'a str)> {
    let own = report.row(work, own)?.rounds(figure);
    let others = report.rows.iter().filter(|row| row.work == work && which(&row.subject));
    let ratios = others.filter_map(|other| {
        let pairs = own.iter().zip(other.rounds(figure));
        Some((median(pairs.map(|(own, other)| own / other))?, other.subject.as_str()))
    });
    #[expect(clippy::float_cmp, reason = "the function returns one of its arguments")]
    ratios.reduce(|one, other| if worst(one.0, other.0) == one.0 { one } else { other })
}

fn rate_to_best<'a>(
    report: &'a Report,
    work: &str,
    which: fn(&str) -> bool,
) -> Option<(f64, &'a str)> {
    to_best(report, (work, EVENKEEL, "rate"), which, f64::min)
}

fn cost_to_haproxy<'a>(report: &'a Report, work: &str) -> Option<(f64, &'a str)> {
    to_best(report, (work, EVENKEEL, "cost"), Subject::is_haproxy, f64::max)
}

/// The difference between `haproxy` and `haproxy-null`, at most this.
fn noise(report: &Report, work: &str, figure: &str, most: f64) -> f64 {
    let rounds = |subject| report.row(work, subject).map(|row| row.rounds(figure));
    let pair = rounds(HAPROXY_NULL).zip(rounds(HAPROXY));
    let ratio =
        pair.and_then(|(null, base)| median(null.iter().zip(base).map(|(null, base)| null / base)));
    ratio.map_or(0.0, |ratio| (ratio - 1.0).abs().min(most))
}

fn memory_to_haproxy(report: &Report) -> Option<f64> {
    let of = |subject| report.row("idle", subject)?.median("user");
    Some(of(EVENKEEL)? / of(HAPROXY)?)
}

/// A second core can bring what it brings without a balancer: the generator and the responders use
/// it too, and two cores share caches and clocks. On a virtual machine that changes within seconds,
/// so it is compared round by round.
fn two(report: &Report) -> Vec<Target> {
    let gain = |subject| {
        let rates = |work| report.row(work, subject).map(|row| row.rounds("rate"));
        let (two, one) = rates("two").zip(rates("one"))?;
        Some(two.iter().zip(one).map(|(two, one)| two / one).collect::<Vec<f64>>())
    };
    let alone = gain(EVENKEEL).and_then(|own| {
        let cores = gain(DIRECT).unwrap_or_else(|| vec![2.0; own.len()]);
        let pairs = own.iter().zip(&cores);
        let reached = median(pairs.map(|(own, cores)| own / (0.95 * cores).min(1.9)))?;
        let (own, cores) = (median(own)?, median(cores)?);
        let what = format!(
            "x what two workers must reach, 1.9 times one worker or 0.95 of what the cores allow \
             ({own:.2} times one, the cores {cores:.2})"
        );
        Some(at_least("two", what, reached, 1.0))
    });
    let peer = rate_to_best(report, "two", |name| name == HAPROXY);
    let peer = peer.map(|(reached, _)| at_least("two", "x the rate of HAProxy", reached, 1.2));
    alone.into_iter().chain(peer).collect()
}

fn growth(report: &Report) -> Vec<Target> {
    let growth = |many: &str, few: &str| {
        let cost = |work| report.row(work, EVENKEEL).map(|row| row.rounds("cost"));
        median(cost(many)?.iter().zip(cost(few)?).map(|(many, few)| many / few))
    };
    let connections = growth("growth-connections-9000", "growth-connections-100");
    let servers = growth("growth-servers-1000", "growth-servers-2");
    let milliseconds = |work: &str| report.row(work, EVENKEEL)?.median("ms");
    let all = [
        (connections, "x the cost with 100 connections, with 9,000", 1.3),
        (servers, "x the cost with 2 servers, with 1,000", 1.2),
        (milliseconds("growth-reload"), "ms a reload", 50.0),
        (milliseconds("growth-reload-slowest"), "ms the slowest exchange beside a reload", 5.0),
    ];
    let reached = all.into_iter().filter_map(|(reached, what, most)| Some((reached?, what, most)));
    reached.map(|(reached, what, most)| at_most("growth", what, reached, most)).collect()
}

/// A probe costs no more than HAProxy's, and a scrape of 1,000 servers does not keep a core busy.
fn control_plane(report: &Report) -> Vec<Target> {
    let probes = report.works("probe").into_iter().filter_map(|work| {
        let most = 1.0 + noise(report, work, "probe", NOISE_MAX);
        let reached = report.row(work, EVENKEEL)?.median("probe_ratio")?;
        Some(at_most(work, "x HAProxy's CPU time of a probe", reached, most))
    });
    let scrape = report.row("scrape-1000", EVENKEEL).and_then(|row| row.median("scrape"));
    let scrape = scrape.map(|ms| at_most("scrape-1000", "ms of CPU time a scrape", ms, 20.0));
    probes.chain(scrape).collect()
}

/// What others do at most doubles the latency of a client.
fn neighbours(report: &Report) -> Vec<Target> {
    let growth = |work| report.row(work, EVENKEEL)?.median("growth").map(|it| (work, it));
    let works = report.works("quiet_p50").into_iter().filter_map(growth);
    works.map(|(work, reached)| at_most(work, "x the windowed p99 alone", reached, 2.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_machine_is_compared_with_its_own_kind_and_an_unknown_one_with_the_weakest() {
        let demanded = |cpu: &str| {
            let with = |cpu, ratio| report(cpu, &[("bulk", "evenkeel", "ratio", &[ratio])]);
            let recorded = vec![with("slow", 4.4), with("fast", 3.5), with("slow", 4.2)];
            not_worse(&with(cpu, 4.0), recorded)[0].demanded / REST
        };
        let [slow, fast, new] = ["slow", "fast", "new"].map(demanded);
        assert!((slow - 4.2).abs() < 1e-9 && (fast - 3.5).abs() < 1e-9 && (new - 3.5).abs() < 1e-9);
    }

    #[test]
    fn latencies_are_compared_with_the_best_other_under_the_same_policy() {
        let rows: [(&str, &str, &'static str, &[f64]); 4] = [
            ("latency-60", "evenkeel", "windowed_p50", &[30.0, 60.0]),
            ("latency-60", "evenkeel-batch", "windowed_p50", &[60.0, 120.0]),
            ("latency-60", "pen", "windowed_p50", &[100.0, 200.0]),
            ("latency-60", "pen-batch", "windowed_p50", &[40.0, 80.0]),
        ];
        let targets = fastest(&report("", &rows));
        assert!((targets[0].reached - 0.3).abs() < 1e-9 && targets[0].is_met(), "{targets:?}");
        assert!((targets[1].reached - 1.5).abs() < 1e-9 && !targets[1].is_met(), "{targets:?}");
        assert!(targets[1].what.contains("(pen-batch)"), "{targets:?}");
    }
}
