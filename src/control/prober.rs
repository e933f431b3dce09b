//! Probes: one task a server that asks it, at its interval, whether it serves.
//!
//! What a probe says goes to the control thread, which counts it (`control::health`). A probe says
//! something of the server only if it was this machine that had its time and its means: one whose
//! deadline fired late (the process was stopped), or that had no descriptor, is repeated or told
//! apart, never counted against a server.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::{Check, Health};
use crate::control::probe::probe;
use crate::control::rhythm::Rhythm;
use crate::shared::snapshot::ProbeResult;
use crate::terms::ServerId;

/// A timer that fires later than this was kept from firing: the process was stopped, or had no
/// processor. (A running thread on a loaded Pi is late by some ten milliseconds.)
const LATE: Duration = Duration::from_millis(100);

/// How often in a row a failed probe is repeated for lateness; after that it counts, so that a
/// machine that is always late still notices a dead server.
const REPEATS_MAX: u32 = 2;

/// A server to be probed.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The server.
    pub id: ServerId,
    /// Where it is; the port gives way to `health.port`.
    pub address: SocketAddr,
    /// The Host header unless `health.http.host` says otherwise.
    pub host_header: String,
    /// How it is probed.
    pub health: Health,
    /// Whether it is up now: `interval` or `interval_down`.
    pub up: bool,
}

/// How one probe went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Of which server.
    pub server: ServerId,
    /// Where that was.
    pub address: SocketAddr,
    /// For the metrics.
    pub result: ProbeResult,
    /// For people: "connection refused", "status 503, wanted 200-399".
    pub detail: String,
    /// From connect to answer.
    pub duration: Duration,
    /// It failed for want of something of this machine's (descriptors, memory, ports), and says
    /// nothing about the server.
    pub ours: bool,
}

impl ProbeOutcome {
    /// What to tell `control::health`; none: nothing.
    #[must_use]
    pub const fn verdict(&self) -> Option<bool> {
        if self.ours { None } else { Some(matches!(self.result, ProbeResult::Passed)) }
    }
}

/// Probes its targets, within a runtime of tokio-uring.
#[derive(Debug)]
pub struct Prober {
    sender: mpsc::UnboundedSender<ProbeOutcome>,
    /// Differs from process to process, so that two balancers don't probe in step.
    seed: RandomState,
    running: HashMap<ServerId, Running>,
}

#[derive(Debug)]
struct Running {
    /// None: to be probed no more.
    target: watch::Sender<Option<Target>>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Probes nothing yet; outcomes go to `sender`.
    #[must_use]
    pub fn new(sender: mpsc::UnboundedSender<ProbeOutcome>) -> Self {
        Self { sender, seed: RandomState::new(), running: HashMap::new() }
    }

    /// Probes these and no others. A target that was there before keeps its schedule; one that is
    /// gone is dropped when its probe in flight has ended, and nothing more is said of it. Those
    /// with `Check::Off` are not probed.
    pub fn set_targets(&mut self, targets: Vec<Target>) {
        let mut targets: HashMap<ServerId, Target> = targets
            .into_iter()
            .filter(|target| target.health.check != Check::Off)
            .map(|target| (target.id, target))
            .collect();
        self.running.retain(|id, running| {
            let wanted = targets.remove(id);
            let gone = running.task.is_finished();
            if gone {
                // Back before its task was cleared away: as new.
                targets.extend(wanted.map(|target| (*id, target)));
            } else {
                running.target.send_if_modified(|current| {
                    let changed = *current != wanted;
                    *current = wanted;
                    changed
                });
            }
            !gone
        });
        for (id, target) in targets {
            self.start(id, target);
        }
    }

    fn start(&mut self, id: ServerId, target: Target) {
        let (change, target) = watch::channel(Some(target));
        let rhythm = Rhythm::new(id, self.seed.hash_one(id.0), Instant::now());
        let task = tokio_uring::spawn(keep_probing(target, rhythm, self.sender.clone()));
        self.running.insert(id, Running { target: change, task });
    }
}

impl Target {
    const fn interval(&self) -> Duration {
        if self.up { self.health.interval } else { self.health.interval_down }
    }

    /// Whether a probe of the one says something of the other.
    fn is_asked_as(&self, other: &Self) -> bool {
        self.address == other.address
            && self.host_header == other.host_header
            && self.health.check == other.health.check
            && self.health.port == other.health.port
    }

    const fn probed_address(&self) -> SocketAddr {
        let mut address = self.address;
        if let Some(port) = self.health.port {
            address.set_port(port);
        }
        address
    }
}

/// Probes the target until there is none.
async fn keep_probing(
    mut target: watch::Receiver<Option<Target>>,
    mut rhythm: Rhythm,
    sender: mpsc::UnboundedSender<ProbeOutcome>,
) {
    loop {
        let Some(current) = target.borrow_and_update().clone() else { return };
        let due = rhythm.due(current.interval(), Instant::now());
        tokio::select! {
            () = sleep_until(due) => {}
            changed = target.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        if rhythm.was_stopped(due, current.interval(), Instant::now()) {
            continue;
        }
        let outcome = probe_in_time(&current).await;
        rhythm.probed();
        // What was asked of another address, or in another way, says nothing of this target.
        let asked = target.borrow().as_ref().is_some_and(|now| now.is_asked_as(&current));
        if asked && sender.send(outcome).is_err() {
            return;
        }
    }
}

/// A probe whose failure was not our own lateness, as far as a few repeats can tell.
async fn probe_in_time(target: &Target) -> ProbeOutcome {
    let mut repeats = 0;
    loop {
        let started = Instant::now();
        let deadline = started + target.health.timeout;
        let said =
            probe(target.probed_address(), &target.host_header, &target.health, deadline).await;
        let ended = Instant::now();
        if said.is_err() && ended > deadline + LATE && repeats < REPEATS_MAX {
            repeats += 1;
            continue;
        }
        let (result, detail, ours) = match said {
            Ok(detail) => (ProbeResult::Passed, detail, false),
            Err(failure) => (failure.result, failure.detail, failure.ours),
        };
        let duration = ended - started;
        let (server, address) = (target.id, target.address);
        return ProbeOutcome { server, address, result, detail, duration, ours };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::config::HttpCheck;
    use crate::control::probe::ANSWER_MAX;

    const MS: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(20);

    fn health(check: Check) -> Health {
        let http = HttpCheck {
            method: "HEAD".to_owned(),
            path: "/alive?a=b".to_owned(),
            ..HttpCheck::default()
        };
        let (interval, interval_down) = (20 * MS, 20 * MS);
        Health { check, http, interval, interval_down, timeout: LONG, ..Health::default() }
    }

    fn target(id: u32, address: SocketAddr, health: Health) -> Target {
        Target { id: ServerId(id), address, host_header: "web:80".to_owned(), health, up: true }
    }

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn prober() -> (Prober, UnboundedReceiver<ProbeOutcome>) {
        let (sender, outcomes) = mpsc::unbounded_channel();
        (Prober::new(sender), outcomes)
    }

    /// A server that reads a request, and writes `pieces` one after the other; gives its address
    /// and the requests.
    async fn answering(pieces: Vec<Vec<u8>>) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
        let (listener, address) = bind().await;
        let requests = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&requests);
        tokio_uring::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                client.set_nodelay(true).unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n")
                    && client.read_buf(&mut request).await.unwrap() > 0
                {}
                heard.borrow_mut().push(String::from_utf8(request).unwrap());
                for piece in &pieces {
                    // The probe may have heard enough.
                    drop(client.write_all(piece).await);
                    tokio::task::yield_now().await;
                }
            }
        });
        (address, requests)
    }

    async fn outcome_of(pieces: Vec<Vec<u8>>) -> (ProbeResult, String) {
        let (address, _) = answering(pieces).await;
        outcome(target(1, address, health(Check::Http))).await
    }

    async fn outcome(target: Target) -> (ProbeResult, String) {
        let (mut prober, mut outcomes) = prober();
        prober.set_targets(vec![target]);
        let outcome = outcomes.recv().await.unwrap();
        assert_eq!(outcome.verdict(), Some(outcome.result == ProbeResult::Passed));
        (outcome.result, outcome.detail)
    }

    #[test]
    fn an_http_probe_asks_as_it_was_told() {
        tokio_uring::start(async {
            let (address, requests) = answering(vec![b"HTTP/1.1 204 \r\n\r\n".to_vec()]).await;
            let (mut prober, mut outcomes) = prober();
            prober.set_targets(vec![target(7, address, health(Check::Http))]);
            let outcome = outcomes.recv().await.unwrap();
            assert_eq!((outcome.server, outcome.result), (ServerId(7), ProbeResult::Passed));
            assert_eq!(outcome.detail, "status 204");
            let requests = requests.borrow();
            let lines: Vec<&str> = requests[0].split("\r\n").collect();
            assert_eq!(lines[0], "HEAD /alive?a=b HTTP/1.1");
            for header in ["Host: web:80", "Connection: close"] {
                assert!(lines.contains(&header), "{lines:?}");
            }
            assert!(lines.iter().any(|line| line.starts_with("User-Agent: evenkeel/")));
        });
    }

    #[test]
    fn a_status_out_of_the_range_is_a_bad_answer() {
        tokio_uring::start(async {
            let answer = b"HTTP/1.0 503 Service Unavailable\r\nServer: x\r\n\r\n".to_vec();
            let (result, detail) = outcome_of(vec![answer]).await;
            assert_eq!(result, ProbeResult::BadAnswer);
            assert_eq!(detail, "status 503, wanted 200-399");
        });
    }

    #[test]
    fn an_answer_may_come_byte_by_byte() {
        tokio_uring::start(async {
            let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n".iter().map(|byte| vec![*byte]);
            assert_eq!(outcome_of(bytes.collect()).await.0, ProbeResult::Passed);
        });
    }

    #[test]
    fn what_is_no_http_is_a_bad_answer() {
        let cases: [(&[u8], &str); 5] = [
            (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP: invalid HTTP version"),
            (b"\x15\x03\x01\x00\x02\x02\x0a", "not HTTP: invalid HTTP version"),
            (b"HTTP/1.1 20", "no whole status line"),
            (&[b'\n'; 2 * ANSWER_MAX], "no whole status line"),
            (b"", "closed without an answer"),
        ];
        for (answer, said) in cases {
            tokio_uring::start(async {
                let (result, detail) = outcome_of(vec![answer.to_vec()]).await;
                assert_eq!((result, detail.as_str()), (ProbeResult::BadAnswer, said));
            });
        }
    }

    #[test]
    fn a_tcp_probe_asks_for_a_connection_only() {
        tokio_uring::start(async {
            let (_listener, address) = bind().await;
            let (result, detail) = outcome(target(1, address, health(Check::Tcp))).await;
            assert_eq!((result, detail.as_str()), (ProbeResult::Passed, "connected"));
        });
    }

    #[test]
    fn a_dead_server_refuses() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            drop(listener);
            let (result, detail) = outcome(target(1, address, health(Check::Tcp))).await;
            assert_eq!((result, detail.as_str()), (ProbeResult::Refused, "connection refused"));
        });
    }

    #[test]
    fn another_port_can_be_probed() {
        tokio_uring::start(async {
            let (_listener, address) = bind().await;
            let mut health = health(Check::Tcp);
            health.port = Some(address.port());
            let elsewhere = SocketAddr::new(address.ip(), 1);
            assert_eq!(outcome(target(1, elsewhere, health)).await.0, ProbeResult::Passed);
        });
    }

    async fn until_closed(mut client: TcpStream, open: Rc<Cell<u32>>) {
        let mut request = Vec::new();
        while client.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
        open.set(open.get() - 1);
    }

    #[test]
    fn a_silent_server_is_probed_one_probe_at_a_time() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            let open = Rc::new(Cell::new(0));
            let most = Rc::new(Cell::new(0));
            let (now_open, most_open) = (Rc::clone(&open), Rc::clone(&most));
            tokio_uring::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    now_open.set(now_open.get() + 1);
                    most_open.set(most_open.get().max(now_open.get()));
                    tokio_uring::spawn(until_closed(client, Rc::clone(&now_open)));
                }
            });
            let (mut prober, mut outcomes) = prober();
            let mut health = health(Check::Http);
            health.timeout = 200 * MS;
            prober.set_targets(vec![target(1, address, health)]);
            for _ in 0..5 {
                let outcome = outcomes.recv().await.unwrap();
                assert_eq!(outcome.result, ProbeResult::Timeout);
                assert_eq!(outcome.detail, "no answer within 200ms");
            }
            assert_eq!(most.get(), 1);
        });
    }

    #[test]
    fn a_failure_while_the_process_was_stopped_is_not_the_servers() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            let (mut prober, mut outcomes) = prober();
            let mut health = health(Check::Http);
            health.timeout = 200 * MS;
            prober.set_targets(vec![target(1, address, health.clone())]);
            // The first probe hears nothing, and its deadline passes while nothing runs.
            let (_silent, _) = listener.accept().await.unwrap();
            let until = Instant::now() + health.timeout + 2 * LATE;
            while Instant::now() < until {
                std::thread::yield_now();
            }
            let (mut client, _) = listener.accept().await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            assert_eq!(outcomes.recv().await.unwrap().result, ProbeResult::Passed);
        });
    }

    #[test]
    fn a_target_that_is_gone_is_heard_of_no_more() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            let (mut prober, mut outcomes) = prober();
            prober.set_targets(vec![target(1, address, health(Check::Http))]);
            let (mut client, _): (TcpStream, _) = listener.accept().await.unwrap();
            let (_other, there) = bind().await;
            let off = target(3, address, health(Check::Off));
            prober.set_targets(vec![target(2, there, health(Check::Tcp)), off]);
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            for _ in 0..5 {
                assert_eq!(outcomes.recv().await.unwrap().server, ServerId(2));
            }
            assert_eq!(prober.running.len(), 2);
            prober.set_targets(Vec::new());
            let deadline = Instant::now() + LONG;
            while !prober.running.is_empty() && Instant::now() < deadline {
                tokio::time::sleep(MS).await;
                prober.set_targets(Vec::new());
            }
            assert!(prober.running.is_empty());
        });
    }

    #[test]
    fn a_target_that_moved_is_probed_at_its_new_place() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            let (mut prober, mut outcomes) = prober();
            prober.set_targets(vec![target(1, address, health(Check::Http))]);
            let (mut client, _) = listener.accept().await.unwrap();
            let (there, _) = answering(vec![b"HTTP/1.1 200 OK\r\n\r\n".to_vec()]).await;
            prober.set_targets(vec![target(1, there, health(Check::Http))]);
            client.write_all(b"HTTP/1.1 500 No\r\n\r\n").await.unwrap();
            assert_eq!(outcomes.recv().await.unwrap().result, ProbeResult::Passed);
        });
    }
}
