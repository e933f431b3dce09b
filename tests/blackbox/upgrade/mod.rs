//! Upgrades: a new process takes the listening sockets of the old one, without a gap. The cases are
//! 63 to 82 of the list.

mod decision;
mod failures;
mod load;
mod played;
mod service_manager;
mod sockets;
mod state;
mod stuck;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::balancer::{PROGRAM, printed, run_command, write_config};
use crate::common::chain::{Chain, runs};
use crate::common::client::{connect, exchange};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Server, TestEnv, echoing};

/// A process with a session that was replaced and drains for an hour; the client of the session,
/// and its server.
fn replaced_with_a_session(env: &TestEnv) -> (Chain<'_>, TcpStream, Server) {
    let (config, server) = echoing(env);
    let mut chain = Chain::start(env, &config.global("drain_timeout = \"1h\""));
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"in"), b"in");
    chain.upgrade();
    (chain, session, server)
}

/// A copy of the program, which a test may replace.
fn copied_program(env: &TestEnv) -> PathBuf {
    let copy = env.file("program");
    copy_file(Path::new(PROGRAM), &copy);
    copy
}

/// Copies a program in a process of its own: as long as this one has a file open for writing, which
/// a program that another test starts meanwhile inherits, it cannot be executed (ETXTBSY).
fn copy_file(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Puts a copy of the program in the place of `file`, as package managers do.
fn replace_by_program(file: &Path) {
    replace(file, Path::new(PROGRAM));
}

/// Puts a shell script in the place of `file`.
fn replace_by_script(file: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let text = file.with_extension("text");
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    replace(file, &text);
}

fn replace(file: &Path, with: &Path) {
    let new = file.with_extension("new");
    copy_file(with, &new);
    fs::rename(&new, file).unwrap();
}

/// Starts `program` with that configuration. Landlock would let it execute itself only, and no
/// shell, which a script needs.
fn start_program<'a>(env: &'a TestEnv, program: &Path, config: &Config) -> Chain<'a> {
    let config = config.clone().global("landlock = false");
    let mut command = Command::new(program);
    command.args(["run", "-c"]).arg(write_config(env, &config.text()));
    Chain::of(Balancer::start_command(env, command))
}
