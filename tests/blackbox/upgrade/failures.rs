//! Upgrades that fail: the old process stays in charge and says why.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use super::played::message;
use super::*;
use crate::common::client::fetch;
use crate::common::wait::{TIMEOUT, holds_for};

/// A shell script can wait for ever without using a processor.
const SILENT: &str = "exec sleep 600";

#[test]
fn a_bad_file_is_reported_and_the_old_process_stays() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut chain = Chain::start(&env, &config);
    chain.rewrite(&config.clone().backend("retires = 3").text());
    let text = chain.fails();
    for part in ["upgrade failed, this process stays in charge", "evenkeel.toml:", "retires"] {
        assert!(text.contains(part), "{text}");
    }
    chain.rewrite("this is [ not TOML");
    chain.first.signal(Signal::SIGUSR2);
    until("both failures are counted", || chain.count("failed") == 2.0);
    assert!(chain.first.application_log().contains("upgrade failed"));
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"served"), b"served");
    chain.rewrite(&config.text());
    chain.upgrade();
    assert_eq!((chain.count("failed"), chain.count("done")), (2.0, 1.0));
}

#[test]
fn a_new_address_that_is_in_use_fails_the_upgrade() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let chain = Chain::start(&env, &config);
    let taken = TcpListener::bind(env.port(8001)).unwrap();
    let more = format!("[frontend.more]\nbind = [\"{}\"]\nbackend = \"web\"", env.port(8001));
    chain.rewrite(&config.more(&more).text());
    let text = chain.fails();
    assert!(text.contains("8001") && text.contains("is in use"), "{text}");
    // The new process is confined, and may not see that it is this one.
    assert!(text.contains("evenkeel may not see the process that has it"), "{text}");
    drop(taken);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"served"), b"served");
    assert!(env.file("control.sock").exists(), "the new process removes no file");
    chain.control_ok(&["status"]);
}

#[test]
fn a_program_that_is_missing_or_crashes_fails_the_upgrade() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config);
    fs::remove_file(&program).unwrap();
    let text = chain.fails();
    assert!(text.contains("cannot be started") && text.contains("program"), "{text}");
    for (script, shown) in [("exit 3", "exit status: 3"), ("kill -SEGV $$", "signal: 11")] {
        replace_by_script(&program, script);
        let text = chain.fails();
        assert!(text.contains("has ended before it was ready") && text.contains(shown), "{text}");
    }
    assert_eq!(chain.count("failed"), 3.0);
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"served"), b"served");
    // The file at the path is what starts, and not the one that was deleted.
    replace_by_program(&program);
    chain.upgrade();
    let image = fs::read_link(format!("/proc/{}/exe", chain.pid())).unwrap();
    assert_eq!(image, program);
    let own = fs::read_link(format!("/proc/{}/exe", chain.pids[0]));
    assert!(own.is_err() || own.unwrap().to_string_lossy().ends_with("(deleted)"));
}

#[test]
fn a_second_upgrade_is_refused_while_one_is_under_way_and_a_signal_to_end_ends_it() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config);
    replace_by_script(&program, SILENT);
    chain.first.signal(Signal::SIGUSR2);
    chain.logged("upgrade: ");
    let text = chain.fails();
    assert!(text.contains("another one is under way"), "{text}");
    let refused = chain.control(&["reload"]);
    assert!(printed(&refused).contains("an upgrade is under way"), "{}", printed(&refused));
    let refused = chain.control(&["maint", "web/a"]);
    assert!(printed(&refused).contains("no order: an upgrade"), "{}", printed(&refused));
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"in"), b"in");
    chain.first.signal(Signal::SIGTERM);
    until("new connections are refused", || TcpStream::connect(env.frontend()).is_err());
    chain.logged("upgrade failed, and this process is ending");
    assert_eq!(exchange(&session, b"continues"), b"continues");
    drop(session);
    assert!(chain.first.wait().success());
    assert!(!env.file("control.sock").exists());
}

#[test]
fn silence_is_not_waited_for_for_ever_and_a_reload_meanwhile_follows() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let chain = start_program(&env, &program, &config);
    replace_by_script(&program, SILENT);
    chain.first.signal(Signal::SIGUSR2);
    chain.logged("upgrade: ");
    chain.first.signal(Signal::SIGHUP);
    chain.logged("the reload follows");
    let waits = || !chain.application_log().contains("upgrade failed");
    assert!(holds_for(Duration::from_secs(15), waits), "a slow start is waited for");
    chain.logged("was not ready within 20s");
    until("the reload has followed", || {
        chain.metrics().sum("evenkeel_reloads_total", &[("outcome", "done")]) == 1.0
    });
}

#[test]
fn a_reload_during_an_upgrade_is_made_by_the_new_process() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config);
    // The new process starts when the test says so.
    let (real, gate) = (env.file("real"), env.file("gate"));
    copy_file(Path::new(PROGRAM), &real);
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    replace_by_script(&program, &format!("{wait}\nexec {} \"$@\"", real.display()));
    chain.first.signal(Signal::SIGUSR2);
    chain.logged("upgrade: ");
    chain.first.signal(Signal::SIGHUP);
    chain.logged("the reload follows");
    fs::write(&gate, "").unwrap();
    chain.logged("has replaced process");
    let log = chain.application_log();
    let (_, rest) = log.split_once("upgraded: process ").unwrap();
    chain.pids.push(rest.split_once(' ').unwrap().0.parse().unwrap());
    until("the new process has reloaded", || {
        chain.metrics().sum("evenkeel_reloads_total", &[("outcome", "done")]) == 1.0
    });
    chain.ended(0);
}

#[test]
fn a_signal_to_end_during_the_drain_of_an_upgrade_is_the_first_of_two() {
    let env = TestEnv::new();
    let (mut chain, session, _server) = replaced_with_a_session(&env);
    chain.signal(0, Signal::SIGTERM);
    chain.logged("draining already, since the upgrade");
    assert_eq!(exchange(&session, b"continues"), b"continues");
    chain.signal(0, Signal::SIGTERM);
    chain.ended(0);
    let new = connect(env.frontend());
    assert_eq!(exchange(&new, b"served"), b"served");
    chain.signal(1, Signal::SIGTERM);
    until("the new process drains", || TcpStream::connect(env.frontend()).is_err());
    drop(new);
    chain.ended(1);
    assert!(!env.file("control.sock").exists());
}

/// What a new process says to an old one that sends `bytes`, and its exit code.
fn lied_to(env: &TestEnv, config: &Config, lie: impl FnOnce(&mut UnixStream)) -> (String, i32) {
    let (mut here, there) = UnixStream::pair().unwrap();
    here.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut command = run_command(env, &config.text());
    command.env("EVENKEEL_UPGRADE", "1").stdin(OwnedFd::from(there));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    lie(&mut here);
    let mut report = Vec::new();
    drop(here.shutdown(std::net::Shutdown::Write));
    drop(here.read_to_end(&mut report));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&report).into_owned();
    (text + &String::from_utf8_lossy(&output.stderr), output.status.code().unwrap())
}

#[test]
fn a_peer_that_lies_is_refused_and_takes_no_memory() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let socket = r#"{"role":"frontend","file":null}"#;
    let offer = format!(r#"{{"protocol":1,"pid":1,"version":"0","sockets":[{socket},{socket}]}}"#);
    let other = offer.replace("\"protocol\":1", "\"protocol\":9");
    let one = || TcpListener::bind(env.port(0)).unwrap();
    let cases: [(&str, Vec<u8>, usize); 6] = [
        ("", Vec::new(), 0),
        ("4294967295 bytes", u32::MAX.to_le_bytes().to_vec(), 0),
        ("expected", message("junk"), 0),
        ("its protocol is 9", message(&other), 0),
        ("3 descriptors for 2 sockets", message(&offer), 3),
        ("no listening socket", message(&offer), 2),
    ];
    for (shown, bytes, descriptors) in cases {
        let (text, code) = lied_to(&env, &config, |stream| {
            drop(stream.write_all(&bytes));
            if descriptors > 0 {
                use std::os::fd::AsFd;
                let sockets: Vec<_> = (0..3).map(|_| one()).collect();
                let file = fs::File::open("/dev/null").unwrap();
                let mut sent: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                if descriptors == 2 {
                    sent = vec![sockets[0].as_fd(), file.as_fd()];
                }
                evenkeel::sys::descriptors::send(stream, &sent).unwrap();
                drop(stream.write_all(&message("{}")));
            }
        });
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("no sockets from the old process"), "{text}");
        assert!(text.contains(shown), "{shown}: {text}");
    }
}

#[test]
fn a_new_process_that_lies_is_refused() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", server.address);
    let program = copied_program(&env);
    let mut chain = start_program(&env, &program, &config);
    // A length of 4 GiB; and a message that is no report. (dash reads octal numbers.)
    for script in [r"printf '\377\377\377\377' >&0", r"printf '\002\000\000\000[]' >&0"] {
        replace_by_script(&program, script);
        let text = chain.fails();
        assert!(text.contains("upgrade failed"), "{text}");
    }
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
    assert_eq!(chain.count("failed"), 2.0);
    replace_by_program(&program);
    chain.upgrade();
    assert_eq!(fetch(env.frontend()).unwrap(), "a");
}
