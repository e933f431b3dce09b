//! Probes: one task for each endpoint, which probes it at its interval.
//!
//! The results go to the control thread, which counts them (`control::health`). A probe says
//! something about the endpoint only if this machine had the time and the resources for it: one
//! whose deadline fired late (the process was stopped) is repeated, and one that had no descriptor
//! is reported without a verdict.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::control::cluster::{ProbeReport, ProbeTarget};
use crate::control::health::ProbeTaskId;
use crate::control::probe::probe;
use crate::control::probe_schedule::{Pace, ProbeSchedule};
use crate::shared::snapshot::ProbeResult;

/// A timer that fires later than this was kept from firing: the process was stopped, or had no
/// processor. (A running thread on a loaded Pi is late by some ten milliseconds.)
const LATE: Duration = Duration::from_millis(100);

/// How many times in a row a failed probe is repeated for lateness; after that it counts, so that a
/// machine that is always late still notices a dead server.
const REPEATS_MAX: u32 = 2;

/// Probes its targets, within a runtime of tokio-uring.
#[derive(Debug)]
pub struct Prober {
    sender: mpsc::UnboundedSender<ProbeReport>,
    /// Differs between processes, so that two balancers do not probe in step.
    seed: RandomState,
    started: Instant,
    /// A task ends when its sender is dropped.
    tasks: HashMap<ProbeTaskId, watch::Sender<ProbeTarget>>,
}

impl Prober {
    /// Probes nothing yet; reports go to `sender`.
    #[must_use]
    pub fn new(sender: mpsc::UnboundedSender<ProbeReport>) -> Self {
        let (seed, started) = (RandomState::new(), Instant::now());
        Self { sender, seed, started, tasks: HashMap::new() }
    }

    /// Probes these and no others. A task that runs already keeps its schedule; one that is not
    /// among them ends, and its probe in flight is not reported.
    pub fn set_targets(&mut self, targets: Vec<ProbeTarget>) {
        let mut running = std::mem::take(&mut self.tasks);
        let new = targets.iter().filter(|target| !running.contains_key(&target.task)).count();
        let first = u32::try_from(new).unwrap_or(u32::MAX);
        let pace = Pace { since: self.started, first };
        self.tasks.reserve(targets.len());
        for target in targets {
            let id = target.task;
            let task = running.remove(&id);
            let task = task.unwrap_or_else(|| self.start(target.clone(), pace));
            task.send_if_modified(|current| {
                let changed = *current != target;
                *current = target;
                changed
            });
            self.tasks.insert(id, task);
        }
    }

    /// The endpoint that a task probes went up or down.
    pub fn set_up(&self, task: ProbeTaskId, up: bool) {
        if let Some(target) = self.tasks.get(&task) {
            target.send_if_modified(|target| std::mem::replace(&mut target.up, up) != up);
        }
    }

    fn start(&self, target: ProbeTarget, pace: Pace) -> watch::Sender<ProbeTarget> {
        let id = target.task;
        let schedule = ProbeSchedule::new(id, self.seed.hash_one(id.0), pace, Instant::now());
        let (sender, target) = watch::channel(target);
        tokio_uring::spawn(keep_probing(target, schedule, self.sender.clone()));
        sender
    }
}

/// Probes the target until the sender of `target` is dropped.
async fn keep_probing(
    mut target: watch::Receiver<ProbeTarget>,
    mut schedule: ProbeSchedule,
    sender: mpsc::UnboundedSender<ProbeReport>,
) {
    // Each source address in turn, as sessions do.
    let mut turn = 0_usize;
    loop {
        let current = target.borrow_and_update().clone();
        let health = &current.check.health;
        let interval = if current.up { health.interval } else { health.interval_down };
        let due = schedule.due(interval, Instant::now());
        tokio::select! {
            () = sleep_until(due) => {}
            changed = target.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        if schedule.was_stopped(due, interval, Instant::now()) {
            continue;
        }
        let report = probe_in_time(&current, turn).await;
        turn = turn.wrapping_add(1);
        schedule.probed();
        if target.has_changed().is_err() || sender.send(report).is_err() {
            return;
        }
    }
}

/// A probe; one that failed at a deadline that fired late is repeated.
async fn probe_in_time(target: &ProbeTarget, turn: usize) -> ProbeReport {
    let mut repeats = 0;
    loop {
        let started = Instant::now();
        let deadline = started + target.check.health.timeout;
        let said = probe(target, turn, deadline).await;
        let ended = Instant::now();
        if said.is_err() && ended > deadline + LATE && repeats < REPEATS_MAX {
            repeats += 1;
            continue;
        }
        let (result, detail, verdict) = match said {
            Ok(detail) => (ProbeResult::Passed, detail, Some(true)),
            Err(failure) => {
                (failure.result, failure.detail.into(), (!failure.ours).then_some(false))
            }
        };
        let (task, duration) = (target.task, ended - started);
        return ProbeReport { task, result, detail, duration, verdict };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::config::{Check, Health, HttpCheck};
    use crate::control::cluster::ProbeCheck;
    use crate::control::probe_http::ANSWER_MAX;

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

    fn target(id: u32, address: SocketAddr, health: Health) -> ProbeTarget {
        ProbeTarget {
            task: ProbeTaskId(id),
            address: address.into(),
            host_header: "web:80".into(),
            host: None,
            check: Arc::new(ProbeCheck { health, ..ProbeCheck::default() }),
            up: true,
        }
    }

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn prober() -> (Prober, UnboundedReceiver<ProbeReport>) {
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

    async fn outcome(target: ProbeTarget) -> (ProbeResult, String) {
        let (mut prober, mut outcomes) = prober();
        prober.set_targets(vec![target]);
        let outcome = outcomes.recv().await.unwrap();
        assert_eq!(outcome.verdict, Some(outcome.result == ProbeResult::Passed));
        (outcome.result, outcome.detail.into_owned())
    }

    #[test]
    fn an_http_probe_sends_the_configured_request() {
        tokio_uring::start(async {
            let (address, requests) = answering(vec![b"HTTP/1.1 204 \r\n\r\n".to_vec()]).await;
            let (mut prober, mut outcomes) = prober();
            prober.set_targets(vec![target(7, address, health(Check::Http))]);
            let outcome = outcomes.recv().await.unwrap();
            assert_eq!((outcome.task, outcome.result), (ProbeTaskId(7), ProbeResult::Passed));
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
            assert_eq!(detail, "status 503, expected 200-399");
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
    fn an_interim_response_is_passed_over() {
        tokio_uring::start(async {
            let early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
            let bytes = [b"HTTP/1.1 100 Continue\r\n\r\n", &early[..], b"HTTP/1.1 200 OK\r\n"];
            let bytes = bytes.concat().into_iter().map(|byte| vec![byte]);
            let passed = (ProbeResult::Passed, "status 200".to_owned());
            assert_eq!(outcome_of(bytes.collect()).await, passed);
        });
    }

    #[test]
    fn an_answer_that_is_not_http_is_a_bad_answer() {
        let cases: [(&[u8], &str); 5] = [
            (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP: invalid HTTP version"),
            (b"\x15\x03\x01\x00\x02\x02\x0a", "not HTTP: invalid HTTP version"),
            (b"HTTP/1.1 20", "incomplete status line"),
            (&[b'\n'; 2 * ANSWER_MAX], "incomplete status line"),
            (b"", "closed without a response"),
        ];
        for (answer, said) in cases {
            tokio_uring::start(async {
                let (result, detail) = outcome_of(vec![answer.to_vec()]).await;
                assert_eq!((result, detail.as_str()), (ProbeResult::BadAnswer, said));
            });
        }
    }

    #[test]
    fn a_tcp_probe_only_connects() {
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
    fn a_failure_while_the_process_was_stopped_does_not_count() {
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
    fn a_target_that_is_gone_is_not_reported_any_more() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            let (mut prober, mut outcomes) = prober();
            prober.set_targets(vec![target(1, address, health(Check::Http))]);
            let (mut client, _): (TcpStream, _) = listener.accept().await.unwrap();
            let (_other, there) = bind().await;
            prober.set_targets(vec![target(2, there, health(Check::Tcp))]);
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            for _ in 0..5 {
                assert_eq!(outcomes.recv().await.unwrap().task, ProbeTaskId(2));
            }
            assert_eq!(prober.tasks.len(), 1);
        });
    }

    #[test]
    fn another_task_for_an_endpoint_probes_it_at_once() {
        tokio_uring::start(async {
            let (listener, address) = bind().await;
            let (mut prober, mut outcomes) = prober();
            prober.set_targets(vec![target(1, address, health(Check::Http))]);
            let (mut before, _) = listener.accept().await.unwrap();
            prober.set_targets(vec![target(2, address, health(Check::Http))]);
            let (mut client, _) = listener.accept().await.unwrap();
            before.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            client.write_all(b"HTTP/1.1 500 No\r\n\r\n").await.unwrap();
            let outcome = outcomes.recv().await.unwrap();
            assert_eq!((outcome.task, outcome.verdict), (ProbeTaskId(2), Some(false)));
        });
    }
}
