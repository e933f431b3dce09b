//! /metrics: every counter of the program in the text format of Prometheus (version 0.0.4).
//!
//! The text is made part by part, so that a scrape of 10,000 servers needs the memory of one part.

mod lines;
mod metric;
mod record;
mod recorder;
mod scrape;

use std::sync::Arc;

use crate::shared::snapshot::Snapshot;
use crate::shared::state::SharedState;

use lines::{Lines, add_label, head};
use metric::Series;
pub use metric::{METRICS, Metric};
pub use recorder::Recorder;
use scrape::Scrape;

/// Bytes of a part, or a little more.
const PART: usize = 128 << 10;

/// The text of one scrape, in parts: first what is recorded, by name, then the other metrics in the
/// order of [`METRICS`], each with its series in the order of the configuration.
#[derive(Debug)]
pub struct Exposition {
    scrape: Scrape,
    /// By the exporter.
    recorded: String,
    /// The metric that is written, and its frontend, backend or server.
    at: (usize, usize),
    labels: String,
}

impl Exposition {
    /// Reads what is to be read once. That takes some system calls: not on the control thread.
    #[must_use]
    pub fn new(snapshot: Snapshot, shared: Arc<SharedState>, recorder: &Recorder) -> Self {
        let scrape = Scrape::new(snapshot, shared);
        let recorded = recorder.render(&scrape);
        Self { scrape, recorded, at: (0, 0), labels: String::new() }
    }

    /// Writes the series of one frontend, backend or server; none: there is no further one.
    fn write(&mut self, metric: &Metric, index: usize, text: &mut String) -> Option<()> {
        let Self { scrape, labels, .. } = self;
        labels.clear();
        match metric.series {
            Series::Frontend(series) => {
                let frontend = scrape.frontend(index)?;
                add_label(labels, "frontend", &frontend.status.name);
                series(&frontend, &mut Lines { text, name: metric.name, labels });
            }
            Series::Backend(series) => {
                let backend = scrape.snapshot.backends.get(index)?;
                add_label(labels, "backend", &backend.name);
                series(backend, &mut Lines { text, name: metric.name, labels });
            }
            Series::Server(series) => {
                let server = scrape.server(index)?;
                add_label(labels, "backend", &server.status.backend);
                add_label(labels, "server", &server.status.shared.name);
                series(&server, &mut Lines { text, name: metric.name, labels });
            }
            Series::Fraction(value) => {
                let value = (index == 0).then(|| value(scrape))??;
                Lines { text, name: metric.name, labels }.fraction(value);
            }
            Series::Process(_) | Series::Worker(_) => return None,
        }
        Some(())
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        METRICS.get(self.at.0)?;
        let mut text = String::with_capacity(PART + PART / 8);
        text.push_str(&std::mem::take(&mut self.recorded));
        while text.len() < PART {
            let (at, index) = self.at;
            let Some(metric) = METRICS.get(at) else { break };
            if index == 0 && !metric.is_recorded() {
                head(&mut text, metric.name, metric.kind, metric.help);
            }
            let written = self.write(metric, index, &mut text);
            self.at = if written.is_some() { (at, index + 1) } else { (at + 1, 0) };
        }
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests;
