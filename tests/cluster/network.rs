//! Hosts that are network namespaces, on one switch; gone with everything that runs in them when
//! the test ends, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::patience::until;
use super::program::said;

/// The namespace that holds the bridge.
const SWITCH: &str = "switch";

/// Beginning of every namespace's name; the process id of the test follows, then a number.
const PREFIX: &str = "evenkeel-";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A switch, the hosts on it, and a folder for their files.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    hosts: Vec<String>,
    folder: PathBuf,
}

impl Network {
    /// A switch without hosts.
    #[track_caller]
    pub(crate) fn new() -> Self {
        sweep();
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

    /// A host at `address`, in a network of 24 bits.
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

    /// A command that will run on `host`; the process that is started becomes it.
    pub(crate) fn command(&self, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).args(words);
        command
    }

    /// The words that run what follows them on `host`.
    pub(crate) fn words(&self, host: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(host)].map(str::to_owned).to_vec()
    }

    /// Kills all that runs on `host`, without warning, and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill_all(&self, host: &str) {
        kill_all(&self.namespace(host));
    }

    /// A file of this network, which is gone with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    #[track_caller]
    fn add_namespace(&mut self, host: &str) {
        let namespace = self.namespace(host);
        // First, so that it is removed also when what follows fails.
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

/// Whether this machine lets us make networks; if not, why.
pub(crate) fn allowed() -> Result<(), String> {
    static ALLOWED: OnceLock<Result<(), String>> = OnceLock::new();
    ALLOWED.get_or_init(attempt).clone()
}

fn attempt() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root, to make network namespaces".to_owned());
    }
    let namespace = format!("{PREFIX}{}-try", std::process::id());
    let script = "ip netns add $0 && ip netns exec $0 unshare --uts true; ip netns delete $0";
    let tried = Command::new("sh").args(["-ec", script, &namespace]).output();
    let tried = tried.map_err(|error| error.to_string()).and_then(|output| said(&output));
    tried.map(drop).map_err(|why| format!("network namespaces cannot be made here: {why}"))
}

/// Removes what tests that were killed have left: their process ids are nobody's.
fn sweep() {
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

/// May be called while other tests do the same, and while a panic unwinds: fails silently.
fn remove(namespace: &str) {
    for pid in pids(namespace) {
        kill(pid, Signal::SIGKILL).ok();
    }
    drop(Command::new("ip").args(["netns", "delete", namespace]).output());
}

#[track_caller]
fn kill_all(namespace: &str) {
    for pid in pids(namespace) {
        // Gone meanwhile, with its parent, is as good.
        kill(pid, Signal::SIGKILL).ok();
    }
    until("all that ran on the host is gone", || pids(namespace).is_empty());
}

/// What runs there; what is dead and not yet waited for is not in any namespace.
fn pids(namespace: &str) -> Vec<Pid> {
    let found = Command::new("ip").args(["netns", "pids", namespace]).output();
    let text = found.map(|output| output.stdout).unwrap_or_default();
    let lines = String::from_utf8_lossy(&text).into_owned();
    lines.lines().filter_map(|pid| pid.trim().parse().ok()).map(Pid::from_raw).collect()
}

/// What `command` printed; it must succeed.
#[track_caller]
pub(crate) fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    said(&output).unwrap_or_else(|why| panic!("{command:?}: {why}"))
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
