//! The start: without a file, and failures with their remedies.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use evenkeel::sys::thread::allowed_cores;
use nix::unistd::Group;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::fetch;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, http, skip};

const ONLY_ROOT: &str = "only root can change to another user";

fn run(env: &TestEnv, text: &str) -> Output {
    Command::new(PROGRAM).args(["run", "-c"]).arg(write_config(env, text)).output().unwrap()
}

/// The number of the line that contains `part`.
fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).unwrap() + 1
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part} is not in: {stderr}");
    }
}

#[test]
fn it_runs_without_a_configuration_file() {
    let env = TestEnv::new();
    let (a, b) = (Server::naming("a", env.port(9001)), Server::naming("b", env.port(9002)));
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--bind", &env.frontend().to_string()]);
    command.args(["--server", &a.address.to_string(), "--server", &b.address.to_string()]);
    // The default addresses of the metrics and the control socket may be in use on this machine:
    // then it runs without them, with a warning.
    let balancer = Balancer::spawn(&env, command);
    until("connections are served", || fetch(env.frontend()).is_ok());
    let turns: String = (0..4).map(|_| fetch(env.frontend()).unwrap()).collect();
    assert!(turns == "abab" || turns == "baba", "{turns}");
    drop(balancer);
}

#[test]
fn a_port_in_use_is_reported_with_its_line_and_a_remedy() {
    let env = TestEnv::new();
    let taken = Server::echo(env.frontend());
    let text = Config::new(&env).server("a", env.port(9001)).text();
    let at = format!("evenkeel.toml:{}:", line_of(&text, "bind = ["));
    let output = run(&env, &text);
    assert_fails(&output, 1, &[&at, &taken.address.to_string(), "in use", "ss -ltnp"]);
}

#[test]
fn every_address_in_use_is_reported_at_once() {
    let env = TestEnv::new();
    let _taken = [Server::echo(env.frontend()), Server::echo(env.observe())];
    let text = Config::new(&env).server("a", env.port(9001)).text();
    let output = run(&env, &text);
    assert_fails(&output, 1, &[&env.frontend().to_string(), &env.observe().to_string()]);
}

#[test]
fn warnings_before_a_failed_start_are_written_too() {
    let env = TestEnv::new();
    let _taken = Server::echo(env.frontend());
    let text = Config::new(&env).global("user = \"nobody\"").server("a", env.port(9001)).text();
    let file = write_config(&env, &text);
    let output = plain_user(&env).args(["run", "-c"]).arg(file).output().unwrap();
    assert_fails(&output, 1, &["user and group are not changed", "in use"]);
}

#[test]
fn with_a_file_a_default_address_of_the_metrics_in_use_is_an_error() {
    // In a network namespace of its own: the default address is on the loopback of this machine.
    if !crate::network_namespace::enter(
        "with_a_file_a_default_address_of_the_metrics_in_use_is_an_error",
    ) {
        return;
    }
    let env = TestEnv::new();
    let _taken = Server::echo("127.0.0.1:8404".parse().unwrap());
    let text = Config::new(&env).server("a", env.port(9001)).text();
    let bind = format!("bind = \"{}\"\n", env.observe());
    let output = run(&env, &text.replacen(&bind, "", 1));
    assert_fails(&output, 1, &["evenkeel.toml: ", "127.0.0.1:8404 is in use", "set observe.bind"]);
}

#[test]
fn a_plain_user_runs_without_the_default_control_socket() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let text = Config::new(&env).server("a", server.address).text();
    let text: String = text.split_inclusive('\n').filter(|line| !is_control(line)).collect();
    let mut command = plain_user(&env);
    command.args(["run", "-c"]).arg(write_config(&env, &text));
    let balancer = Balancer::start_command(&env, command);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
    until("the warning is logged", || {
        balancer.application_log().contains("observe.control is off")
    });
}

fn is_control(line: &str) -> bool {
    line.starts_with("control = ")
}

/// The command that runs evenkeel as a user without privileges.
fn plain_user(env: &TestEnv) -> Command {
    plain_user_by(env, &["env"])
}

/// As `plain_user`, started by another program.
fn plain_user_by(env: &TestEnv, by: &[&str]) -> Command {
    if !nix::unistd::geteuid().is_root() {
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(PROGRAM);
        return command;
    }
    let program = env.file("evenkeel");
    // A copy in a directory that another user may enter and write to. Another process copies it: a
    // child of a concurrent test would inherit our descriptor that is open for writing, and then
    // the copy cannot be executed (ETXTBSY).
    assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().unwrap().success());
    open_to_all(env.folder());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(by).arg(program);
    command
}

#[test]
fn a_start_without_permission_for_threads_fails_with_a_message() {
    let env = TestEnv::new();
    let text = Config::new(&env).global("user = \"nobody\"").server("a", env.port(9001)).text();
    let mut command = plain_user_by(&env, &["prlimit", "--nproc=1"]);
    let output = command.args(["run", "-c"]).arg(write_config(&env, &text)).output().unwrap();
    assert_fails(&output, 1, &["user and group are not changed", "no log: "]);
}

#[test]
fn too_little_locked_memory_is_reported_with_a_remedy_at_every_limit() {
    // From 0 to almost enough for two workers. Kernels before 6.14 charge it to the cgroup.
    let mut refused = Vec::new();
    for kib in [0, 8, 16, 32, 64, 128, 256, 512] {
        let env = TestEnv::new();
        let config = Config::new(&env).workers(2).global("user = \"nobody\"");
        let text = config.server("a", env.port(9001)).text();
        let limit = format!("--memlock={}", kib * 1024);
        let mut command = plain_user_by(&env, &["prlimit", &limit]);
        command.args(["run", "-c"]).arg(write_config(&env, &text));
        let mut balancer = Balancer::spawn(&env, command);
        until("it is ready or has ended", || {
            !balancer.runs() || http::get(env.observe(), "/readyz").is_ok()
        });
        if balancer.runs() {
            break;
        }
        let log = balancer.application_log();
        assert_eq!(balancer.wait().code(), Some(1), "{kib} KiB: {log}");
        assert!(log.contains("RLIMIT_MEMLOCK") && log.contains("ulimit -l "), "{kib} KiB: {log}");
        refused.push(kib);
    }
    if refused.is_empty() {
        skip(
            "too_little_locked_memory_is_reported_with_a_remedy_at_every_limit",
            "this kernel does not charge rings to RLIMIT_MEMLOCK",
        );
    }
}

#[test]
fn port_80_without_privileges_is_reported_with_a_remedy() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|first| first.trim().parse().is_ok_and(|first: u32| first <= 80)) {
        skip("port_80_without_privileges_is_reported_with_a_remedy", "every user may bind it");
        return;
    }
    let env = TestEnv::new();
    let config = Config::new(&env).bind(env.port(80)).server("a", env.port(9001));
    let text = config.text();
    let file = write_config(&env, &text);
    let output = plain_user(&env).args(["run", "-c"]).arg(file).output().unwrap();
    let at = format!("evenkeel.toml:{}:", line_of(&text, "bind = ["));
    assert_fails(&output, 1, &[&at, "not permitted", "CAP_NET_BIND_SERVICE"]);
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o777);
}

#[test]
fn an_unknown_user_is_reported_with_its_line() {
    if !nix::unistd::geteuid().is_root() {
        skip("an_unknown_user_is_reported_with_its_line", ONLY_ROOT);
        return;
    }
    let env = TestEnv::new();
    let config = Config::new(&env).global("user = \"no-such-user\"");
    let text = config.server("a", env.port(9001)).text();
    let at = format!("evenkeel.toml:{}:", line_of(&text, "no-such-user"));
    assert_fails(&run(&env, &text), 64, &[&at, "no user", "useradd"]);
}

#[test]
fn root_changes_to_the_configured_user_and_the_control_socket_works() {
    if !nix::unistd::geteuid().is_root() {
        skip("root_changes_to_the_configured_user_and_the_control_socket_works", ONLY_ROOT);
        return;
    }
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    open_to_all(env.folder());
    let config = Config::new(&env).bind(env.port(80)).global("user = \"nobody\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let ids: Vec<&str> = uid.split_whitespace().collect();
    assert_eq!(ids, ["65534"; 4], "real, effective, saved and file system user id");
    assert_eq!(fetch(env.port(80)).unwrap(), "a");
    balancer.control_ok(&["status"]);
}

#[test]
fn root_changes_to_the_configured_group_and_leaves_its_own_groups() {
    if !nix::unistd::geteuid().is_root() {
        skip("root_changes_to_the_configured_group_and_leaves_its_own_groups", ONLY_ROOT);
        return;
    }
    let daemon = Group::from_name("daemon").unwrap().expect("a group of every distribution");
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    open_to_all(env.folder());
    let config = Config::new(&env).global("user = \"nobody\"\ngroup = \"daemon\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
    let ids = |field| {
        let ids = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
    };
    let gid = daemon.gid.as_raw();
    assert_eq!(ids("Gid:"), [gid; 4], "real, effective, saved and file system group id");
    assert_eq!(ids("Groups:"), [gid], "supplementary groups");
    assert_eq!(ids("Uid:"), [65_534; 4]);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
}

/// The cores that each worker may use, in the notation of `cpuset(7)`.
fn cores_of_workers(balancer: &Balancer<'_>) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
    let status = threads.map(|thread| thread.unwrap().path().join("status"));
    let mut workers: Vec<(String, String)> = status
        .filter_map(|path| {
            let status = std::fs::read_to_string(path).ok()?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
            let worker = field("Name:")?.trim().strip_prefix("worker-")?.to_owned();
            Some((worker, field("Cpus_allowed_list:")?.trim().to_owned()))
        })
        .collect();
    workers.sort();
    workers.into_iter().map(|(_, cores)| cores).collect()
}

#[test]
fn with_pin_each_worker_has_a_core_of_its_own_and_without_it_all_of_them() {
    let cores = allowed_cores().unwrap();
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let all = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).workers(cores.len().min(4)).server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(cores_of_workers(&balancer), vec![all; cores.len().min(4)]);
    drop(balancer);
    let balancer = Balancer::start(&env, &config.global("pin = true"));
    let pinned: Vec<String> = cores.iter().take(4).map(ToString::to_string).collect();
    assert_eq!(cores_of_workers(&balancer), pinned);
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
}

#[test]
fn an_invalid_file_is_refused_with_all_its_problems() {
    let env = TestEnv::new();
    let config = Config::new(&env).frontend("idle_timeuot = \"1s\"").backend("retries = -1");
    let text = config.server("a", env.port(9001)).text();
    let output = run(&env, &text);
    let (one, two) = (line_of(&text, "idle_timeuot"), line_of(&text, "retries"));
    let at = [format!("evenkeel.toml:{one}:"), format!("evenkeel.toml:{two}:")];
    assert_fails(&output, 64, &[&at[0], &at[1], "idle_timeout"]);
}

#[test]
fn check_and_doctor_say_that_the_running_evenkeel_uses_its_addresses() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let unix = format!("unix:{}", env.file("web.sock").display());
    let more = format!("[frontend.unix]\nbind = [\"{unix}\"]\nbackend = \"web\"");
    let config = Config::new(&env).server("a", server.address).more(&more);
    let balancer = Balancer::start(&env, &config);
    // A frontend below the address that the balancer has, and a program that is not evenkeel.
    let taken = Server::naming("b", env.port(9002));
    let more = format!("[frontend.taken]\nbind = [\"{}\"]\nbackend = \"web\"", taken.address);
    balancer.rewrite(&config.more(&more).text());
    let examine = |command: &str| {
        let file = env.file("evenkeel.toml");
        Command::new(PROGRAM).args([command, "-c"]).arg(file).output().unwrap()
    };
    let check = examine("check");
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(check.status.success(), "{said}");
    let doctor = String::from_utf8(examine("doctor").stdout).unwrap();
    for address in [env.frontend().to_string(), env.observe().to_string(), unix] {
        let note =
            format!("{address} is in use by the running evenkeel (process {})", balancer.pid());
        let line = said.lines().find(|line| line.contains(&note));
        assert!(line.is_some_and(|line| line.contains(": note: ")), "{said}");
        let is_ok = |line: &str| line.starts_with("ok ") && line.contains(&note);
        assert!(doctor.lines().any(is_ok), "{doctor}");
    }
    let control = format!("{} is in use by the running", env.file("control.sock").display());
    assert!(said.contains(&control), "{said}");
    let warning = format!("warning: {} is in use; stop the program", taken.address);
    assert!(said.contains(&warning), "{said}");
    assert_eq!(said.lines().count(), 5, "{said}");
}
