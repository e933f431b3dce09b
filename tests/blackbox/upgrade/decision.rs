//! Which process is in charge, whatever stops or delays one of them between the report of the new
//! one and the decision of the old one. The control thread of the old one is frozen meanwhile.

use std::net::TcpStream;
use std::time::Duration;

use super::load::{amount, listening, naming, under_load};
use super::played::message;
use super::*;
use crate::common::client::{connect, exchange};
use crate::common::echoing;
use crate::common::frozen::Frozen;
use crate::common::process::status_number;
use crate::common::skip;
use crate::common::wait::{holds_for, until_some};
use crate::supervisor::Supervisor;

const NO_PTRACE: &str = "a thread cannot be stopped here (ptrace(2))";

/// The program of an upgrade, which starts when the test says so.
struct Gated {
    gate: PathBuf,
    pid: PathBuf,
}

impl Gated {
    /// In the place of `program`: a shell that waits, and then does `then`.
    fn new(env: &TestEnv, program: &Path, then: &str) -> Self {
        let (gate, pid) = (env.file("gate"), env.file("pid"));
        let (open, written) = (gate.display(), pid.display());
        let note = format!("echo $$ > {written}");
        let wait = format!("while [ ! -e {open} ]; do sleep 0.05; done");
        replace_by_script(program, &format!("{note}\n{wait}\n{then}"));
        Self { gate, pid }
    }

    /// evenkeel itself.
    fn evenkeel(env: &TestEnv, program: &Path) -> Self {
        let real = env.file("real");
        copy_file(Path::new(PROGRAM), &real);
        Self::new(env, program, &format!("exec {} \"$@\"", real.display()))
    }

    /// Starts an upgrade. The new process has reported that it is ready, and the control thread of
    /// the old one has not seen it: it is frozen. None: that is not permitted here.
    fn ready(&self, chain: &mut Chain<'_>) -> Option<Frozen> {
        chain.first.signal(Signal::SIGUSR2);
        let pid = until_some("the new process is started", || {
            fs::read_to_string(&self.pid).ok().filter(|pid| pid.ends_with('\n'))
        });
        chain.pids.push(pid.trim().parse().unwrap());
        let old = chain.pids[chain.pids.len() - 2];
        let frozen = Frozen::control_thread(old)?;
        fs::write(&self.gate, "").unwrap();
        until("the report of the new process is read", || !has_thread(old, "upgrade"));
        Some(frozen)
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        // The shell of a test that has failed ends, too.
        fs::write(&self.gate, "").ok();
    }
}

fn has_thread(process: u32, name: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(Result::unwrap);
    let names = tasks.map(|task| fs::read_to_string(task.path().join("comm")).unwrap_or_default());
    names.into_iter().any(|comm| comm.trim() == name)
}

/// So many sessions, each of which has exchanged something.
#[track_caller]
fn sessions(env: &TestEnv, count: usize) -> Vec<TcpStream> {
    let clients: Vec<TcpStream> = (0..count).map(|_| connect(env.frontend())).collect();
    assert_live(&clients);
    clients
}

#[track_caller]
fn assert_live(clients: &[TcpStream]) {
    clients.iter().for_each(|client| assert_eq!(exchange(client, b"lives"), b"lives"));
}

#[test]
fn a_new_process_that_is_killed_before_the_decision_takes_no_client_with_it() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config.clone().workers(2));
    let gated = Gated::evenkeel(&env, &program);
    chain.rewrite(&config.clone().workers(3).text());
    let Some(frozen) = gated.ready(&mut chain) else {
        let test = "a_new_process_that_is_killed_before_the_decision_takes_no_client_with_it";
        return skip(test, NO_PTRACE);
    };
    let clients = sessions(&env, 40);
    chain.signal(1, Signal::SIGKILL);
    until("it has ended", || !runs(chain.pids[1]));
    assert_live(&clients);
    drop(frozen);
    chain.logged("upgrade failed, this process stays in charge");
    chain.pids.pop();
    assert_live(&clients);
    sessions(&env, 10);
    chain.control_ok(&["status"]);
    replace_by_program(&program);
    chain.upgrade();
    assert_live(&clients);
}

#[test]
fn an_old_process_that_decides_late_is_waited_for() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config.clone().workers(1));
    let gated = Gated::evenkeel(&env, &program);
    chain.rewrite(&config.clone().workers(3).text());
    let Some(frozen) = gated.ready(&mut chain) else {
        return skip("an_old_process_that_decides_late_is_waited_for", NO_PTRACE);
    };
    let before = sessions(&env, 40);
    assert!(holds_for(Duration::from_secs(11), || runs(chain.pids[1])), "it waits");
    let late = sessions(&env, 40);
    drop(frozen);
    chain.logged("has replaced process");
    until("each worker has a socket", || listening(chain.pids[1], env.frontend()) == 3);
    let after = sessions(&env, 40);
    assert_live(&before);
    assert_live(&late);
    drop((before, late));
    chain.ended(0);
    assert_live(&after);
    chain.control_ok(&["status"]);
}

#[test]
fn a_signal_to_end_before_the_decision_leaves_one_process_in_charge_or_none() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config.workers(2));
    let gated = Gated::evenkeel(&env, &program);
    let Some(frozen) = gated.ready(&mut chain) else {
        let test = "a_signal_to_end_before_the_decision_leaves_one_process_in_charge_or_none";
        return skip(test, NO_PTRACE);
    };
    let clients = sessions(&env, 20);
    chain.first.signal(Signal::SIGTERM);
    drop(frozen);
    // Both have come meanwhile; either may be handled first.
    let log = until_some("the old process has decided", || {
        let log = chain.application_log();
        let decided = log.contains("has replaced process") || log.contains("upgrade failed");
        decided.then_some(log)
    });
    assert_live(&clients);
    if log.contains("upgrade failed") {
        until("the new process ends", || !runs(chain.pids[1]));
        until("nobody listens", || TcpStream::connect(env.frontend()).is_err());
    } else {
        sessions(&env, 20);
    }
    assert_live(&clients);
    drop(clients);
    chain.ended(0);
}

#[test]
fn a_new_process_that_gives_up_never_becomes_the_main_one_and_is_ended() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let config = config.global("landlock = false");
    let mut command = Command::new(&program);
    command.args(["run", "-c"]).arg(write_config(&env, &config.text()));
    let supervisor = Supervisor::abstract_of(&env, &mut command);
    let mut chain = Chain::of(Balancer::start_command(&env, command));
    assert_eq!(supervisor.next(), "READY=1");
    // It reports, closes its stream, and lives on.
    let report = env.file("report");
    fs::write(&report, message(r#"{"ready":{"version":"9","unused":[]}}"#)).unwrap();
    let done = env.file("done");
    let (text, note) = (report.display(), done.display());
    let then = format!("cat {text} >&0; exec 0</dev/null; echo > {note}; exec sleep 600");
    let gated = Gated::new(&env, &program, &then);
    let Some(frozen) = gated.ready(&mut chain) else {
        let test = "a_new_process_that_gives_up_never_becomes_the_main_one_and_is_ended";
        return skip(test, NO_PTRACE);
    };
    until("it has closed its stream", || done.exists());
    drop(frozen);
    chain.logged("upgrade failed, this process stays in charge");
    until("the new process is ended", || !runs(chain.pids[1]));
    sessions(&env, 10);
    chain.first.signal(Signal::SIGTERM);
    assert_eq!(supervisor.next(), "STOPPING=1", "no MAINPID before it");
}

/// Workers of which some do not start.
const MANY: usize = 16;

#[test]
fn a_worker_that_does_not_start_fails_the_upgrade_and_no_client() {
    let env = TestEnv::new();
    let (config, _server) = naming(&env);
    let config = config.global("landlock = false\nbuffers = \"16MiB\"");
    let program = copied_program(&env);
    let mut command = Command::new(&program);
    command.args(["run", "-c"]).arg(write_config(&env, &config.text()));
    let mut chain = Chain::of(Balancer::start_command(&env, command));
    chain.rewrite(&config.workers(MANY).text());
    let peak = status_number(chain.pid(), "VmPeak").unwrap();
    // In KiB: enough for a few of them, each of which has its buffers and a stack of 2 MiB.
    let limit = peak + (60 << 10);
    let real = env.file("real");
    copy_file(Path::new(PROGRAM), &real);
    replace_by_script(&program, &format!("ulimit -v {limit}; exec {} \"$@\"", real.display()));
    let attempts = amount("EVENKEEL_FAILURES", 5);
    under_load(env.frontend(), 1000, || {
        for _ in 0..attempts {
            let text = chain.fails();
            assert!(text.contains("does not start"), "{text}");
        }
    });
    assert_eq!(chain.count("failed"), attempts as f64);
    replace_by_program(&program);
    chain.upgrade();
}
