//! The limit of concurrent connections to HTTP and to the control socket. At the limit, a new
//! connection replaces the one whose time is over first.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::shared::orders::Request;
use crate::shared::state::{Observing, SharedState};

/// After an accept that failed, most likely because no descriptor is left: prevents a busy loop.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a connection without a request is kept while others wait: a request arrives at once or
/// never, and a probe of a supervisor must not time out.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// For answers to be sent once a new process has the socket.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// When the request of a connection has arrived: from then on it has more time.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestArrived(Arc<OnceLock<Instant>>);

impl RequestArrived {
    /// The request has arrived.
    pub(super) fn set(&self) {
        self.0.get_or_init(Instant::now);
    }
}

/// The limit of one listening socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimit {
    /// The name of the socket, for the log.
    pub(super) name: &'static str,
    /// Connections that are served at a time.
    pub(super) max: usize,
    /// How long a connection is kept from its request on while others wait: longer than an answer
    /// may take. None: until it ends by itself.
    pub(super) answer_timeout: Option<Duration>,
}

/// Serves accepted connections until the control thread drops its receiver of requests, or a new
/// process has the socket: then those that are open are returned, so that they end. Dropped, it
/// ends every connection.
pub(super) async fn serve<S, A, C>(
    limit: ConnectionLimit,
    control: &mpsc::Sender<Request>,
    shared: &SharedState,
    accept: impl Fn() -> A,
    converse: impl Fn(S, RequestArrived) -> C,
) -> OpenConnections
where
    A: Future<Output = io::Result<S>>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = Connections {
        answer_timeout: limit.answer_timeout,
        permits: Arc::new(Semaphore::new(limit.max)),
        tasks: JoinSet::new(),
        open: VecDeque::with_capacity(limit.max),
    };
    let serving = async {
        loop {
            match accept().await {
                Ok(stream) => {
                    let arrived = RequestArrived::default();
                    connections.start(converse(stream, arrived.clone()), arrived).await;
                }
                Err(error) => {
                    tracing::warn!("{}: {error}", limit.name);
                    sleep(PAUSE).await;
                }
            }
        }
    };
    let mut observing = shared.observing.subscribe();
    let handed_over = tokio::select! {
        biased; // nothing is accepted any more once a new process has the socket
        changed = observing.wait_for(|served| *served != Observing::Here) => changed.is_ok(),
        () = control.closed() => false,
        () = serving => false,
    };
    OpenConnections(handed_over.then_some(connections.tasks))
}

/// Connections that are open when the socket is given up.
#[derive(Debug)]
#[must_use = "they end when it is dropped"]
pub(super) struct OpenConnections(Option<JoinSet<()>>);

impl OpenConnections {
    /// Whether a new process has the socket.
    pub(super) const fn are_handed_over(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until their answers are sent, but not long.
    pub(super) async fn finish(self) {
        let Some(mut tasks) = self.0 else { return };
        let all = async { while tasks.join_next().await.is_some() {} };
        drop(timeout(FINISH_TIMEOUT, all).await);
    }
}

#[derive(Debug)]
struct Connections {
    answer_timeout: Option<Duration>,
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// Oldest first; some may have ended since.
    open: VecDeque<Connection>,
}

#[derive(Debug)]
struct Connection {
    accepted: Instant,
    task: AbortHandle,
    request: RequestArrived,
}

impl Connections {
    async fn start(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        request: RequestArrived,
    ) {
        let permit = self.permit().await;
        while self.tasks.try_join_next().is_some() {}
        let task = self.tasks.spawn(async move {
            let _permit = permit;
            connection.await;
        });
        self.open.push_back(Connection { accepted: Instant::now(), task, request });
    }

    /// The next permit that is free; if the time of a connection is over before, that one ends.
    /// None only if the semaphore were closed, which nobody does.
    async fn permit(&mut self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.permits).acquire_owned();
        tokio::pin!(free);
        loop {
            self.open.retain(|connection| !connection.task.is_finished());
            let Some((deadline, _)) = self.first_deadline() else { return free.await.ok() };
            tokio::select! {
                biased;
                permit = &mut free => return permit.ok(),
                () = sleep_until(deadline) => {
                    // Its request may have arrived in the meantime.
                    let first = self.first_deadline();
                    let over = first.filter(|(deadline, _)| *deadline <= Instant::now());
                    if let Some((_, task)) = over {
                        task.abort();
                        return free.await.ok();
                    }
                }
            }
        }
    }

    /// The connection whose time is over first.
    fn first_deadline(&self) -> Option<(Instant, &AbortHandle)> {
        let deadlines = self.open.iter().filter_map(|connection| {
            let deadline = match connection.request.0.get() {
                Some(arrived) => *arrived + self.answer_timeout?,
                None => connection.accepted + REQUEST_TIMEOUT,
            };
            Some((deadline, &connection.task))
        });
        deadlines.min_by_key(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;
    use std::future::pending;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    /// Whether a client sends a request; its connection lasts until the other end is dropped.
    type Client = (bool, oneshot::Sender<()>);

    /// A limit of two connections, and clients that send a request or not; `look` sees which of
    /// them are kept.
    fn clients<const N: usize>(
        answer_timeout: Option<Duration>,
        requests: [bool; N],
        look: impl AsyncFnOnce([oneshot::Receiver<()>; N]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((control, _requests), shared) = (mpsc::channel(1), sample::shared());
            let (arrivals, clients) = mpsc::channel::<Client>(8);
            let clients = tokio::sync::Mutex::new(clients);
            let accept = || async {
                let client = clients.lock().await.recv().await;
                client.ok_or_else(|| io::ErrorKind::NotConnected.into())
            };
            let converse = |(sends, present): Client, arrived: RequestArrived| async move {
                if sends {
                    arrived.set();
                }
                let _present = present;
                pending::<()>().await;
            };
            let ends = requests.map(|sends| {
                let (present, end) = oneshot::channel();
                arrivals.try_send((sends, present)).unwrap();
                end
            });
            let limit = ConnectionLimit { name: "a socket", max: 2, answer_timeout };
            tokio::select! {
                _ = serve(limit, &control, &shared, accept, converse) => panic!("it has ended"),
                () = look(ends) => {}
            }
        });
    }

    #[test]
    fn the_oldest_connection_without_a_request_is_replaced_and_one_with_a_request_is_kept() {
        clients(None, [true, false, false, true], async |ends| {
            let [mut first, second, third, mut fourth] = ends;
            assert!(second.await.is_err(), "no request, and the third waits");
            assert!(third.await.is_err(), "no request, and the fourth waits");
            assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(fourth.try_recv(), Err(TryRecvError::Empty));
        });
    }

    #[test]
    fn a_connection_with_a_request_has_more_time_than_one_without() {
        // So much more that a busy machine does not matter.
        clients(
            Some(10 * REQUEST_TIMEOUT),
            [true, false, true, true],
            async |[mut first, second, ..]| {
                assert!(second.await.is_err(), "no request, and the third waits");
                assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "older, but with a request");
                assert!(first.await.is_err(), "its time is over, and the fourth waits");
            },
        );
    }
}
