//! The evenkeel binary, with its configuration, logs and control socket in the directory of a test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use evenkeel::sys::child::die_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::metrics::Metrics;
use super::process::Descriptors;
use super::wait::{until, until_some};
use super::{Config, TestEnv, http};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel");

/// Standard output and standard error of the process.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// The session log.
    pub(crate) stdout: Stdio,
    /// The application log.
    pub(crate) stderr: Stdio,
}

impl Outputs {
    /// Two files in the directory of the test.
    pub(crate) fn of(env: &TestEnv) -> Self {
        let create = |name| File::create(env.file(name)).unwrap().into();
        Self { stdout: create("sessions.log"), stderr: create("application.log") }
    }
}

/// A running evenkeel. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Balancer<'a> {
    pub(crate) env: &'a TestEnv,
    child: Child,
    /// Its descriptors when it was ready.
    pub(crate) base: Descriptors,
}

impl<'a> Balancer<'a> {
    /// Starts evenkeel with `config`, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(env: &'a TestEnv, config: &Config) -> Self {
        Self::start_text(env, &config.text())
    }

    /// As `start`, with the text of a configuration file.
    #[track_caller]
    pub(crate) fn start_text(env: &'a TestEnv, text: &str) -> Self {
        Self::start_command(env, run_command(env, text))
    }

    /// Starts it with `command`, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_command(env: &'a TestEnv, command: Command) -> Self {
        Self::ready(Self::spawn(env, command))
    }

    /// As `start_command`, with other outputs.
    #[track_caller]
    pub(crate) fn start_with(env: &'a TestEnv, command: Command, outputs: Outputs) -> Self {
        Self::ready(Self::spawn_with(env, command, outputs))
    }

    #[track_caller]
    fn ready(mut balancer: Self) -> Self {
        let env = balancer.env;
        until("the balancer is ready", || {
            if let Some(status) = balancer.child.try_wait().unwrap() {
                panic!("the balancer has ended ({status}): {}", balancer.application_log());
            }
            http::get(env.observe(), "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        balancer.base = until_some("the number of its descriptors is stable", || {
            let now = Descriptors::of(balancer.pid());
            let stable = balancer.base == now;
            balancer.base = now;
            stable.then_some(now)
        });
        balancer
    }

    /// Starts it with `command`, and does not wait.
    pub(crate) fn spawn(env: &'a TestEnv, command: Command) -> Self {
        Self::spawn_with(env, command, Outputs::of(env))
    }

    /// As `spawn`, with other outputs.
    pub(crate) fn spawn_with(env: &'a TestEnv, mut command: Command, outputs: Outputs) -> Self {
        command.stdin(Stdio::null()).stdout(outputs.stdout).stderr(outputs.stderr);
        command.process_group(0).env("NO_COLOR", "1").env_remove("RUST_LOG");
        die_with_parent(&mut command);
        let child = command.spawn().unwrap();
        let base = Descriptors { sockets: 0, pipes: 0, others: 0 };
        Self { env, child, base }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until_some("the balancer has ended", || self.child.try_wait().unwrap())
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Scrapes the metrics. The answer is 503 if the control thread does not run for 2 s, as on a
    /// busy machine.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let text = until_some("a scrape is answered", || {
            match http::get(self.env.observe(), "/metrics").unwrap() {
                (200, text) => Some(text),
                (503, _) => None,
                other => panic!("{other:?}"),
            }
        });
        Metrics::parse(&text)
    }

    /// Scrapes the metrics until `condition` holds, and returns that scrape.
    #[track_caller]
    pub(crate) fn metrics_until(
        &self,
        what: &str,
        condition: impl Fn(&Metrics) -> bool,
    ) -> Metrics {
        until_some(what, || Some(self.metrics()).filter(&condition))
    }

    /// The lines of the session log so far.
    pub(crate) fn sessions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.env.file("sessions.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for the log record of a session with these letters and this reason, as they are
    /// written: `CD client_reset`.
    #[track_caller]
    pub(crate) fn session_ended(&self, reason: &str) -> String {
        let field = format!(" {reason} ");
        until_some(&format!("a session ends with {reason}"), || {
            self.sessions().into_iter().find(|line| line.contains(&field))
        })
    }

    /// The application log so far.
    pub(crate) fn application_log(&self) -> String {
        // There is no file if stderr is something else.
        fs::read_to_string(self.env.file("application.log")).unwrap_or_default()
    }

    /// Replaces the configuration file.
    pub(crate) fn rewrite(&self, text: &str) {
        write_config(self.env, text);
    }

    /// Replaces the configuration file and reloads it.
    #[track_caller]
    pub(crate) fn reload(&self, config: &Config) {
        self.rewrite(&config.text());
        let output = self.control(&["reload"]);
        assert!(output.status.success(), "{}", printed(&output));
    }

    /// Runs `evenkeel ARGUMENTS.. --control ITS_SOCKET`.
    pub(crate) fn control(&self, arguments: &[&str]) -> Output {
        let socket = self.env.file("control.sock");
        Command::new(PROGRAM).args(arguments).arg("--control").arg(socket).output().unwrap()
    }

    /// As `control`, for a command that must succeed: its standard output.
    #[track_caller]
    pub(crate) fn control_ok(&self, arguments: &[&str]) -> String {
        let output = self.control(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// `evenkeel run` with this configuration.
pub(crate) fn run_command(env: &TestEnv, text: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("-c").arg(write_config(env, text));
    command
}

/// The standard output of a command, followed by its standard error.
pub(crate) fn printed(output: &Output) -> String {
    let Output { stdout, stderr, .. } = output;
    String::from_utf8_lossy(stdout).into_owned() + &String::from_utf8_lossy(stderr)
}

/// Writes the configuration file, replacing an old one atomically, as editors do.
pub(crate) fn write_config(env: &TestEnv, text: &str) -> PathBuf {
    let (file, new) = (env.file("evenkeel.toml"), env.file("evenkeel.toml.new"));
    fs::write(&new, text).unwrap();
    fs::rename(&new, &file).unwrap();
    file
}

impl Drop for Balancer<'_> {
    #[expect(clippy::print_stderr, reason = "the logs are shown with the failed test")]
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let log = self.application_log();
        if std::thread::panicking() {
            eprintln!("--- application log:\n{log}");
            let sessions = self.sessions();
            let last = sessions.len().saturating_sub(20);
            eprintln!("--- last records of the session log:\n{}", sessions[last..].join("\n"));
        } else {
            assert!(!log.contains("ERROR: AddressSanitizer"), "{log}");
        }
    }
}
