//! The metrics of a balancer as numbers, and the check that nothing is leaked.

use std::collections::BTreeMap;

use super::Balancer;
use super::process::Descriptors;
use super::wait::until_ok;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// The name, the labels and the value of each.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Parses the text format of Prometheus. Label values of evenkeel contain no commas and no
    /// quotes.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample);
        Self { samples: samples.collect() }
    }

    /// The sum of all series with this name and these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// As `sum`, of series that must exist.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.has(name, labels), "no series {name} with {labels:?}");
        self.sum(name, labels)
    }

    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let has_labels = |own: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| own.get(*label).is_some_and(|own| own == value))
        };
        let found = self.samples.iter().filter(move |(own, ..)| own == name);
        let found: Vec<f64> =
            found.filter(|(_, own, _)| has_labels(own)).map(|(_, _, value)| *value).collect();
        found.into_iter()
    }

    /// Sessions that ended with `reason`.
    pub(crate) fn closed(&self, reason: &str) -> f64 {
        self.sum("evenkeel_sessions_closed_total", &[("reason", reason)])
    }

    /// Whether `server` is up.
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

/// Descriptors of the pipes that two workers keep at most: 64 pipes each.
const PIPES_MAX: usize = 2 * 2 * 64;

/// Gauges that are zero when no session is open.
const GAUGES: [&str; 4] = [
    "evenkeel_sessions_active",
    "evenkeel_server_sessions_active",
    "evenkeel_buffers_in_use",
    "evenkeel_pipes_in_use",
];

impl Balancer<'_> {
    /// Waits until no session is open, and asserts that nothing is leaked: as many sessions were
    /// closed as opened, gauges are zero, there are as many descriptors as at the start, and no
    /// session ended with the reason `internal`.
    #[track_caller]
    pub(crate) fn assert_no_leaks(&self) -> Metrics {
        let metrics = until_ok("nothing is leaked", || {
            let metrics = self.metrics();
            self.leaks(&metrics).map(|()| metrics)
        });
        assert_eq!(metrics.closed("internal"), 0.0, "a session ended by a bug");
        metrics
    }

    fn leaks(&self, metrics: &Metrics) -> Result<(), String> {
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
        // Workers keep pipes for the next bulk transfer, a bounded number of them.
        let kept = now.pipes - base.pipes.min(now.pipes);
        if now.sockets != base.sockets || now.others != base.others || kept > PIPES_MAX {
            return Err(format!("{base:?} at the start, now {now:?}"));
        }
        Ok(())
    }
}
