//! A child process that does not outlive its parent.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// The kernel kills the child that `command` starts as soon as the thread that started it ends,
/// however it ends (`PR_SET_PDEATHSIG`).
pub fn die_with_parent(command: &mut Command) {
    let set = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
    // SAFETY: between fork and exec `set` makes one system call, and allocates nothing.
    unsafe { command.pre_exec(set) };
}
