//! The program of this process, to be started again: the file that is at its path then.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sys::detachable_child::DetachableChild;

/// Set for a process whose standard input is the socket of an old process.
pub(super) const VARIABLE: &str = "EVENKEEL_UPGRADE";

/// What a service manager sets for the process that it has started, and for no other.
const OF_THIS_PROCESS: [&str; 5] =
    [VARIABLE, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// The path and the arguments of this process.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Of this process. To be called at its start: later, its file may have been replaced.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn of_this_process() -> io::Result<Self> {
        let arguments: Vec<OsString> = env::args_os().collect();
        let running = fs::metadata("/proc/self/exe")?;
        let is_running = |path: &PathBuf| {
            let found = fs::metadata(path);
            found.is_ok_and(|found| (found.dev(), found.ino()) == (running.dev(), running.ino()))
        };
        // The path that was typed may be a link, which leads to another file after an update.
        let typed = arguments.first().map(Path::new);
        let typed = typed.into_iter().flat_map(|name| {
            let folders = env::var_os("PATH").unwrap_or_default();
            let folders = env::split_paths(&folders).collect::<Vec<_>>();
            match name.components().nth(1) {
                Some(_) => vec![name.to_owned()],
                None => folders.iter().map(|folder| folder.join(name)).collect(),
            }
        });
        let found = typed.filter_map(|path| std::path::absolute(path).ok()).find(is_running);
        let path = match found {
            Some(path) => path,
            None => fs::read_link("/proc/self/exe")?,
        };
        Ok(Self { path, arguments })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the file that is at the path now, with `socket` as its standard input. No other
    /// descriptor than the standard streams is passed.
    ///
    /// # Errors
    /// There is no such file, or it cannot be executed.
    pub(super) fn start(&self, socket: OwnedFd) -> io::Result<DetachableChild> {
        let mut command = Command::new(&self.path);
        if let [name, arguments @ ..] = &*self.arguments {
            command.arg0(name).args(arguments);
        }
        for name in OF_THIS_PROCESS {
            command.env_remove(name);
        }
        command.env(VARIABLE, "1").stdin(socket);
        DetachableChild::start(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_this_process_is_found() {
        let program = Program::of_this_process().unwrap();
        let (found, running) = (fs::metadata(program.path()), fs::metadata("/proc/self/exe"));
        assert_eq!(found.unwrap().ino(), running.unwrap().ino());
        assert!(program.path().is_absolute());
    }
}
