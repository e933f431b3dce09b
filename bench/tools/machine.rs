//! What a result was measured on: without it, a figure means nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::subject::{Place, Subject};

/// The machine and the versions.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) architecture: &'static str,
    pub(crate) cpu: String,
    /// The core that everything ran on.
    pub(crate) core: usize,
    /// Of the sockets whose owner does not choose one.
    pub(crate) congestion_control: String,
    pub(crate) evenkeel: String,
    pub(crate) commit: String,
    /// None if it was not a subject; so of the others.
    pub(crate) haproxy: Option<String>,
    pub(crate) nginx: Option<String>,
    pub(crate) pen: Option<String>,
}

impl Machine {
    /// Looks around; what can't be known is "unknown".
    pub(crate) fn look(core: usize, place: &Place, subjects: &[Subject]) -> Self {
        let kernel = read("/proc/sys/kernel/osrelease");
        let congestion_control = read("/proc/sys/net/ipv4/tcp_congestion_control");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"));
        let git = ["-C", folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
        let has = |subject: Subject| subjects.contains(&subject) && subject.missing().is_none();
        let packaged = |package: &str| {
            let asked = ["-W", "-f", "${Package} ${Version}", package];
            first_line(Path::new("dpkg-query"), &asked)
        };
        Self {
            kernel,
            architecture: std::env::consts::ARCH,
            cpu: cpu(),
            core,
            congestion_control,
            evenkeel: first_line(&place.evenkeel, &["--version"]),
            commit: first_line(Path::new("git"), &git),
            haproxy: has(Subject::Haproxy).then(|| first_line(&place.haproxy, &["-v"])),
            nginx: has(Subject::Nginx).then(|| packaged("nginx")),
            pen: has(Subject::Pen).then(|| packaged("pen")),
        }
    }
}

/// A board says what it is (a Pi's processor does not); other machines name their processor.
fn cpu() -> String {
    if let Ok(board) = fs::read_to_string("/proc/device-tree/model") {
        return board.trim_end_matches('\0').to_owned();
    }
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find(|line| line.starts_with("model name"));
    let name = named.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| "unknown".to_owned())
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path);
    text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.as_deref().and_then(|text| text.lines().next()).filter(|line| !line.is_empty());
    line.unwrap_or("unknown").to_owned()
}
