//! The machine and the program versions: a figure without them means nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::subject::Installation;

/// The machine and the versions of the programs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) architecture: String,
    pub(crate) cpu: String,
    /// The core of everything that ran on one.
    pub(crate) core: usize,
    pub(crate) congestion_control: String,
    pub(crate) commit: String,
    /// Of evenkeel and the peers that are installed.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// Asks the system; what it does not know is "unknown".
    pub(crate) fn look(core: usize, installation: &Installation) -> Self {
        let folder = env!("CARGO_MANIFEST_DIR");
        let git = ["-C", folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
        let haproxy3 = installation.haproxy3.iter();
        let mut versions = vec![first_line(&installation.evenkeel, &["--version"])];
        versions.push(first_line(&installation.haproxy, &["-v"]));
        versions.extend(haproxy3.map(|program| first_line(program, &["-v"])));
        versions.extend(["nginx", "pen"].map(|package| {
            first_line(Path::new("dpkg-query"), &["-W", "-f", "${Package} ${Version}", package])
        }));
        versions.retain(|version| version != UNKNOWN);
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu: cpu(),
            core,
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            commit: first_line(Path::new("git"), &git),
            versions,
        }
    }
}

const UNKNOWN: &str = "unknown";

/// A board has a model name; other machines have a processor name.
fn cpu() -> String {
    if let Ok(board) = fs::read_to_string("/proc/device-tree/model") {
        return board.trim_end_matches('\0').to_owned();
    }
    let text = read("/proc/cpuinfo");
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or(UNKNOWN, |(_, name)| name).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| UNKNOWN.to_owned(), |text| text.trim().to_owned())
}

fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    output
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| UNKNOWN.to_owned())
}
