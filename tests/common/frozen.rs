//! A thread of a process that is stopped alone, as by a debugger (ptrace(2)). A signal would stop
//! all of its threads.

use std::fs;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A thread that does not run until this is dropped, by the thread that made it. Before its process
/// is waited for, it must be dropped.
#[derive(Debug)]
pub(crate) struct Frozen(Pid);

impl Frozen {
    /// Stops the thread of this name. None: not permitted here.
    #[track_caller]
    pub(crate) fn thread(process: u32, name: &str) -> Option<Self> {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(Result::unwrap);
        let mut tasks = tasks.filter(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        });
        let found = tasks.next().unwrap_or_else(|| panic!("no thread {name}"));
        Self::stop(found.file_name().to_str().unwrap().parse().unwrap())
    }

    /// Stops the main thread, which is the control thread. None: not permitted here.
    #[track_caller]
    pub(crate) fn control_thread(process: u32) -> Option<Self> {
        Self::stop(i32::try_from(process).unwrap())
    }

    #[track_caller]
    fn stop(thread: i32) -> Option<Self> {
        let thread = Pid::from_raw(thread);
        match ptrace::seize(thread, ptrace::Options::empty()) {
            Err(Errno::EPERM) => return None,
            outcome => outcome.unwrap(),
        }
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Some(Self(thread))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Its process may have been killed.
        ptrace::detach(self.0, None).ok();
    }
}
