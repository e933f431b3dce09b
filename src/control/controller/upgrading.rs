//! Upgrades, as the old process sees them: it stays in charge until the new one is ready, and then
//! puts that one in charge.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

use crate::control::controller::requester::Requester;
use crate::control::controller::state::Controller;
use crate::control::controller::upgrade_state::{OfferedSocket, Running};
use crate::control::upgrade::{
    Decision, Offered, Offering, Publisher, Role, START_TIMEOUT, State, Successor,
};
use crate::shared::phase::Phase;
use crate::shared::state::Observing;
use crate::shared::table::Listener;
use crate::sys::descriptors;

/// Between two looks whether the workers have stopped accepting, and how long they are waited for.
const STOP_INTERVAL: Duration = Duration::from_millis(2);
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

const DRAINING: &str = "no upgrade: evenkeel is draining";

const FAILED: &str = "upgrade failed, this process stays in charge";
const FAILED_AT_THE_END: &str = "upgrade failed, and this process is ending";

impl Controller {
    /// An upgrade is requested.
    pub(super) fn want_upgrade(&mut self, requester: Requester) {
        if self.is_ending() {
            return requester.refuse(DRAINING);
        }
        if self.upgrading.running.is_some() || self.upgrading.next.is_some() {
            return requester.refuse("no upgrade: another one is under way");
        }
        if self.reloading.running.is_some() {
            self.upgrading.next = Some(requester);
            return;
        }
        match self.begin_upgrade() {
            Ok((stream, offered)) => {
                let running = Running { requester, stream, offered, reload: false };
                self.upgrading.running = Some(running);
            }
            Err(why) => {
                self.follow_earlier();
                self.upgrade_failed(requester, &why);
            }
        }
    }

    /// Starts the thread that starts the new process.
    fn begin_upgrade(&mut self) -> Result<(UnixStream, Vec<OfferedSocket>), String> {
        let program = self.upgrading.program.clone().ok_or("/proc is not mounted")?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let handle = ours.try_clone().map_err(|error| error.to_string())?;
        let (offering, offered) = self.offering().map_err(|error| error.to_string())?;
        tracing::info!(
            "upgrade: {} is started with {} sockets",
            program.path().display(),
            offering.sockets.len()
        );
        let sender = self.senders.upgraded.clone();
        let run = move || {
            let outcome = Successor::start(&program, &offering, ours, theirs, START_TIMEOUT);
            drop(offering);
            // Fails only while the process ends.
            drop(sender.send(outcome));
        };
        let thread = thread::Builder::new().name("upgrade".to_owned()).spawn(run);
        thread.map_err(|error| format!("no thread: {error}"))?;
        Ok((handle, offered))
    }

    /// Every listening socket, once; and the streams of earlier processes.
    fn offering(&mut self) -> io::Result<(Offering, Vec<OfferedSocket>)> {
        let mut sockets: Vec<(Offered, Arc<OwnedFd>)> = Vec::new();
        let mut places = Vec::new();
        for listener in self.bound.values() {
            let offered = Offered { role: Role::Frontend, file: listener.file_identity() };
            let mut known = Vec::new();
            for socket in listener.sockets() {
                // Workers may have copies of one socket.
                let id = descriptors::identity(&*socket)?;
                if !known.contains(&id) {
                    known.push(id);
                    sockets.push((offered, socket));
                    let listener = Some(Arc::clone(listener));
                    places.push(OfferedSocket { role: offered.role, listener });
                }
            }
        }
        for one in &self.upgrading.observed {
            sockets.push((one.offered, Arc::clone(&one.socket)));
            places.push(OfferedSocket { role: one.offered.role, listener: None });
        }
        let mut state = State::of(&self.cluster);
        state.reloads_done = self.reloading.done;
        state.reloads_failed = self.reloading.failed;
        state.upgrades_done = self.upgrading.done;
        state.upgrades_failed = self.upgrading.failed;
        let workers = self.workers();
        for earlier in &mut self.upgrading.earlier {
            // Two must not read one stream.
            earlier.pause();
            let stream = earlier.stream().as_fd().try_clone_to_owned()?;
            sockets.push((Offered { role: Role::Earlier, file: None }, Arc::new(stream)));
            state.earlier.push(earlier.earlier(workers));
        }
        Ok((Offering { sockets, state }, places))
    }

    /// The new process is ready, or has not started.
    pub(super) fn on_upgraded(&mut self, outcome: Result<Successor, String>) {
        let Some(running) = self.upgrading.running.take() else { return };
        let Running { requester, offered, reload, .. } = running;
        match outcome.and_then(|successor| self.hand_over(successor, &offered)) {
            Ok((pid, done)) => {
                tracing::info!("{done}");
                let process = Pid::from_raw(pid.cast_signed());
                if reload && let Err(error) = kill(process, Signal::SIGHUP) {
                    tracing::warn!("process {pid} does not reload: {error}");
                }
                self.answer_when_stopped(requester, done);
            }
            Err(why) => {
                self.follow_earlier();
                self.upgrade_failed(requester, &why);
                if reload && !self.is_ending() {
                    self.want_reload(Requester::signal());
                }
            }
        }
    }

    /// Answers when the workers have given up every socket, so that no client that comes after the
    /// answer is a session of this process.
    fn answer_when_stopped(&self, requester: Requester, done: String) {
        let listeners: Vec<Arc<Listener>> = self.bound.values().cloned().collect();
        tokio_uring::spawn(async move {
            let stopped = async {
                while listeners.iter().any(|listener| listener.sockets().next().is_some()) {
                    sleep(STOP_INTERVAL).await;
                }
            };
            drop(timeout(STOP_TIMEOUT, stopped).await);
            requester.answer(Ok(done));
        });
    }

    fn upgrade_failed(&mut self, requester: Requester, why: &str) {
        self.upgrading.failed += 1;
        let outcome = if self.is_ending() { FAILED_AT_THE_END } else { FAILED };
        let line = format!("{outcome}: {}", why.trim_end().replace('\n', "; "));
        tracing::error!("{line}");
        requester.answer(Err(line));
    }

    /// Puts the new process in charge and drains this one, or ends the new one.
    fn hand_over(
        &mut self,
        mut successor: Successor,
        offered: &[OfferedSocket],
    ) -> Result<(u32, String), String> {
        match self.put_in_charge(&mut successor) {
            Ok(publisher) => self.upgrading.publisher = Some(publisher),
            Err(why) => {
                successor.abandon();
                return Err(why);
            }
        }
        let (pid, version) = (successor.pid(), &successor.version);
        self.notifier.leave();
        let used = offered.iter().enumerate();
        let used = used.filter(|(index, _)| !successor.unused.contains(index));
        let mut control = false;
        for (_, OfferedSocket { role, listener }) in used {
            control |= *role == Role::Control;
            // All sockets of an address are used, or none.
            listener.iter().for_each(|listener| listener.hand_over());
        }
        self.upgrading.observed.clear();
        self.upgrading.earlier.clear();
        self.shared.observing.send_replace(Observing::HandedOver { control });
        self.prober.set_targets(Vec::new());
        self.followers.clear();
        self.srv_followers.clear();
        let sessions = self.shared.sessions.active();
        let deadline = Instant::now() + self.config.global.drain_timeout;
        self.remove_socket_files();
        self.shared.phase.store(Phase::Draining(deadline));
        self.shared.wake();
        self.refuse_reloads();
        let own = std::process::id();
        Ok((
            pid,
            format!(
                "upgraded: process {pid} (evenkeel {version}) has replaced process {own}, which \
                 drains for {:?} at most; sessions: {sessions}",
                self.config.global.drain_timeout
            ),
        ))
    }

    /// Tells the service manager and the new process that the latter is in charge. On an error it
    /// is not, and this process is.
    fn put_in_charge(&mut self, successor: &mut Successor) -> Result<Publisher, String> {
        if self.is_ending() {
            return Err("this process is ending".to_owned());
        }
        let gone = |error: io::Error| format!("the new process is gone: {error}");
        let stream = successor.stream().map_err(|error| error.to_string())?;
        let decision = Decision::prepare(stream, &self.totals()).map_err(gone)?;
        if !successor.runs() {
            return Err("the new process has ended as soon as it was ready".to_owned());
        }
        successor.detach().map_err(gone)?;
        // The service manager listens to its main process only, so that this one must name the new
        // one before that speaks.
        self.notifier.main_process(successor.pid());
        decision.take().map_err(|error| {
            // It was killed in this moment: the service manager restarts a main process that was,
            // unless it listens to this one still (NotifyAccess=all).
            self.notifier.main_process(std::process::id());
            gone(error)
        })
    }

    /// A signal to end while the new process is in charge: the first one changes nothing, since
    /// this process drains already. Whether it was the first.
    pub(super) fn is_first_end_after_upgrade(&mut self) -> bool {
        if self.upgrading.publisher.is_none() || self.upgrading.asked_to_end {
            return false;
        }
        self.upgrading.asked_to_end = true;
        tracing::info!(
            "draining already, since the upgrade; a second signal stops at once; sessions: {}",
            self.shared.sessions.active()
        );
        true
    }

    /// This process ends: an upgrade that has begun ends too.
    pub(super) fn abandon_upgrade(&mut self) {
        if let Some(running) = &self.upgrading.running {
            drop(running.stream.shutdown(std::net::Shutdown::Both));
        }
        if let Some(requester) = self.upgrading.next.take() {
            requester.refuse(DRAINING);
        }
    }

    /// SIGHUP during an upgrade: the process that is in charge afterwards reloads. Whether there is
    /// an upgrade.
    pub(super) fn defer_reload(&mut self) -> bool {
        let running = self.upgrading.running.as_mut();
        running.is_some_and(|running| {
            tracing::info!("the reload follows when the upgrade has ended");
            running.reload = true;
            true
        })
    }
}
