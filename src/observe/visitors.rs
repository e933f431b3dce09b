//! Visitors: who connects to see or to order something. So many are served at once; for one more,
//! the oldest conversation in which nothing was heard yet is ended.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::observe::status::Request;

/// After an accept that failed for want of descriptors, most likely: else it would be a spin.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a conversation is not ended for the sake of others: several times what the slowest
/// answer takes, and less than a supervisor waits before it gives up.
const GRACE: Duration = Duration::from_secs(1);

/// What a conversation says once it is not to be ended for the sake of others any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Its request is there.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves who is accepted, `most` at a time, until the control thread hangs up; dropped, it ends
/// every conversation. `what` names the socket in the log.
pub(super) async fn serve<S, A, C>(
    (what, most): (&'static str, usize),
    control: &mpsc::Sender<Request>,
    accept: impl Fn() -> A,
    converse: impl Fn(S, Heard) -> C,
) where
    A: Future<Output = io::Result<S>>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut visitors = Visitors {
        places: Arc::new(Semaphore::new(most)),
        conversations: JoinSet::new(),
        silent: VecDeque::with_capacity(most),
    };
    let serving = async {
        loop {
            match accept().await {
                Ok(visitor) => {
                    let heard = Heard::default();
                    visitors.begin(converse(visitor, heard.clone()), heard).await;
                }
                Err(error) => {
                    tracing::warn!("{what}: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = control.closed() => {}
    }
}

#[derive(Debug)]
struct Visitors {
    places: Arc<Semaphore>,
    conversations: JoinSet<()>,
    /// Oldest first; some may have been heard, or have ended, since.
    silent: VecDeque<Silent>,
}

#[derive(Debug)]
struct Silent {
    since: Instant,
    conversation: AbortHandle,
    heard: Heard,
}

impl Visitors {
    async fn begin(
        &mut self,
        conversation: impl Future<Output = ()> + Send + 'static,
        heard: Heard,
    ) {
        let place = self.place().await;
        while self.conversations.try_join_next().is_some() {}
        let conversation = self.conversations.spawn(async move {
            let _place = place;
            conversation.await;
        });
        self.silent.push_back(Silent { since: Instant::now(), conversation, heard });
    }

    /// One that is free, or becomes so; that of the oldest who is silent, if none does in time.
    /// None only if the semaphore were closed, which nobody does.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(free);
        loop {
            self.silent.retain(|one| !one.heard.is_set() && !one.conversation.is_finished());
            let Some(oldest) = self.silent.front() else { return free.await.ok() };
            tokio::select! {
                biased;
                place = &mut free => return place.ok(),
                () = sleep_until(oldest.since + GRACE) => {
                    if !oldest.heard.is_set() {
                        oldest.conversation.abort();
                        return free.await.ok();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    /// One who says something or not, and whose conversation lasts until the other end is dropped.
    type Visitor = (bool, oneshot::Sender<()>);

    #[test]
    fn the_oldest_who_is_silent_makes_room_and_who_was_heard_stays() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (control, _requests) = mpsc::channel(1);
            let (door, visitors) = mpsc::channel::<Visitor>(8);
            let visitors = tokio::sync::Mutex::new(visitors);
            let accept = || async {
                let visitor = visitors.lock().await.recv().await;
                visitor.ok_or_else(|| io::ErrorKind::NotConnected.into())
            };
            let converse = |(speaks, present): Visitor, heard: Heard| async move {
                if speaks {
                    heard.set();
                }
                let _present = present;
                pending::<()>().await;
            };
            let come = async {
                let mut there = Vec::new();
                for speaks in [true, false, false, true] {
                    let (present, end) = oneshot::channel();
                    door.send((speaks, present)).await.unwrap();
                    there.push(end);
                }
                let [first, second, third, fourth] = &mut there[..] else { panic!("four came") };
                assert!(second.await.is_err(), "silent, and the third wants its place");
                assert!(third.await.is_err(), "silent, and the fourth wants its place");
                assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
                assert_eq!(fourth.try_recv(), Err(TryRecvError::Empty));
            };
            tokio::select! {
                () = serve(("a door", 2), &control, accept, converse) => panic!("it serves on"),
                () = come => {}
            }
        });
    }
}
