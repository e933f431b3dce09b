//! What the balancer says of itself: metrics as numbers, and whether the books balance.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Balancer;
use super::wait::until_ok;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// By name and labels, as exposed.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Of the text format of Prometheus. Label values of ours contain no commas and no quotes.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample);
        Self { samples: samples.collect() }
    }

    /// The sum over all series of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// As `sum`, of what must be there.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.has(name, labels), "no series {name} with {labels:?}");
        self.sum(name, labels)
    }

    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let suits = |own: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| own.get(*label).is_some_and(|own| own == value))
        };
        let found = self.samples.iter().filter(move |(own, ..)| own == name);
        let found: Vec<f64> =
            found.filter(|(_, own, _)| suits(own)).map(|(_, _, value)| *value).collect();
        found.into_iter()
    }

    /// Sessions that ended for `reason`.
    pub(crate) fn closed(&self, reason: &str) -> f64 {
        self.sum("evenkeel_sessions_closed_total", &[("reason", reason)])
    }

    /// 1 while `server` is up.
    #[track_caller]
    pub(crate) fn up(&self, server: &str) -> bool {
        self.value("evenkeel_server_up", &[("server", server)]) > 0.5
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), BTreeMap::new(), value));
    };
    let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    let labels = pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()));
    Some((name.to_owned(), labels.collect(), value))
}

/// Descriptors of a process, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptors {
    pub(crate) sockets: usize,
    pub(crate) pipes: usize,
    pub(crate) others: usize,
}

impl Descriptors {
    pub(crate) fn of(pid: u32) -> Self {
        let mut found = Self { sockets: 0, pipes: 0, others: 0 };
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            // What has been closed meanwhile is not there.
            let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
            let target = target.to_string_lossy();
            match &target {
                target if target.starts_with("socket:") => found.sockets += 1,
                target if target.starts_with("pipe:") => found.pipes += 1,
                _ => found.others += 1,
            }
        }
        found
    }

    pub(crate) const fn all(self) -> usize {
        self.sockets + self.pipes + self.others
    }
}

/// Ticks of the processor that a process has used, its own and the kernel's for it.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap();
    // Fields 14 and 15, counted behind the name in parentheses, which ends field 2 (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Ends of pipes that two workers keep at most: 64 pipes each.
const PIPES_MAX: usize = 2 * 2 * 64;

/// Gauges that are zero when no session is open.
const GAUGES: [&str; 4] = [
    "evenkeel_sessions_active",
    "evenkeel_server_sessions_active",
    "evenkeel_buffers_in_use",
    "evenkeel_pipes_in_use",
];

impl Balancer<'_> {
    /// Waits until no session is open, and asserts that nothing of them is left: opened = closed,
    /// gauges at zero, descriptors back where they were, no bug seen.
    #[track_caller]
    pub(crate) fn books_balance(&self) -> Metrics {
        let metrics = until_ok("the books balance", || {
            let metrics = self.metrics();
            self.balance(&metrics).map(|()| metrics)
        });
        assert_eq!(metrics.closed("internal"), 0.0, "a bug was met");
        metrics
    }

    fn balance(&self, metrics: &Metrics) -> Result<(), String> {
        let opened = metrics.value("evenkeel_sessions_total", &[]);
        let closed = metrics.value("evenkeel_sessions_closed_total", &[]);
        if (opened - closed).abs() > 0.5 {
            return Err(format!("{opened} sessions opened, {closed} closed"));
        }
        for gauge in GAUGES {
            let value = metrics.value(gauge, &[]);
            if value != 0.0 {
                return Err(format!("{gauge} is {value}"));
            }
        }
        let (base, now) = (self.base, Descriptors::of(self.pid()));
        // Pipes are kept for the next bulk; how many is bounded.
        let kept = now.pipes - base.pipes.min(now.pipes);
        if now.sockets != base.sockets || now.others != base.others || kept > PIPES_MAX {
            return Err(format!("descriptors: {base:?} at the start, now {now:?}"));
        }
        Ok(())
    }
}
