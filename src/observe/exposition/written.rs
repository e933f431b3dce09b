//! Families that the recorder of the exporter does not support, written in the exposition format:
//! histograms that are summed over workers, and a counter with a fraction.

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{
    write_help_line, write_metric_line, write_type_line,
};

use super::names::Metric;
use crate::shared::counters::{BOUNDS, HistogramSum};

/// A family of series, with its head.
pub(super) struct Family {
    metric: Metric,
    text: String,
}

impl Family {
    pub(super) fn new(metric: Metric) -> Self {
        let mut text = String::new();
        write_help_line(&mut text, metric.name, None, None, metric.help);
        write_type_line(&mut text, metric.name, None, None, metric.kind);
        Self { metric, text }
    }

    /// The series of one set of labels: buckets cumulated, bounds in seconds.
    pub(super) fn histogram(&mut self, labels: &[(&'static str, &str)], sum: &HistogramSum) {
        let labels = set(labels);
        let mut count = 0u64;
        let infinite = std::iter::once("+Inf".to_owned());
        let bounds = BOUNDS.iter().map(|nanos| seconds(*nanos, 1e9).to_string()).chain(infinite);
        for (bucket, bound) in sum.buckets.iter().zip(bounds) {
            count = count.wrapping_add(*bucket);
            self.line(Some("bucket"), &labels, Some(("le", &bound)), count);
        }
        self.line(Some("sum"), &labels, None, seconds(sum.micros, 1e6));
        self.line(Some("count"), &labels, None, count);
    }

    /// One number.
    pub(super) fn number(&mut self, value: f64) {
        self.line(None, &set(&[]), None, value);
    }

    fn line(
        &mut self,
        suffix: Option<&'static str>,
        labels: &LabelSet,
        more: Option<(&'static str, &str)>,
        value: impl std::fmt::Display,
    ) {
        write_metric_line(&mut self.text, self.metric.name, suffix, labels, more, value, None);
    }

    /// The text, a line break at its end.
    pub(super) fn text(self) -> String {
        self.text
    }
}

/// Labels, escaped as by the recorder.
fn set(labels: &[(&'static str, &str)]) -> LabelSet {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
    let key = Key::from_parts("", labels.collect::<Vec<_>>());
    LabelSet::from_key_and_global(&key, &Default::default())
}

/// A division, so that 50,000 of 10^9 a second is the number that is written 0.00005.
fn seconds(count: u64, a_second: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and then to 10^-15")]
    let count = count as f64;
    count / a_second
}
