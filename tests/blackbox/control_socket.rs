//! The control socket and users who may not use it (case 99).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::common::balancer::{PROGRAM, printed, run_command};
use crate::common::wait::StopOnDrop;
use crate::common::{Balancer, TestEnv, echoing, skip};

/// A user without privileges: in Debian "nobody", and a number that nobody has.
const NOBODY: u32 = 65_534;
const STRANGER: u32 = 65_533;

/// Whether this test may act as other users; if not, `test` is reported as skipped.
fn may_change_user(test: &str) -> bool {
    if !geteuid().is_root() {
        skip(test, "only root can change to another user");
    }
    geteuid().is_root()
}

/// A copy of evenkeel that every user can execute, in a directory that every user can write to.
fn open_to_all(env: &TestEnv) {
    let copied = Command::new("cp").arg(PROGRAM).arg(env.file("evenkeel")).status();
    assert!(copied.unwrap().success());
    fs::set_permissions(env.folder(), fs::Permissions::from_mode(0o777)).unwrap();
}

/// `evenkeel status`, run by a user.
fn status_by(user: u32, env: &TestEnv) -> Output {
    let mut command = Command::new("setpriv");
    command.args([
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".to_owned(),
    ]);
    command.arg(env.file("evenkeel")).args(["status", "--control"]).arg(env.file("control.sock"));
    command.output().unwrap()
}

/// Ends a process in order: its addresses are free then.
fn stop(balancer: &mut Balancer<'_>) {
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
}

#[test]
fn only_root_and_the_user_of_the_balancer_are_answered() {
    let test = "only_root_and_the_user_of_the_balancer_are_answered";
    if !may_change_user(test) {
        return;
    }
    let env = TestEnv::new();
    open_to_all(&env);
    let (config, _server) = echoing(&env);
    for (config, others) in [
        (config.clone(), &[NOBODY, STRANGER][..]),
        (config.global("user = \"nobody\""), &[STRANGER]),
    ] {
        let mut balancer = Balancer::start(&env, &config);
        balancer.control_ok(&["status"]);
        if !others.contains(&NOBODY) {
            let output = status_by(NOBODY, &env);
            assert!(output.status.success(), "{}", printed(&output));
        }
        let refused = |user: u32, why: &str| {
            let output = status_by(user, &env);
            assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
            assert!(printed(&output).contains(why), "{}", printed(&output));
        };
        let socket = env.file("control.sock");
        others.iter().for_each(|user| refused(*user, "no permission for"));
        // The mode is one lock; evenkeel asks the kernel who the peer is (SO_PEERCRED).
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        others.iter().for_each(|user| refused(*user, "permission denied: run as root"));
        balancer.control_ok(&["status"]);
        stop(&mut balancer);
    }
}

#[test]
fn the_socket_has_its_mode_from_its_first_moment_whatever_the_umask_is() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (socket, ended) = (env.file("control.sock"), AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !ended.load(Ordering::Relaxed) {
                if let Ok(found) = fs::symlink_metadata(&socket) {
                    assert_eq!(found.mode() & 0o777, 0o600, "seen {seen} times before");
                    seen += 1;
                }
            }
            seen
        });
        let end = StopOnDrop(&ended);
        for _ in 0..5 {
            let run = run_command(&env, &config.text());
            let mut command = Command::new("sh");
            command.args(["-c", "umask 0; exec \"$@\"", "sh"]);
            command.arg(run.get_program()).args(run.get_args());
            stop(&mut Balancer::start_command(&env, command));
            assert!(!socket.exists());
        }
        drop(end);
        watcher.join().map_err(std::panic::resume_unwind).unwrap()
    });
    assert!(seen > 0);
}

#[test]
fn a_link_at_the_path_is_neither_followed_nor_replaced() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let (socket, target) = (env.file("control.sock"), env.file("target"));
    for exists in [false, true] {
        if exists {
            fs::write(&target, "kept").unwrap();
        }
        symlink(&target, &socket).unwrap();
        let output = run_command(&env, &config.text()).output().unwrap();
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("exists and is not a socket"), "{text}");
        assert_eq!(fs::read_link(&socket).unwrap(), target);
        assert_eq!(Path::new(&target).exists(), exists);
        fs::remove_file(&socket).unwrap();
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
}
