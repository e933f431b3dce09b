//! Values of the metrics that a recorder of the crate `metrics` has.

use metrics::Label;

/// Records the series of one metric that have the same labels.
#[derive(Debug)]
pub(super) struct Record {
    /// The name of the metric.
    pub(super) name: &'static str,
    /// "counter", "gauge"
    pub(super) kind: &'static str,
    pub(super) labels: Vec<Label>,
}

impl Record {
    /// The only series.
    pub(super) fn value(&self, value: u64) {
        self.with(&[], value);
    }

    /// The only series, of what the kernel says. If that could not be read, a counter keeps its
    /// value, and a gauge has none.
    pub(super) fn known(&self, value: Option<u64>) {
        match value {
            Some(value) => self.value(value),
            None if self.kind == "gauge" => self.fraction(None),
            None => {}
        }
    }

    /// The only series, of a gauge with a fraction; none: it has no value.
    pub(super) fn fraction(&self, value: Option<f64>) {
        metrics::gauge!(self.name, self.labels.clone()).set(value.unwrap_or(f64::NAN));
    }

    /// The series with this label too.
    pub(super) fn of(&self, label: &'static str, word: &'static str, value: u64) {
        self.with(&[(label, word)], value);
    }

    /// The series with these labels too.
    pub(super) fn with(&self, more: &[(&'static str, &'static str)], value: u64) {
        let mut labels = self.labels.clone();
        labels.extend(more.iter().map(|(label, word)| Label::new(*label, *word)));
        if self.kind == "counter" {
            metrics::counter!(self.name, labels).absolute(value);
        } else {
            #[expect(clippy::cast_precision_loss, reason = "gauges of the format are floats")]
            metrics::gauge!(self.name, labels).set(value as f64);
        }
    }
}
