//! /metrics: every counter of the program in the text format of Prometheus (version 0.0.4).
//!
//! The text is made part by part, so that a scrape of 10,000 servers needs the memory of one part.

mod lines;
mod metric;
mod scrape;

use std::sync::Arc;

use crate::shared::snapshot::Snapshot;
use crate::shared::state::SharedState;

use lines::{Lines, add_label, head};
use metric::Series;
pub use metric::{METRICS, Metric};
use scrape::Scrape;

/// Bytes of a part, or a little more.
const PART: usize = 128 << 10;

/// The text of one scrape, in parts: metrics in the order of [`METRICS`], each with its series in
/// the order of the configuration.
#[derive(Debug)]
pub struct Exposition {
    scrape: Scrape,
    /// The metric that is written, and its frontend, backend, server or worker.
    at: (usize, usize),
    labels: String,
}

impl Exposition {
    /// Reads what is to be read once. That takes some system calls: not on the control thread.
    #[must_use]
    pub fn new(snapshot: Snapshot, shared: Arc<SharedState>) -> Self {
        Self { scrape: Scrape::new(snapshot, shared), at: (0, 0), labels: String::new() }
    }

    /// Writes the series of one frontend, backend, server or worker; none: there is no further one.
    fn write(&mut self, metric: &Metric, index: usize, text: &mut String) -> Option<()> {
        let Self { scrape, labels, .. } = self;
        labels.clear();
        match metric.series {
            Series::Process(series) => {
                let only = (index == 0).then_some(&*scrape)?;
                series(only, &mut Lines { text, name: metric.name, labels });
            }
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
            Series::Worker(series) => {
                let worker = scrape.worker(index)?;
                add_label(labels, "worker", &index.to_string());
                series(&worker, &mut Lines { text, name: metric.name, labels });
            }
        }
        Some(())
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        METRICS.get(self.at.0)?;
        let mut text = String::with_capacity(PART + PART / 8);
        while text.len() < PART {
            let (at, index) = self.at;
            let Some(metric) = METRICS.get(at) else { break };
            if index == 0 {
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
