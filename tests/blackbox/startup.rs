//! Starting: without a file, and when it cannot be.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::visit;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Place, Server, http, skip};

const ONLY_ROOT: &str = "only root can become another user";

fn run(place: &Place, text: &str) -> Output {
    Command::new(PROGRAM).args(["run", "-c"]).arg(write_config(place, text)).output().unwrap()
}

/// The line of the file in which `part` stands.
fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).unwrap() + 1
}

#[track_caller]
fn assert_says(output: &Output, code: i32, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

#[test]
fn it_runs_without_a_file() {
    let place = Place::new();
    let (a, b) = (Server::naming("a", place.port(9001)), Server::naming("b", place.port(9002)));
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--bind", &place.frontend().to_string()]);
    command.args(["--server", &a.address.to_string(), "--server", &b.address.to_string()]);
    // The default addresses of metrics and control socket may be in use on this machine; then it
    // does without them, and says so.
    let balancer = Balancer::spawn(&place, command);
    until("it serves", || visit(place.frontend()).is_ok());
    let turns: String = (0..4).map(|_| visit(place.frontend()).unwrap()).collect();
    assert!(turns == "abab" || turns == "baba", "{turns}");
    drop(balancer);
}

#[test]
fn a_port_in_use_names_the_line_and_the_remedy() {
    let place = Place::new();
    let taken = Server::echo(place.frontend());
    let text = Config::new(&place).server("a", place.port(9001)).text();
    let at = format!("evenkeel.toml:{}:", line_of(&text, "bind = ["));
    let output = run(&place, &text);
    assert_says(&output, 1, &[&at, &taken.address.to_string(), "in use", "ss -ltnp"]);
}

#[test]
fn every_address_that_cannot_be_had_is_named_at_once() {
    let place = Place::new();
    let _taken = [Server::echo(place.frontend()), Server::echo(place.observe())];
    let text = Config::new(&place).server("a", place.port(9001)).text();
    let output = run(&place, &text);
    assert_says(&output, 1, &[&place.frontend().to_string(), &place.observe().to_string()]);
}

#[test]
fn what_was_said_before_it_could_not_start_is_written_too() {
    let place = Place::new();
    let _taken = Server::echo(place.frontend());
    let text = Config::new(&place).global("user = \"nobody\"").server("a", place.port(9001)).text();
    let file = write_config(&place, &text);
    let output = plain_user(&place).args(["run", "-c"]).arg(file).output().unwrap();
    assert_says(&output, 1, &["user and group stay what they are", "in use"]);
}

#[test]
fn a_default_of_a_file_that_cannot_be_had_is_an_error() {
    // On loopback of its own, or the default would be this machine's.
    if !crate::alone::alone("a_default_of_a_file_that_cannot_be_had_is_an_error") {
        return;
    }
    let place = Place::new();
    let _taken = Server::echo("127.0.0.1:8404".parse().unwrap());
    let text = Config::new(&place).server("a", place.port(9001)).text();
    let written = format!("bind = \"{}\"\n", place.observe());
    let output = run(&place, &text.replacen(&written, "", 1));
    assert_says(&output, 1, &["evenkeel.toml: ", "127.0.0.1:8404 is in use", "set observe.bind"]);
}

#[test]
fn a_plain_user_needs_no_folder_for_the_default_control_socket() {
    let place = Place::new();
    let server = Server::naming("a", place.port(9001));
    let text = Config::new(&place).server("a", server.address).text();
    let text: String = text.split_inclusive('\n').filter(|line| !is_control(line)).collect();
    let mut command = plain_user(&place);
    command.args(["run", "-c"]).arg(write_config(&place, &text));
    let balancer = Balancer::start_command(&place, command);
    assert_eq!(visit(place.frontend()).unwrap(), "a");
    until("it says so", || balancer.complaints().contains("observe.control is off"));
}

fn is_control(line: &str) -> bool {
    line.starts_with("control = ")
}

/// The program as a plain user runs it.
fn plain_user(place: &Place) -> Command {
    plain_user_by(place, &["env"])
}

/// As `plain_user`, started by another program.
fn plain_user_by(place: &Place, by: &[&str]) -> Command {
    if !nix::unistd::geteuid().is_root() {
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(PROGRAM);
        return command;
    }
    let program = place.file("evenkeel");
    // Where another user may read and run it, and make its control socket. Copied by another
    // process: a child that some other test starts meanwhile would have our copy open, and it
    // could not run.
    assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().unwrap().success());
    open_to_all(place.folder());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(by).arg(program);
    command
}

#[test]
fn a_machine_that_gives_no_thread_is_said_to() {
    let place = Place::new();
    let text = Config::new(&place).global("user = \"nobody\"").server("a", place.port(9001)).text();
    let mut command = plain_user_by(&place, &["prlimit", "--nproc=1"]);
    let output = command.args(["run", "-c"]).arg(write_config(&place, &text)).output().unwrap();
    assert_says(&output, 1, &["user and group stay what they are", "no log: "]);
}

#[test]
fn too_little_locked_memory_is_named_with_its_remedy_however_little_is_missing() {
    // From none to almost enough for two workers; kernels before 6.14 charge it to the cgroup.
    let mut refused = Vec::new();
    for kib in [0, 8, 16, 32, 64, 128, 256, 512] {
        let place = Place::new();
        let config = Config::new(&place).workers(2).global("user = \"nobody\"");
        let text = config.server("a", place.port(9001)).text();
        let limit = format!("--memlock={}", kib * 1024);
        let mut command = plain_user_by(&place, &["prlimit", &limit]);
        command.args(["run", "-c"]).arg(write_config(&place, &text));
        let mut balancer = Balancer::spawn(&place, command);
        until("it runs or has ended", || {
            !balancer.runs() || http::get(place.observe(), "/readyz").is_ok()
        });
        if balancer.runs() {
            break;
        }
        let said = balancer.complaints();
        assert_eq!(balancer.wait().code(), Some(1), "{kib} KiB: {said}");
        assert!(
            said.contains("RLIMIT_MEMLOCK") && said.contains("ulimit -l "),
            "{kib} KiB: {said}"
        );
        refused.push(kib);
    }
    if refused.is_empty() {
        skip(
            "too_little_locked_memory_is_named_with_its_remedy_however_little_is_missing",
            "this kernel does not charge rings to RLIMIT_MEMLOCK",
        );
    }
}

#[test]
fn a_plain_user_who_wants_port_80_is_told_what_to_do() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|first| first.trim().parse().is_ok_and(|first: u32| first <= 80)) {
        skip("a_plain_user_who_wants_port_80_is_told_what_to_do", "here anybody may bind it");
        return;
    }
    let place = Place::new();
    let config = Config::new(&place).bind(place.port(80)).server("a", place.port(9001));
    let text = config.text();
    let file = write_config(&place, &text);
    let output = plain_user(&place).args(["run", "-c"]).arg(file).output().unwrap();
    let at = format!("evenkeel.toml:{}:", line_of(&text, "bind = ["));
    assert_says(&output, 1, &[&at, "not permitted", "CAP_NET_BIND_SERVICE"]);
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o777);
}

#[test]
fn a_user_who_does_not_exist_is_named_with_the_line() {
    if !nix::unistd::geteuid().is_root() {
        skip("a_user_who_does_not_exist_is_named_with_the_line", ONLY_ROOT);
        return;
    }
    let place = Place::new();
    let config = Config::new(&place).global("user = \"no-such-user\"");
    let text = config.server("a", place.port(9001)).text();
    let at = format!("evenkeel.toml:{}:", line_of(&text, "no-such-user"));
    assert_says(&run(&place, &text), 64, &[&at, "no user", "useradd"]);
}

#[test]
fn root_becomes_the_user_that_is_named_and_can_still_be_ordered_about() {
    if !nix::unistd::geteuid().is_root() {
        skip("root_becomes_the_user_that_is_named_and_can_still_be_ordered_about", ONLY_ROOT);
        return;
    }
    let place = Place::new();
    let server = Server::naming("a", place.port(9001));
    open_to_all(place.folder());
    let config = Config::new(&place).bind(place.port(80)).global("user = \"nobody\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let ids: Vec<&str> = uid.split_whitespace().collect();
    assert_eq!(ids, ["65534"; 4], "every one of them, or it could come back");
    assert_eq!(visit(place.port(80)).unwrap(), "a");
    balancer.obeys(&["status"]);
}

#[test]
fn a_bad_file_is_refused_with_all_its_problems() {
    let place = Place::new();
    let config = Config::new(&place).frontend("idle_timeuot = \"1s\"").backend("retries = -1");
    let text = config.server("a", place.port(9001)).text();
    let output = run(&place, &text);
    let (one, two) = (line_of(&text, "idle_timeuot"), line_of(&text, "retries"));
    let at = [format!("evenkeel.toml:{one}:"), format!("evenkeel.toml:{two}:")];
    assert_says(&output, 64, &[&at[0], &at[1], "idle_timeout"]);
}
