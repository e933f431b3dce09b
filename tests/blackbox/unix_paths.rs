//! The paths of unix sockets: other paths to the same socket, a file that somebody has removed, and
//! a server whose backlog is full.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use socket2::SockAddr;

use crate::common::balancer::{PROGRAM, printed, run_command, write_config};
use crate::common::client::{Ending, connect_and_read};
use crate::common::wait::until;
use crate::common::{Balancer, Config, TestEnv, echoing, skip};
use crate::health_exchange::until_logged;
use crate::unix::{
    Naming, accept, dial, drain, fetch, frontend, full_backlog, listen, named, pour, socket_of,
};

#[test]
fn a_cycle_through_another_path_of_a_socket_is_refused() {
    for kind in ["directory", "file", "bind mount"] {
        let env = TestEnv::new();
        let (real, other) = (env.file("real"), env.file("other"));
        fs::create_dir(&real).unwrap();
        let server = other.join("web.sock");
        match kind {
            "directory" => symlink("real", &other).unwrap(),
            "file" => {
                fs::create_dir(&other).unwrap();
                symlink("../real/web.sock", &server).unwrap();
            }
            _ => {
                fs::create_dir(&other).unwrap();
                let mounted = Command::new("mount").arg("--bind").args([&real, &other]).output();
                if !mounted.is_ok_and(|output| output.status.success()) {
                    let test = "a_cycle_through_another_path_of_a_socket_is_refused";
                    skip(test, "the bind mount: mount(8) is not permitted");
                    continue;
                }
            }
        }
        let bind = real.join("web.sock");
        let text = Config::new(&env)
            .more(&format!(
                "[frontend.unix]\nbind = [\"unix:{}\"]\nbackend = \"web\"\n",
                bind.display()
            ))
            .more(&named("a", &server))
            .text();
        let mut balancer = Balancer::spawn(&env, run_command(&env, &text));
        until("the start is refused", || !balancer.runs());
        let code = balancer.wait().code();
        let mut check = Command::new(PROGRAM);
        check.args(["check", "-c"]).arg(write_config(&env, &text));
        let output = printed(&check.output().unwrap());
        if kind == "bind mount" {
            drop(Command::new("umount").arg(&other).output());
        }
        assert_eq!(code, Some(64), "{kind}");
        let is_itself = format!("server \"a\" at unix:{} is frontend \"unix\"", server.display());
        assert!(output.contains(&is_itself), "{kind}: {output}");
    }
}

#[test]
fn a_reload_binds_a_socket_whose_file_was_removed() {
    let env = TestEnv::new();
    let (path, server) = (env.file("web.sock"), env.file("server.sock"));
    let listener = listen(&SockAddr::unix(&server).unwrap(), 128);
    let config = Config::new(&env).workers(2).more(&frontend(&env, "")).more(&named("a", &server));
    let balancer = Balancer::start(&env, &config);
    let before = dial(&socket_of(&env)).unwrap();
    let before_server = accept(&listener);
    fs::remove_file(&path).unwrap();
    assert!(dial(&socket_of(&env)).is_err());
    let plan = balancer.control(&["reload", "--dry-run"]);
    assert!(plan.status.success(), "{}", printed(&plan));
    assert!(!path.exists());
    balancer.reload(&config);
    let (client, at_server) = (dial(&socket_of(&env)).unwrap(), accept(&listener));
    for (client, server) in [(client, at_server), (before, before_server)] {
        pour(&client, b"in");
        assert_eq!(drain(&server), b"in");
    }
    // Once more: the file is that of the new socket.
    balancer.reload(&config);
    drop((dial(&socket_of(&env)).unwrap(), accept(&listener)));
    balancer.assert_no_leaks();
    balancer.reload(&Config::new(&env).workers(2).more(&named("a", &server)));
    assert!(!path.exists());
}

#[test]
fn a_server_with_a_full_backlog_is_busy_and_not_down() {
    let env = TestEnv::new();
    let [full, good] = ["full", "good"].map(|name| env.file(&format!("{name}.sock")));
    let full_backlog = full_backlog(&full);
    let errors = "errors = { count = 2, within = \"1m\", down = \"1h\" }";
    let config = Config::new(&env).health(&format!("check = \"off\"\n{errors}"));
    let config = config.more(&frontend(&env, "")).more(&named("full", &full));
    let server = Naming::start(&good, "good");
    let balancer = Balancer::start(&env, &config.more(&named("good", &good)));
    for _ in 0..8 {
        assert_eq!(fetch(&socket_of(&env)).unwrap(), "good", "another server is tried");
    }
    let metrics = balancer.metrics();
    let busy = [("server", "full"), ("reason", "busy")];
    assert!(metrics.value("evenkeel_server_connect_failures_total", &busy) >= 4.0);
    drop(full_backlog);
    fs::remove_file(&full).unwrap();
    // A server that is gone is taken down by as many failures.
    balancer.metrics_until("the server is down", |metrics| {
        assert_eq!(fetch(&socket_of(&env)).unwrap(), "good");
        !metrics.up("full")
    });
    until_logged(&balancer, "server web/full is down: connects of sessions failed");
    let log = balancer.application_log();
    assert!(
        log.contains("(last: refused)") && log.matches("web/full is down").count() == 1,
        "{log}"
    );
    drop(server);
    balancer.assert_no_leaks();
}

#[test]
fn a_client_of_a_unix_socket_that_stops_in_its_preface_costs_few_turns() {
    let env = TestEnv::new();
    let lines = "sni = { \"a.test\" = \"web\" }\npreface_timeout = \"2s\"";
    let config = Config::new(&env).more(&frontend(&env, lines)).server("a", env.port(9001));
    let balancer = Balancer::start(&env, &config);
    let turns = || balancer.metrics().sum("evenkeel_worker_turns_total", &[]);
    let before = turns();
    let mut client = dial(&socket_of(&env)).unwrap();
    client.write_all(b"\x16").unwrap();
    // It reads a reset, as its byte was never read.
    assert!(client.read(&mut [0]).is_err());
    balancer.session_ended("cR preface_timeout");
    let spent = turns() - before;
    assert!(spent < 100.0, "{spent} turns in 2 s");
    assert_eq!(connect_and_read(env.frontend()).1, Ending::Reset, "and others are served");
}

#[test]
fn a_user_who_locks_the_directory_of_a_socket_prevents_no_start_and_no_reload() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let at = |name: &str| {
        let path = env.file(name);
        format!("[frontend.unix]\nbind = [\"unix:{}\"]\nbackend = \"web\"\n", path.display())
    };
    let folder = fs::File::open(env.folder()).unwrap();
    let _locked = Flock::lock(folder, FlockArg::LockExclusive).unwrap();
    let balancer = Balancer::start(&env, &config.clone().more(&at("one.sock")));
    UnixStream::connect(env.file("one.sock")).unwrap();
    balancer.reload(&config.more(&at("two.sock")));
    UnixStream::connect(env.file("two.sock")).unwrap();
}
