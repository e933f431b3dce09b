//! `grafana/evenkeel.json`: each of its queries returns data from a Prometheus that scrapes an
//! evenkeel with traffic, and the file is a valid dashboard.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a failed test shows the output of its programs")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use prometheus::Prometheus;
use traffic::Traffic;
use wait::{has_programs, until_ok};

#[path = "../cluster/program.rs"]
mod program;
#[path = "../cluster/prometheus.rs"]
mod prometheus;
mod traffic;
#[path = "../cluster/wait.rs"]
mod wait;

/// The columns of the grid of a Grafana dashboard.
const COLUMNS: u64 = 24;

/// Metrics that may be 0 on a machine with little load, without upgrades and drains. All others
/// must be above 0.
const MAY_BE_ZERO: [&str; 14] = [
    "evenkeel_buffers_in_use",
    "evenkeel_pipes_in_use",
    "evenkeel_accept_paused",
    "evenkeel_worker_stuck",
    "evenkeel_upgrades_total",
    "evenkeel_accept_errors_total",
    "evenkeel_buffer_waits_total",
    "evenkeel_splice_fallbacks_total",
    "evenkeel_log_drops_total",
    "evenkeel_buffers_stalled",
    "evenkeel_draining",
    "evenkeel_worker_cq_overflows_total",
    "evenkeel_listen_overflows_total",
    "evenkeel_listen_drops_total",
];

#[test]
fn every_query_of_the_dashboard_returns_data() {
    if !has_programs("every_query_of_the_dashboard_returns_data", &["prometheus", "curl"]) {
        return;
    }
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{} queries found", queries.len());
    let traffic = Traffic::start();
    let prometheus = traffic.start_prometheus();
    traffic.run_while(|| {
        for query in &queries {
            until_ok(&query.text, || query.returns_data(&prometheus));
        }
        for (selector, label) in variables(&dashboard) {
            let path = format!("/api/v1/label/{label}/values");
            let values = prometheus.api(&path, &[("match[]", &selector)]).unwrap();
            assert!(!values.as_array().unwrap().is_empty(), "no {label} of {selector}");
        }
    });
}

#[test]
fn panels_do_not_overlap_and_have_different_ids() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= COLUMNS, "{title}: wider than the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title}: overlaps another panel at {cell:?}");
        }
    }
}

#[test]
fn panels_use_the_selected_data_source() {
    let dashboard = dashboard();
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        let title = text(panel, "title");
        assert!(!text(panel, "description").is_empty(), "{title}: has no description");
        let targets = panel["targets"].as_array().unwrap();
        let names: BTreeSet<_> = targets.iter().map(|target| text(target, "refId")).collect();
        assert_eq!(names.len(), targets.len(), "{title}: two queries with one refId");
        for item in targets.iter().chain([panel]) {
            assert_eq!(item["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn queries_use_variables_that_exist() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| text(variable, "name")).collect();
    for Query { text, .. } in queries(&dashboard) {
        for rest in text.split('$').skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
            let name = &rest[..end];
            assert!(name == "__rate_interval" || names.contains(&name), "{text}: ${name}");
        }
    }
}

fn dashboard() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/evenkeel.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// A query of a panel.
#[derive(Debug)]
struct Query {
    text: String,
    /// `{{server}}` in it stands for the value of a label.
    legend: String,
}

impl Query {
    /// Checks that the query returns a number, above 0 unless it may be zero, and asserts that
    /// every series has all labels of the legend.
    fn returns_data(&self, prometheus: &Prometheus) -> Result<(), String> {
        let series = prometheus.query(&self.substituted())?;
        let may_be_zero = MAY_BE_ZERO.iter().any(|metric| self.text.contains(metric));
        let is_data = |value: f64| value.is_finite() && (may_be_zero || value > 0.0);
        if !series.iter().any(|one| is_data(one.value)) {
            return Err(format!("{series:?}"));
        }
        for label in self.legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
            let unlabelled = series.iter().find(|one| one.label(label).is_empty());
            assert!(unlabelled.is_none(), "{}: no {label}: {unlabelled:?}", self.text);
        }
        Ok(())
    }

    /// The query as Grafana sends it, with "All" selected in every variable.
    fn substituted(&self) -> String {
        let text = self.text.replace("$__rate_interval", "20s");
        ["$instance", "$frontend", "$backend"]
            .iter()
            .fold(text, |text, name| text.replace(name, ".*"))
    }
}

/// Every query of every panel.
fn queries(dashboard: &Value) -> Vec<Query> {
    let targets = panels(dashboard).iter().filter_map(|panel| panel["targets"].as_array());
    let query = |target| Query {
        text: text(target, "expr").to_owned(),
        legend: text(target, "legendFormat").to_owned(),
    };
    targets.flatten().map(query).collect()
}

/// The selector and the label of each variable.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let by_query = variables.iter().filter(|variable| variable["type"] == "query");
    let parse = |variable: &Value| {
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (selector, label) = inner.split_once(", ").unwrap();
        (selector.to_owned(), label.to_owned())
    };
    by_query.map(parse).collect()
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}
