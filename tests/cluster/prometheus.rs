//! A Prometheus server, queried with curl.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::program::{Program, printed};
use super::wait::until;

/// A running Prometheus, on this host or another.
#[derive(Debug)]
pub(crate) struct Prometheus {
    words: Vec<String>,
    address: String,
    program: Program,
}

impl Prometheus {
    /// Starts it with `config`, and waits until it answers at `address`. Its files are below
    /// `folder`. `words` are the command that runs it on another host (`ip netns exec ..`), or
    /// empty.
    #[track_caller]
    pub(crate) fn start(words: Vec<String>, address: &str, config: &Path, folder: &Path) -> Self {
        let data = folder.join("prometheus");
        fs::create_dir_all(&data).unwrap();
        let mut command = command(&words, "prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={address}"));
        command.arg("--log.level=warn");
        let program = Program::start(command, folder.join("prometheus.log"));
        let mut prometheus = Self { words, address: address.to_owned(), program };
        until("Prometheus is ready", || {
            prometheus.program.assert_runs();
            prometheus.get("/-/ready", &[]).is_ok()
        });
        prometheus
    }

    /// The series that `query` returns now, with their labels and values.
    ///
    /// # Errors
    /// The error of Prometheus.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<Series>, String> {
        let answer = self.api("/api/v1/query", &[("query", query)])?;
        let found = answer["result"].as_array().ok_or("no vector")?;
        Ok(found.iter().filter_map(Series::of).collect())
    }

    /// The data of an answer of the HTTP API.
    ///
    /// # Errors
    /// The error of Prometheus.
    pub(crate) fn api(&self, path: &str, fields: &[(&str, &str)]) -> Result<Value, String> {
        let text = self.get(path, fields)?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            return Ok(answer["data"].take());
        }
        Err(answer["error"].as_str().unwrap_or(&text).to_owned())
    }

    fn get(&self, path: &str, fields: &[(&str, &str)]) -> Result<String, String> {
        let mut command = command(&self.words, "curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "10"]);
        // The body of an error says more than its status.
        command.args(["--fail-with-body", "--get"]);
        for (name, value) in fields {
            command.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        command.arg(format!("http://{}{path}", self.address));
        command.output().map_err(|error| error.to_string()).and_then(|output| printed(&output))
    }
}

/// One series of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    labels: Value,
    pub(crate) value: f64,
}

impl Series {
    fn of(found: &Value) -> Option<Self> {
        let value = found["value"][1].as_str()?.parse().ok()?;
        Some(Self { labels: found["metric"].clone(), value })
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }
}

fn command(words: &[String], program: &str) -> Command {
    let mut all = words.iter().map(String::as_str).chain([program]);
    let mut command = Command::new(all.next().unwrap_or(program));
    command.args(all);
    command
}
