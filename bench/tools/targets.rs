//! What evenkeel must reach to be called the fastest.

use crate::report::{LatencyRow, Report, Row, Spread, Target};
use crate::subject::Subject;

/// No run is so noisy that a row may be worse by more than this and be called no worse.
const NOISE_MAX: f64 = 0.05;

/// The same of p99 and p99.9, which the worst moments of the machine decide.
const NOISE_OF_TAILS_MAX: f64 = 0.25;

/// Of everything that was measured; what was not is not judged. Where a row is to be no worse than
/// another, what the null control differs by in the same row is no difference.
pub(crate) fn fastest(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    for (work, throughput, cost) in [
        ("keepalive", 1.25, 0.62),
        ("connection", 1.25, 0.62),
        ("bulk", 1.05, 0.95),
        ("upload", 1.05, 0.95),
    ] {
        let reached = ratio_to(report, work, Subject::is_haproxy);
        let what = "x the best HAProxy";
        targets.extend(reached.map(|reached| Target::at_least(work, what, reached, throughput)));
        let reached = cost_to_haproxy(report, work);
        let what = "x the own cost of the best HAProxy";
        targets.extend(reached.map(|reached| Target::at_most(work, what, reached, cost)));
    }
    let mut works: Vec<&str> = report.latencies.iter().map(|row| &*row.work).collect();
    works.dedup();
    for work in works {
        for (index, quantile) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
            let what = format!("{quantile}, x the best of all others");
            let reached = latency_to_best(report, work, index);
            let most = 1.0 + latency_noise(report, work, index);
            targets.extend(reached.map(|reached| Target::at_most(work, &what, reached, most)));
        }
    }
    targets.extend(idle(report));
    targets.extend(two(report));
    targets.extend(growth(report));
    targets.extend(peers(report));
    targets
}

fn row<'a>(report: &'a Report, work: &str, subject: &str) -> Option<&'a Row> {
    report.rows.iter().find(|row| row.work == work && row.subject == subject)
}

fn own<'a>(report: &'a Report, work: &str) -> Option<&'a Row> {
    row(report, work, Subject::Evenkeel.name())
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    Spread::of(values.collect()).map(|spread| spread.median)
}

/// The least of the ratios to the subjects that `which` names; each the median over rounds.
fn ratio_to(report: &Report, work: &str, which: fn(&str) -> bool) -> Option<f64> {
    let own = own(report, work)?;
    let others = report.rows.iter().filter(|row| row.work == work && which(row.subject));
    let ratios = others.filter_map(|other| {
        median(own.by_round.iter().zip(&other.by_round).map(|(own, other)| own / other))
    });
    ratios.min_by(f64::total_cmp)
}

/// The greatest of the ratios of own cost: the one to the HAProxy that costs least.
fn cost_to_haproxy(report: &Report, work: &str) -> Option<f64> {
    let (own, direct) = (own(report, work)?, row(report, work, Subject::Direct.name())?);
    let cost = |rate: f64, direct: f64| rate.recip() - direct.recip();
    let others = report.rows.iter();
    let others = others.filter(|row| row.work == work && Subject::is_haproxy(row.subject));
    let ratios = others.filter_map(|other| {
        let rates = own.by_round.iter().zip(&other.by_round).zip(&direct.by_round);
        median(rates.map(|((own, other), direct)| cost(*own, *direct) / cost(*other, *direct)))
    });
    ratios.max_by(f64::total_cmp)
}

fn latency_to_best(report: &Report, work: &str, quantile: usize) -> Option<f64> {
    let rows = || report.latencies.iter().filter(|row| row.work == work);
    let own = rows().find(|row| row.subject == Subject::Evenkeel.name())?;
    let ratio = |other: &LatencyRow| {
        let pairs = own.by_round.iter().zip(&other.by_round);
        median(pairs.map(|(own, other)| own[quantile] / other[quantile]))
    };
    let others = rows().filter(|row| Subject::is_peer(row.subject));
    others.filter_map(ratio).max_by(f64::total_cmp)
}

/// What the null control's rates differ by from those of the HAProxy that it repeats.
fn noise(report: &Report, work: &str) -> f64 {
    let rates = |subject: Subject| Some(row(report, work, subject.name())?.by_round.clone());
    null_control(rates, NOISE_MAX)
}

/// As `noise`, of a quantile of latencies.
fn latency_noise(report: &Report, work: &str, quantile: usize) -> f64 {
    let times = |subject: Subject| {
        let mut rows = report.latencies.iter();
        let row = rows.find(|row| row.work == work && row.subject == subject.name())?;
        Some(row.by_round.iter().map(|round| round[quantile]).collect())
    };
    null_control(times, if quantile == 0 { NOISE_MAX } else { NOISE_OF_TAILS_MAX })
}

/// What the second of two identical `HAProxy`s differs by in these figures of each round; at most
/// so much.
fn null_control(figures: impl Fn(Subject) -> Option<Vec<f64>>, most: f64) -> f64 {
    let pair = figures(Subject::HaproxyNull).zip(figures(Subject::Haproxy));
    let ratio = pair
        .and_then(|(null, base)| median(null.iter().zip(&base).map(|(null, base)| null / base)));
    ratio.map_or(0.0, |ratio| (ratio - 1.0).abs().min(most))
}

/// User memory of an idle session, as a part of HAProxy's.
pub(crate) fn memory_to_haproxy(report: &Report) -> Option<f64> {
    let of = |subject: Subject| {
        let row = report.idle.iter().find(|row| row.subject == subject.name())?;
        Some(row.session.median)
    };
    Some(of(Subject::Evenkeel)? / of(Subject::Haproxy)?)
}

fn idle(report: &Report) -> Option<Target> {
    let reached = memory_to_haproxy(report)?;
    Some(Target::at_most("idle", "x HAProxy's user memory a session", reached, 0.25))
}

/// A second core brings at most what it brings where there is no balancer: the generator and the
/// responders need it too, and two cores share caches and clocks. What they allow changes within
/// seconds on a virtual machine, so that each round is held to its own.
fn two(report: &Report) -> Vec<Target> {
    let scaling = |subject: Subject| {
        let rates = |work: &str| row(report, work, subject.name()).map(|row| row.by_round.iter());
        let rounds = rates("two")?.zip(rates("one")?).map(|(two, one)| two / one);
        Some(rounds.collect::<Vec<_>>())
    };
    let alone = scaling(Subject::Evenkeel).and_then(|own| {
        let cores = scaling(Subject::Direct).unwrap_or_else(|| vec![2.0; own.len()]);
        let wanted = cores.iter().map(|cores| (0.95 * cores).min(1.9));
        let reached = median(own.iter().zip(wanted).map(|(own, wanted)| own / wanted))?;
        let what = format!(
            "x what is wanted of two workers, round by round: 1.9 times one, or 0.95 of what the \
             cores allow without a balancer ({:.2} times one, the cores {:.2})",
            median(own.into_iter())?,
            median(cores.into_iter())?,
        );
        Some(Target::at_least("two", &what, reached, 1.0))
    });
    let peer = ratio_to(report, "two", |name| name == Subject::Haproxy.name());
    let peer = peer.map(|reached| Target::at_least("two", "x HAProxy", reached, 1.2));
    alone.into_iter().chain(peer).collect()
}

fn growth(report: &Report) -> Vec<Target> {
    let costs = |work: &str| {
        let (own, direct) = (own(report, work)?, row(report, work, Subject::Direct.name())?);
        Some(
            own.by_round
                .iter()
                .zip(&direct.by_round)
                .map(|(own, direct)| own.recip() - direct.recip()),
        )
    };
    // What the machine does lasts longer than a round: both are of the same one.
    let growth =
        |many: &str, few: &str| median(costs(many)?.zip(costs(few)?).map(|(many, few)| many / few));
    let mut targets = Vec::new();
    let connections = growth("growth-connections-9000", "growth-connections-100");
    targets.extend(connections.map(|reached| {
        Target::at_most("growth", "x the cost with 100 connections, with 9,000", reached, 1.3)
    }));
    let servers = growth("growth-servers-1000", "growth-servers-2");
    targets.extend(servers.map(|reached| {
        Target::at_most("growth", "x the cost with 2 servers, with 1,000", reached, 1.2)
    }));
    let figure = |what: &str| {
        let row = report.growth.iter().find(|row| row.what == what)?;
        Some(row.value.median)
    };
    let reload = figure("a reload with 1000 servers: until it is in force");
    targets.extend(reload.map(|reached| Target::at_most("growth", "ms a reload", reached, 50.0)));
    let slowest = figure("a reload with 1000 servers: slowest exchange beside it");
    let what = "ms the slowest exchange beside a reload";
    targets.extend(slowest.map(|reached| Target::at_most("growth", what, reached, 5.0)));
    targets
}

/// No row slower than any peer's.
fn peers(report: &Report) -> Vec<Target> {
    let mut works: Vec<&str> = report.rows.iter().map(|row| &*row.work).collect();
    works.dedup();
    let target = |work: &str| {
        let reached = ratio_to(report, work, Subject::is_peer)?;
        let least = 1.0 - noise(report, work);
        Some(Target::at_least(work, "x the fastest of all peers", reached, least))
    };
    works.into_iter().filter_map(target).collect()
}
