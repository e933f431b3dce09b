//! Programs that a test starts: their output goes to files in its directory, and they do not
//! outlive the test.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evenkeel::sys::child::die_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::TestEnv;
use crate::common::wait::{pause, until};

/// For a program that has work to do, on a machine that may be busy.
const RUN_MAX: Duration = Duration::from_secs(60);

/// For a server that was asked to end: SIGKILL follows.
const END_MAX: Duration = Duration::from_secs(20);

/// Gives each program files of its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running program. It ends when this is dropped, or when the thread that started it ends.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ends_by: Signal,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Program {
    /// Starts `command`, with nothing on its standard input.
    #[track_caller]
    pub(crate) fn start(env: &TestEnv, command: Command) -> Self {
        Self::start_with(env, command, Stdio::null())
    }

    /// As `start`, with this standard input.
    #[track_caller]
    pub(crate) fn start_with(env: &TestEnv, mut command: Command, stdin: Stdio) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|name| env.file(&format!("{name}-{number}")));
        command.stdin(stdin);
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        die_with_parent(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, stdout, stderr, ends_by: Signal::SIGTERM }
    }

    /// It is ended by this signal instead of SIGTERM.
    pub(crate) const fn ended_by(mut self, signal: Signal) -> Self {
        self.ends_by = signal;
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// Its standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until something listens on `address`.
    #[track_caller]
    pub(crate) fn until_listens(&mut self, address: SocketAddr) {
        until("the server listens", || {
            assert!(!self.has_ended(), "it has ended: {}{}", self.stdout(), self.stderr());
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
    }

    /// Sends a signal to it alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let status = self.wait_for(RUN_MAX);
        let status = status.unwrap_or_else(|| {
            panic!("it has not ended within {RUN_MAX:?}: {}{}", self.stdout(), self.stderr())
        });
        Ended { status, stdout: fs::read(&self.stdout).unwrap(), stderr: self.stderr() }
    }

    /// Asks it to end, as dropping it does, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if !self.has_ended() {
            self.signal(self.ends_by);
            self.wait_for(END_MAX);
        }
        // Fails when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn wait_for(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || Instant::now() > deadline {
                return status;
            }
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    #[expect(clippy::print_stderr, reason = "the output is shown with the failed test")]
    fn drop(&mut self) {
        // SIGKILL of a server would leave its child processes and its shared memory.
        self.stop();
        if std::thread::panicking() {
            let text = self.stdout() + &self.stderr();
            let last = text.len().saturating_sub(4000);
            let last = text.ceil_char_boundary(last);
            eprintln!("--- process {}:\n{}", self.pid(), &text[last..]);
        }
    }
}

impl Ended {
    /// Its standard output, if it succeeded.
    ///
    /// # Errors
    /// Its status and its outputs.
    pub(crate) fn ok(self) -> Result<Vec<u8>, String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(format!("{}: {} {}", self.status, self.stderr, self.text()))
    }

    /// Its standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

/// Runs `command`, which must succeed: its standard output.
#[track_caller]
pub(crate) fn run(env: &TestEnv, command: Command) -> Vec<u8> {
    let shown = format!("{command:?}");
    let ended = Program::start(env, command).wait();
    ended.ok().unwrap_or_else(|why| panic!("{shown}: {why}"))
}

/// As `run`: its output as text.
#[track_caller]
pub(crate) fn run_text(env: &TestEnv, command: Command) -> String {
    String::from_utf8_lossy(&run(env, command)).trim_end().to_owned()
}
