//! The metrics of the process and of its workers, whose number does not depend on the
//! configuration: a recorder of the crate `metrics` holds them, and its exporter for Prometheus
//! writes them.
//!
//! A worker counts in cells that only it writes. They are recorded when a scrape begins.

use metrics::{Label, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::observe::exposition::metric::{METRICS, Metric, Series};
use crate::observe::exposition::record::Record;
use crate::observe::exposition::scrape::Scrape;

/// The recorder: one for the life of the process.
#[derive(Debug)]
pub struct Recorder(PrometheusRecorder);

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
    let Metric { name, kind, .. } = *metric;
    match metric.series {
        Series::Process(series) => series(scrape, &Record { name, kind, labels: Vec::new() }),
        Series::Worker(series) => {
            for (index, worker) in scrape.workers().enumerate() {
                let labels = vec![Label::new("worker", index.to_string())];
                series(&worker, &Record { name, kind, labels });
            }
        }
        Series::Frontend(_) | Series::Backend(_) | Series::Server(_) | Series::Fraction(_) => {}
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
