//! Hosts (network namespaces) on one switch. They are removed, with every process in them, when the
//! test ends or is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::program::printed;
use super::wait::until;

/// The namespace that holds the bridge.
const SWITCH: &str = "switch";

/// The name of a namespace begins with this, the process id of the test, and a number.
const PREFIX: &str = "evenkeel-";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A switch, the hosts on it, and a directory for their files.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    hosts: Vec<String>,
    folder: PathBuf,
}

impl Network {
    /// Creates a switch without hosts.
    #[track_caller]
    pub(crate) fn new() -> Self {
        remove_leftovers();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", std::process::id());
        let folder = folder(prefix.trim_end_matches('-'));
        fs::create_dir_all(&folder).unwrap();
        let mut network = Self { prefix, hosts: Vec::new(), folder };
        network.add_namespace(SWITCH);
        let switch = network.namespace(SWITCH);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        network
    }

    /// Adds a host with `address`, in a /24 network.
    #[track_caller]
    pub(crate) fn add_host(&mut self, host: &str, address: &str) {
        self.add_namespace(host);
        let (own, switch) = (self.namespace(host), self.namespace(SWITCH));
        let add = ["link", "add", "eth0", "netns", &own, "type", "veth", "peer", "name", host];
        ip(&[&add[..], &["netns", &switch]].concat());
        ip(&["-n", &switch, "link", "set", host, "master", "br0", "up"]);
        ip(&["-n", &own, "link", "set", "lo", "up"]);
        ip(&["-n", &own, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &own, "link", "set", "eth0", "up"]);
    }

    /// A command that runs on `host`. `ip netns exec` becomes it: the process id is its own.
    pub(crate) fn command(&self, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).args(words);
        command
    }

    /// The command that runs its further arguments on `host`.
    pub(crate) fn words(&self, host: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(host)].map(str::to_owned).to_vec()
    }

    /// Kills every process on `host` with SIGKILL, and waits until they have ended.
    #[track_caller]
    pub(crate) fn kill_all(&self, host: &str) {
        kill_all(&self.namespace(host));
    }

    /// A file in the directory of this network.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    #[track_caller]
    fn add_namespace(&mut self, host: &str) {
        let namespace = self.namespace(host);
        // First, so that it is removed even if the next step fails.
        self.hosts.push(namespace.clone());
        ip(&["netns", "add", &namespace]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.hosts {
            remove(namespace);
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Whether this machine allows network namespaces.
///
/// # Errors
/// Why it does not.
pub(crate) fn allowed() -> Result<(), String> {
    static ALLOWED: OnceLock<Result<(), String>> = OnceLock::new();
    ALLOWED.get_or_init(attempt).clone()
}

fn attempt() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root, to create network namespaces".to_owned());
    }
    let namespace = format!("{PREFIX}{}-try", std::process::id());
    let script = "ip netns add $0 && ip netns exec $0 unshare --uts true; ip netns delete $0";
    let tried = Command::new("sh").args(["-ec", script, &namespace]).output();
    let tried = tried.map_err(|error| error.to_string()).and_then(|output| printed(&output));
    tried.map(drop).map_err(|why| format!("network namespaces cannot be created: {why}"))
}

/// Removes the namespaces of test processes that no longer exist.
fn remove_leftovers() {
    for line in output_of(&["netns", "list"]).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let pid = pid.and_then(|(pid, _)| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| kill(Pid::from_raw(pid), None).is_err()) {
            remove(name);
            let network: Vec<&str> = name.splitn(4, '-').take(3).collect();
            drop(fs::remove_dir_all(folder(&network.join("-"))));
        }
    }
}

fn folder(network: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(network)
}

/// May be called concurrently by other tests and during a panic, so that it ignores errors.
fn remove(namespace: &str) {
    for pid in pids(namespace) {
        kill(pid, Signal::SIGKILL).ok();
    }
    drop(Command::new("ip").args(["netns", "delete", namespace]).output());
}

#[track_caller]
fn kill_all(namespace: &str) {
    for pid in pids(namespace) {
        // It may have ended meanwhile, with its parent.
        kill(pid, Signal::SIGKILL).ok();
    }
    until("every process on the host has ended", || pids(namespace).is_empty());
}

/// The processes in a namespace. Zombies are in none.
fn pids(namespace: &str) -> Vec<Pid> {
    let found = Command::new("ip").args(["netns", "pids", namespace]).output();
    let text = found.map(|output| output.stdout).unwrap_or_default();
    let lines = String::from_utf8_lossy(&text).into_owned();
    lines.lines().filter_map(|pid| pid.trim().parse().ok()).map(Pid::from_raw).collect()
}

/// The standard output of `command`, which must succeed.
#[track_caller]
pub(crate) fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    printed(&output).unwrap_or_else(|why| panic!("{command:?}: {why}"))
}

#[track_caller]
fn ip(words: &[&str]) {
    output_of(words);
}

#[track_caller]
fn output_of(words: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(words);
    output(command)
}
