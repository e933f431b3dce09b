//! `grafana/evenkeel.json`: every query that it asks, asked of a real Prometheus that scrapes a
//! real evenkeel under traffic; and that it is what Grafana takes for a dashboard.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that failed shows what its programs said")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use patience::{has_programs, until_ok};
use prometheus::Prometheus;
use scene::Scene;

#[path = "../cluster/patience.rs"]
mod patience;
#[path = "../cluster/program.rs"]
mod program;
#[path = "../cluster/prometheus.rs"]
mod prometheus;
mod scene;

/// A grid of Grafana has so many columns.
const COLUMNS: u64 = 24;

/// What is 0 on a healthy machine with little to do; all else must be seen to move.
const QUIET: [&str; 8] = [
    "evenkeel_sessions_refused_total",
    "evenkeel_buffers_in_use",
    "evenkeel_pipes_in_use",
    "evenkeel_accept_paused",
    "evenkeel_accept_errors_total",
    "evenkeel_buffer_waits_total",
    "evenkeel_splice_fallbacks_total",
    "evenkeel_log_drops_total",
];

#[test]
fn every_query_of_the_dashboard_returns_data() {
    if !has_programs("every_query_of_the_dashboard_returns_data", &["prometheus", "curl"]) {
        return;
    }
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "they were found");
    let scene = Scene::start();
    let prometheus = scene.start_prometheus();
    scene.play_while(|| {
        for query in &queries {
            until_ok(&query.text, || query.shows_data(&prometheus));
        }
        for (selector, label) in variables(&dashboard) {
            let path = format!("/api/v1/label/{label}/values");
            let values = prometheus.api(&path, &[("match[]", &selector)]).unwrap();
            assert!(!values.as_array().unwrap().is_empty(), "no {label} of {selector}");
        }
    });
}

#[test]
fn panels_stand_side_by_side_and_have_numbers_of_their_own() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= COLUMNS, "{title}: beyond the grid");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title}: covers another at {place:?}");
        }
    }
}

#[test]
fn panels_ask_the_data_source_that_is_chosen() {
    let dashboard = dashboard();
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        let title = text(panel, "title");
        assert!(!text(panel, "description").is_empty(), "{title}: says nothing of itself");
        let targets = panel["targets"].as_array().unwrap();
        let names: BTreeSet<_> = targets.iter().map(|target| text(target, "refId")).collect();
        assert_eq!(names.len(), targets.len(), "{title}: two queries of one name");
        for asked in targets.iter().chain([panel]) {
            assert_eq!(asked["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn queries_use_variables_that_there_are() {
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
    /// `{{server}}` in it stands for a label.
    legend: String,
}

impl Query {
    /// Whether there is a number, unless it is a quiet one above 0; and every series has all labels
    /// that the legend names.
    fn shows_data(&self, prometheus: &Prometheus) -> Result<(), String> {
        let series = prometheus.query(&self.substituted())?;
        let quiet = QUIET.iter().any(|metric| self.text.contains(metric));
        let shows = |value: f64| value.is_finite() && (quiet || value > 0.0);
        if !series.iter().any(|one| shows(one.value)) {
            return Err(format!("{series:?}"));
        }
        for label in self.legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
            let unlabelled = series.iter().find(|one| one.label(label).is_empty());
            assert!(unlabelled.is_none(), "{}: no {label}: {unlabelled:?}", self.text);
        }
        Ok(())
    }

    /// As Grafana does it, with "All" chosen everywhere.
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

/// The selectors and labels that variables take their values from.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let asking = variables.iter().filter(|variable| variable["type"] == "query");
    let parse = |variable: &Value| {
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (selector, label) = inner.split_once(", ").unwrap();
        (selector.to_owned(), label.to_owned())
    };
    asking.map(parse).collect()
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}
