//! Lines of the exposition format of Prometheus (text, version 0.0.4).

use std::fmt::{Display, Write};
use std::sync::LazyLock;

use crate::shared::counters::{BOUNDS, HistogramSum};

/// [`BOUNDS`] in seconds, as the label `le` has them.
static BOUNDS_WRITTEN: LazyLock<Vec<String>> =
    LazyLock::new(|| BOUNDS.iter().map(|nanos| seconds(*nanos, 1e9).to_string()).collect());

/// Writes the series of one metric that have the same labels.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) text: &'a mut String,
    /// The name of the metric.
    pub(super) name: &'static str,
    /// As by [`add_label`]; empty: none.
    pub(super) labels: &'a str,
}

impl Lines<'_> {
    /// The only series.
    pub(super) fn value(&mut self, value: u64) {
        self.line("", None, value);
    }

    /// The only series, with a fraction.
    pub(super) fn fraction(&mut self, value: f64) {
        self.line("", None, value);
    }

    /// The series with this label too.
    pub(super) fn of(&mut self, label: &str, word: &str, value: u64) {
        self.line("", Some((label, word)), value);
    }

    /// A histogram: buckets cumulated, bounds in seconds. Of [`BOUNDS`], those in `bounds` are
    /// written.
    pub(super) fn histogram(&mut self, sum: &HistogramSum, bounds: &[u64]) {
        let mut count = 0u64;
        let written = BOUNDS.iter().zip(&*BOUNDS_WRITTEN);
        for (bucket, (bound, text)) in sum.buckets.iter().zip(written) {
            count = count.wrapping_add(*bucket);
            if bounds.contains(bound) {
                self.line("_bucket", Some(("le", text)), count);
            }
        }
        count = sum.count();
        self.line("_bucket", Some(("le", "+Inf")), count);
        self.line("_sum", None, seconds(sum.micros, 1e6));
        self.line("_count", None, count);
    }

    fn line(&mut self, suffix: &str, more: Option<(&str, &str)>, value: impl Display) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        if !self.labels.is_empty() || more.is_some() {
            text.push('{');
            text.push_str(self.labels);
            if let Some((label, word)) = more {
                add_label(text, label, word);
            }
            text.push('}');
        }
        let written = writeln!(text, " {value}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
}

/// The lines before the series of a metric.
pub(super) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
        text.push_str(part);
    }
}

/// Adds a label after those that `text` ends with.
pub(super) fn add_label(text: &mut String, label: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('{') {
        text.push(',');
    }
    text.push_str(label);
    text.push_str("=\"");
    for part in value.split_inclusive(['\\', '"', '\n']) {
        match part.as_bytes().last() {
            Some(b'\\') => text.extend([part, "\\"]),
            Some(b'"') => text.extend([&part[..part.len() - 1], "\\\""]),
            Some(b'\n') => text.extend([&part[..part.len() - 1], "\\n"]),
            _ => text.push_str(part),
        }
    }
    text.push('"');
}

/// A division, so that 50,000 of 10^9 a second is the number that is written 0.00005.
fn seconds(count: u64, a_second: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and then to 10^-15")]
    let count = count as f64;
    count / a_second
}
