//! What a running evenkeel may still do: `no_new_privs`, capabilities, Landlock, seccomp.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use evenkeel::sys::landlock::{Landlock, Rules};
use evenkeel::sys::seccomp::{self, Seccomp};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::common::balancer::{Outputs, PROGRAM, printed, run_command};
use crate::common::client::fetch;
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, echoing, skip};

/// Set for the test process that [`in_confined_process`] starts.
const CONFINED: &str = "EVENKEEL_TEST_CONFINED";

/// Both keys off.
const OFF: &str = "landlock = false\nseccomp = false";

/// Landlock for a process that creates sockets in `folder` only, and executes this test and
/// evenkeel.
fn rules(folder: &Path) -> Rules {
    let mut rules = Rules::new(BTreeSet::from([folder.to_owned()]));
    rules.executes.extend(Path::new(PROGRAM).parent().map(PathBuf::from));
    rules
}

/// These rules and the filter. None: this kernel does not have both.
fn confine(test: &str, folder: &Path) -> Option<()> {
    match (rules(folder).confine_thread().unwrap(), seccomp::confine_thread().unwrap()) {
        (Landlock::InForce(_) | Landlock::Inherited, Seccomp::InForce(_)) => Some(()),
        missing => {
            skip(test, &format!("not in force on this kernel: {missing:?}"));
            None
        }
    }
}

/// Runs `step` in a thread of its own that is confined.
fn in_confined_thread(test: &str, folder: &Path, step: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| confine(test, folder).map(|()| step()));
        thread.join().map_err(std::panic::resume_unwind).unwrap();
    });
}

/// Runs the test of this name again, in a process that is confined.
fn in_confined_process(test: &str) -> Output {
    let name = format!("confinement::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--nocapture"]).env(CONFINED, "1").output().unwrap()
}

fn is_confined() -> bool {
    std::env::var_os(CONFINED).is_some()
}

/// A directory beside that of a test, removed with the value.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new(env: &TestEnv) -> Self {
        let folder = env.folder().with_extension("elsewhere");
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The value of a line of /proc/PID/task/TID/status, for every thread.
fn of_every_thread(pid: u32, name: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // One of them may have ended meanwhile.
    let status = tasks.flatten().flat_map(|task| fs::read_to_string(task.path().join("status")));
    let value = |status: String| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.map(|value| value.trim_start_matches(':').trim().to_owned())
    };
    status.filter_map(value).collect()
}

#[track_caller]
fn assert_log(balancer: &Balancer<'_>, part: &str) {
    until(&format!("the log has {part:?}"), || balancer.application_log().contains(part));
}

#[test]
fn every_thread_is_confined_and_has_no_capability_that_it_does_not_need() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config.workers(2));
    assert_log(&balancer, "confined: capabilities: ");
    let log = balancer.application_log();
    let one = |name: &str| {
        let all = of_every_thread(balancer.pid(), name);
        assert_eq!(all.len(), 1, "{name} differs between threads: {all:?}");
        all.into_iter().next().unwrap()
    };
    assert_eq!(one("NoNewPrivs"), "1");
    if log.contains("the seccomp filter is not in force") {
        skip("every_thread_is_confined", "this kernel has no seccomp");
    } else {
        assert_eq!(one("Seccomp"), "2");
    }
    // CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE, CAP_IPC_LOCK, CAP_SYS_RESOURCE.
    let needed = 1 << 1 | 1 << 10 | 1 << 14 | 1 << 24;
    let sets = if geteuid().is_root() {
        &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"][..]
    } else {
        &["CapInh", "CapPrm", "CapEff", "CapAmb"]
    };
    for set in sets {
        let bits = u64::from_str_radix(&one(set), 16).unwrap();
        assert_eq!(bits & !needed, 0, "{set}");
    }
    // A filter turns no mitigation on that costs speed: Linux 5.16 and newer, by default.
    let here = fs::read_to_string("/proc/self/status").unwrap();
    for name in ["Speculation_Store_Bypass", "SpeculationIndirectBranch"] {
        let own = here.lines().find_map(|line| line.strip_prefix(name));
        if let Some(own) = own {
            assert_eq!(one(name), own.trim_start_matches(':').trim(), "{name}");
        }
    }
}

#[test]
fn a_confined_process_changes_no_file_and_executes_no_other_program() {
    let test = "a_confined_process_changes_no_file_and_executes_no_other_program";
    let env = TestEnv::new();
    let (file, outside) = (env.file("file"), std::env::temp_dir());
    fs::write(&file, "kept").unwrap();
    in_confined_thread(test, env.folder(), || {
        let denied = |outcome: io::Result<()>, what: &str| {
            let error = outcome.expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}: {error}");
        };
        denied(fs::write("/etc/evenkeel-test", "x"), "a new file in /etc");
        denied(fs::write(&file, "x"), "another content");
        denied(fs::write(outside.join("evenkeel-test-file"), "x"), "a new file");
        denied(fs::create_dir(env.file("folder")), "a directory, even where sockets may be");
        denied(fs::rename(&file, env.file("moved")), "another name");
        denied(fs::hard_link(&file, env.file("link")), "a second name");
        let socket = outside.join(format!("evenkeel-test-{}.sock", std::process::id()));
        let bound = std::os::unix::net::UnixListener::bind(&socket).map(drop);
        denied(bound, "a socket in another directory");
        for program in ["/bin/sh", "/bin/true"] {
            denied(Command::new(program).output().map(drop), program);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        std::os::unix::net::UnixListener::bind(env.file("x.sock")).unwrap();
        fs::remove_file(env.file("x.sock")).unwrap();
        // What would follow it after an upgrade can start.
        let version = Command::new(PROGRAM).arg("--version").output().unwrap();
        assert!(version.status.success(), "{}", printed(&version));
    });
}

#[test]
fn a_hostile_system_call_ends_the_process() {
    let test = "a_hostile_system_call_ends_the_process";
    if is_confined() {
        let Some(()) = confine(test, &std::env::temp_dir()) else { return };
        unshare(CloneFlags::CLONE_NEWUSER).ok();
        return;
    }
    let output = in_confined_process(test);
    let skipped = printed(&output).contains("skipped: ");
    assert!(skipped || output.status.signal() == Some(Signal::SIGSYS as i32), "{output:?}");
}

#[test]
fn an_unknown_system_call_fails_and_the_process_goes_on() {
    let test = "an_unknown_system_call_fails_and_the_process_goes_on";
    let env = TestEnv::new();
    in_confined_thread(test, env.folder(), || {
        // memfd_create(2) and inotify_init1(2) are not in the list.
        let flags = nix::sys::memfd::MFdFlags::empty();
        assert_eq!(nix::sys::memfd::memfd_create(c"x", flags).unwrap_err(), nix::Error::EPERM);
        // Threads start although clone3(2) is answered with ENOSYS.
        assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
        // Large blocks of memory are moved (mremap).
        let mut block = vec![1_u8; 1 << 20];
        block.resize(64 << 20, 2);
        assert_eq!((block[0], block[block.len() - 1]), (1, 2));
    });
}

#[test]
fn a_panic_of_a_confined_process_is_printed_and_aborts() {
    let test = "a_panic_of_a_confined_process_is_printed_and_aborts";
    if is_confined() {
        let Some(()) = confine(test, &std::env::temp_dir()) else { return };
        // As in the program: a panic ends in abort(3).
        std::panic::catch_unwind(|| panic!("the confined process panics")).unwrap_err();
        std::process::abort();
    }
    let output = in_confined_process(test);
    let text = printed(&output);
    assert!(
        text.contains("skipped: ")
            || text.contains("the confined process panics")
                && output.status.signal() == Some(Signal::SIGABRT as i32),
        "{output:?}"
    );
}

#[test]
fn evenkeel_starts_in_a_process_that_is_confined_already_any_number_of_times() {
    let test = "evenkeel_starts_in_a_process_that_is_confined_already_any_number_of_times";
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", server.address);
    // A confined thread opens no file for writing.
    let [first, second] = [(); 2].map(|()| run_command(&env, &config.text()));
    let outputs = Outputs::of(&env);
    let append = |name| OpenOptions::new().append(true).open(env.file(name)).unwrap().into();
    let more = Outputs { stdout: append("sessions.log"), stderr: append("application.log") };
    in_confined_thread(test, env.folder(), || {
        let mut balancer = Balancer::start_with(&env, first, outputs);
        assert_eq!(fetch(env.frontend()).unwrap(), "a");
        balancer.control_ok(&["reload"]);
        balancer.signal(Signal::SIGTERM);
        assert!(balancer.wait().success());
        drop(balancer);
        // The kernel stacks 16 layers of Landlock, and 32,768 instructions of filters.
        let rules = rules(env.folder());
        assert!((0..99).any(|_| rules.confine_thread().unwrap() == Landlock::Inherited));
        assert!((0..999).any(|_| seccomp::confine_thread().unwrap() == Seccomp::Inherited));
        let balancer = Balancer::start_with(&env, second, more);
        assert_eq!(fetch(env.frontend()).unwrap(), "a");
        assert_log(&balancer, "Landlock: inherited; seccomp: inherited");
    });
}

#[test]
fn a_reload_that_needs_another_directory_names_landlock_and_changes_nothing() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let elsewhere = Elsewhere::new(&env);
    let path = elsewhere.0.join("new.sock");
    let new = format!("[frontend.new]\nbind = [\"unix:{}\"]\nbackend = \"web\"", path.display());
    let balancer = Balancer::start(&env, &config);
    if balancer.application_log().contains("Landlock is not in force") {
        let test = "a_reload_that_needs_another_directory_names_landlock_and_changes_nothing";
        return skip(test, "this kernel has no Landlock");
    }
    balancer.rewrite(&config.clone().more(&new).text());
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let output = balancer.control(arguments);
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("Landlock allows") && text.contains("global.landlock = false"),
            "{text}"
        );
        assert!(text.contains(&env.folder().display().to_string()), "{text}");
    }
    assert!(!path.exists());
    for command in ["check", "doctor"] {
        let file = env.file("evenkeel.toml");
        let output = Command::new(PROGRAM).args([command, "-c"]).arg(file).output().unwrap();
        let text = printed(&output);
        assert!(text.contains("a reload cannot create it"), "{text}");
    }
    // In a directory of the start, it can.
    let near = new.replace(&*path.to_string_lossy(), &env.file("new.sock").to_string_lossy());
    balancer.reload(&config.more(&near));
    assert!(env.file("new.sock").exists());
}

#[test]
fn both_keys_can_be_turned_off() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let elsewhere = Elsewhere::new(&env);
    let config = config.global(OFF);
    let balancer = Balancer::start(&env, &config);
    assert_eq!(of_every_thread(balancer.pid(), "Seccomp"), BTreeSet::from(["0".to_owned()]));
    assert_log(&balancer, "Landlock: off (global.landlock); seccomp: off (global.seccomp)");
    let path = elsewhere.0.join("new.sock");
    let new = format!("[frontend.new]\nbind = [\"unix:{}\"]\nbackend = \"web\"", path.display());
    balancer.reload(&config.clone().more(&new));
    assert!(path.exists());
    let doctor =
        Command::new(PROGRAM).args(["doctor", "-c"]).arg(env.file("evenkeel.toml")).output();
    let text = printed(&doctor.unwrap());
    assert!(text.contains("ok       Landlock: off (global.landlock = false)"), "{text}");
    assert!(text.contains("ok       seccomp: off (global.seccomp = false)"), "{text}");
    // A change of the keys waits for a restart.
    balancer.rewrite(&config.text().replace(OFF, ""));
    let answer = balancer.control_ok(&["reload"]);
    assert!(answer.ends_with("upgrade`: global.landlock, global.seccomp\n"), "{answer}");
}
