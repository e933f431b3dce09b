//! The metrics of the process and of its workers, whose number does not depend on the
//! configuration: a recorder of the crate `metrics` holds them, and its exporter for Prometheus
//! writes them.
//!
//! A worker counts in cells that only it writes. They are recorded when a scrape begins.

use metrics::{Label, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::observe::exposition::metric::{METRICS, Metric, Series};
use crate::observe::exposition::scrape::Scrape;

/// The recorder: one for the life of the process.
#[derive(Debug)]
pub struct Recorder(PrometheusRecorder);

/// Records the series of one metric that have the same labels.
#[derive(Debug)]
pub(super) struct Record<'a> {
    metric: &'a Metric,
    labels: Vec<Label>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Describes the metrics; their series exist once they are recorded.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&recorder, || {
            for Metric { name, kind, help, .. } in METRICS.iter().filter(|one| one.is_recorded()) {
                match *kind {
                    "counter" => metrics::describe_counter!(*name, *help),
                    _ => metrics::describe_gauge!(*name, *help),
                }
            }
        });
        Self(recorder)
    }

    /// Records what `scrape` shows; the text of all that is recorded.
    pub(super) fn render(&self, scrape: &Scrape) -> String {
        with_local_recorder(&self.0, || METRICS.iter().for_each(|metric| record(metric, scrape)));
        in_order(&self.0.handle().render())
    }
}

fn record(metric: &Metric, scrape: &Scrape) {
    match metric.series {
        Series::Process(series) => series(scrape, &Record { metric, labels: Vec::new() }),
        Series::Worker(series) => {
            for (index, worker) in scrape.workers().enumerate() {
                let labels = vec![Label::new("worker", index.to_string())];
                series(&worker, &Record { metric, labels });
            }
        }
        Series::Frontend(_) | Series::Backend(_) | Series::Server(_) | Series::Fraction(_) => {}
    }
}

impl Record<'_> {
    /// The only series.
    pub(super) fn value(&self, value: u64) {
        self.with(&[], value);
    }

    /// The only series, of what the kernel says. If that could not be read, a counter keeps its
    /// value, and a gauge has none.
    pub(super) fn known(&self, value: Option<u64>) {
        match value {
            Some(value) => self.value(value),
            None if self.metric.kind == "gauge" => self.fraction(None),
            None => {}
        }
    }

    /// The only series, of a gauge with a fraction; none: it has no value.
    pub(super) fn fraction(&self, value: Option<f64>) {
        metrics::gauge!(self.metric.name, self.labels.clone()).set(value.unwrap_or(f64::NAN));
    }

    /// The series with this label too.
    pub(super) fn of(&self, label: &'static str, word: &'static str, value: u64) {
        self.with(&[(label, word)], value);
    }

    /// The series with these labels too.
    pub(super) fn with(&self, more: &[(&'static str, &'static str)], value: u64) {
        let mut labels = self.labels.clone();
        labels.extend(more.iter().map(|(label, word)| Label::new(*label, *word)));
        if self.metric.kind == "counter" {
            metrics::counter!(self.metric.name, labels).absolute(value);
        } else {
            #[expect(clippy::cast_precision_loss, reason = "gauges of the format are floats")]
            metrics::gauge!(self.metric.name, labels).set(value as f64);
        }
    }
}

/// The exporter keeps metrics and series in hash maps, in another order each time. Sorted, two
/// scrapes can be compared. It ends each metric with an empty line.
fn in_order(text: &str) -> String {
    let metrics = text.split("\n\n").map(|metric| metric.lines().collect::<Vec<_>>());
    let mut metrics: Vec<_> = metrics.filter(|lines| !lines.is_empty()).collect();
    for lines in &mut metrics {
        let head = lines.iter().take_while(|line| line.starts_with('#')).count();
        lines[head..].sort_unstable();
    }
    metrics.sort_unstable();
    metrics.into_iter().flatten().flat_map(|line| [line, "\n"]).collect()
}
