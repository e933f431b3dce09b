//! The real binary, with its configuration, its logs and its control socket in a place of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use evenkeel::sys::child::die_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::books::{Descriptors, Metrics};
use super::wait::{until, until_some};
use super::{Config, Place, http};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel");

/// Where its two logs go.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// One line a session.
    pub(crate) stdout: Stdio,
    /// What it has to say to the operator.
    pub(crate) stderr: Stdio,
}

impl Outputs {
    /// Into files of `place`.
    pub(crate) fn of(place: &Place) -> Self {
        let create = |name| File::create(place.file(name)).unwrap().into();
        Self { stdout: create("sessions.log"), stderr: create("operator.log") }
    }
}

/// A running evenkeel; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Balancer<'a> {
    pub(crate) place: &'a Place,
    child: Child,
    /// Descriptors when it was ready.
    pub(crate) base: Descriptors,
}

impl<'a> Balancer<'a> {
    /// Starts it, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(place: &'a Place, config: &Config) -> Self {
        Self::start_text(place, &config.text())
    }

    /// As `start`, with the text of a file.
    #[track_caller]
    pub(crate) fn start_text(place: &'a Place, text: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("-c").arg(write_config(place, text));
        Self::start_command(place, command)
    }

    #[track_caller]
    pub(crate) fn start_command(place: &'a Place, command: Command) -> Self {
        Self::ready(Self::spawn(place, command))
    }

    /// As `start_command`, with other outputs.
    #[track_caller]
    pub(crate) fn start_with(place: &'a Place, command: Command, outputs: Outputs) -> Self {
        Self::ready(Self::spawn_with(place, command, outputs))
    }

    #[track_caller]
    fn ready(mut balancer: Self) -> Self {
        let place = balancer.place;
        until("the balancer is ready", || {
            if let Some(status) = balancer.child.try_wait().unwrap() {
                panic!("the balancer has ended ({status}): {}", balancer.complaints());
            }
            http::get(place.observe(), "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        balancer.base = until_some("its descriptors are at rest", || {
            let now = Descriptors::of(balancer.pid());
            let settled = balancer.base == now;
            balancer.base = now;
            settled.then_some(now)
        });
        balancer
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(place: &'a Place, command: Command) -> Self {
        Self::spawn_with(place, command, Outputs::of(place))
    }

    /// As `spawn`, with other outputs.
    pub(crate) fn spawn_with(place: &'a Place, mut command: Command, outputs: Outputs) -> Self {
        command.stdin(Stdio::null()).stdout(outputs.stdout).stderr(outputs.stderr);
        command.process_group(0).env("NO_COLOR", "1").env_remove("RUST_LOG");
        die_with_parent(&mut command);
        let child = command.spawn().unwrap();
        let base = Descriptors { sockets: 0, pipes: 0, others: 0 };
        Self { place, child, base }
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

    /// One scrape.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let (status, text) = http::get(self.place.observe(), "/metrics").unwrap();
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// Waits until a scrape shows what `so` wants.
    #[track_caller]
    pub(crate) fn metrics_until(&self, what: &str, so: impl Fn(&Metrics) -> bool) -> Metrics {
        until_some(what, || Some(self.metrics()).filter(&so))
    }

    /// The session log so far.
    pub(crate) fn sessions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.file("sessions.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for the record of a session that ended so, as it is written: `CD client_reset`.
    #[track_caller]
    pub(crate) fn session_ended(&self, how: &str) -> String {
        let wanted = format!(" {how} ");
        until_some(&format!("a session ends {how}"), || {
            self.sessions().into_iter().find(|line| line.contains(&wanted))
        })
    }

    /// The operator's log so far.
    pub(crate) fn complaints(&self) -> String {
        // Where stderr went elsewhere there is none.
        fs::read_to_string(self.place.file("operator.log")).unwrap_or_default()
    }

    /// Puts another configuration in the place of its file.
    pub(crate) fn rewrite(&self, text: &str) {
        write_config(self.place, text);
    }

    /// Puts another configuration in force.
    #[track_caller]
    pub(crate) fn reload(&self, config: &Config) {
        self.rewrite(&config.text());
        let output = self.order(&["reload"]);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// `evenkeel ORDER.. --control ITS_SOCKET`
    pub(crate) fn order(&self, order: &[&str]) -> Output {
        let socket = self.place.file("control.sock");
        Command::new(PROGRAM).args(order).arg("--control").arg(socket).output().unwrap()
    }

    /// As `order`, of what must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn obeys(&self, order: &[&str]) -> String {
        let output = self.order(order);
        assert!(output.status.success(), "{order:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What a command said, on both streams.
pub(crate) fn said(output: &Output) -> String {
    let Output { stdout, stderr, .. } = output;
    String::from_utf8_lossy(stdout).into_owned() + &String::from_utf8_lossy(stderr)
}

/// Replaces the file at once, as an operator's editor does.
pub(crate) fn write_config(place: &Place, text: &str) -> PathBuf {
    let (file, new) = (place.file("evenkeel.toml"), place.file("evenkeel.toml.new"));
    fs::write(&new, text).unwrap();
    fs::rename(&new, &file).unwrap();
    file
}

impl Drop for Balancer<'_> {
    #[expect(clippy::print_stderr, reason = "it is shown with the failed test")]
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- what the balancer said:\n{}", self.complaints());
            let sessions = self.sessions();
            let last = sessions.len().saturating_sub(20);
            eprintln!("--- its last sessions:\n{}", sessions[last..].join("\n"));
        }
    }
}
