//! Visitors: who connects to see or to order something. So many are served at once; for one more,
//! the conversation that has had its time the longest is ended.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::shared::orders::Request;

/// After an accept that failed for want of descriptors, most likely: else it would be a spin.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a conversation in which nothing is heard goes on if others wait: a request is there at
/// once or never, and a supervisor that waits must not give up.
const GRACE: Duration = Duration::from_secs(1);

/// When a conversation's request was there: it has more time from then on, if others wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<OnceLock<Instant>>);

impl Heard {
    /// Its request is there.
    pub(super) fn set(&self) {
        self.0.get_or_init(Instant::now);
    }
}

/// A door that visitors come through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door {
    /// Of the socket, for the log.
    pub(super) name: &'static str,
    /// How many are served at a time.
    pub(super) most: usize,
    /// How long one goes on from its request on, if others wait: longer than an answer may take.
    /// None: until it ends by itself.
    pub(super) patience: Option<Duration>,
}

/// Serves who is accepted until the control thread hangs up; dropped, it ends every conversation.
pub(super) async fn serve<S, A, C>(
    door: Door,
    control: &mpsc::Sender<Request>,
    accept: impl Fn() -> A,
    converse: impl Fn(S, Heard) -> C,
) where
    A: Future<Output = io::Result<S>>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut visitors = Visitors {
        patience: door.patience,
        places: Arc::new(Semaphore::new(door.most)),
        conversations: JoinSet::new(),
        present: VecDeque::with_capacity(door.most),
    };
    let serving = async {
        loop {
            match accept().await {
                Ok(visitor) => {
                    let heard = Heard::default();
                    visitors.begin(converse(visitor, heard.clone()), heard).await;
                }
                Err(error) => {
                    tracing::warn!("{}: {error}", door.name);
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
    patience: Option<Duration>,
    places: Arc<Semaphore>,
    conversations: JoinSet<()>,
    /// Oldest first; some may have ended since.
    present: VecDeque<Present>,
}

#[derive(Debug)]
struct Present {
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
        self.present.push_back(Present { since: Instant::now(), conversation, heard });
    }

    /// One that is free, or becomes so; that of one who has had its time, if none does before.
    /// None only if the semaphore were closed, which nobody does.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(free);
        loop {
            self.present.retain(|one| !one.conversation.is_finished());
            let Some((end, _)) = self.first_to_end() else { return free.await.ok() };
            tokio::select! {
                biased;
                place = &mut free => return place.ok(),
                () = sleep_until(end) => {
                    // It may have been heard in the meantime.
                    let first = self.first_to_end();
                    if let Some((_, first)) = first.filter(|(end, _)| *end <= Instant::now()) {
                        first.abort();
                        return free.await.ok();
                    }
                }
            }
        }
    }

    /// Whose time is over first, and when.
    fn first_to_end(&self) -> Option<(Instant, &AbortHandle)> {
        let ends = self.present.iter().filter_map(|one| {
            let end = match one.heard.0.get() {
                Some(heard) => *heard + self.patience?,
                None => one.since + GRACE,
            };
            Some((end, &one.conversation))
        });
        ends.min_by_key(|(deadline, _)| *deadline)
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

    /// A door for two, to which so many come, who speak or not; `look` sees how they fare.
    fn visit<const N: usize>(
        patience: Option<Duration>,
        speak: [bool; N],
        look: impl AsyncFnOnce([oneshot::Receiver<()>; N]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (control, _requests) = mpsc::channel(1);
            let (arrivals, visitors) = mpsc::channel::<Visitor>(8);
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
            let ends = speak.map(|speaks| {
                let (present, end) = oneshot::channel();
                arrivals.try_send((speaks, present)).unwrap();
                end
            });
            let door = Door { name: "a door", most: 2, patience };
            tokio::select! {
                () = serve(door, &control, accept, converse) => panic!("it serves on"),
                () = look(ends) => {}
            }
        });
    }

    #[test]
    fn the_oldest_who_is_silent_makes_room_and_who_was_heard_stays() {
        visit(None, [true, false, false, true], async |ends| {
            let [mut first, second, third, mut fourth] = ends;
            assert!(second.await.is_err(), "silent, and the third wants its place");
            assert!(third.await.is_err(), "silent, and the fourth wants its place");
            assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(fourth.try_recv(), Err(TryRecvError::Empty));
        });
    }

    #[test]
    fn who_was_heard_has_longer_than_the_silent_where_not_for_ever() {
        visit(Some(2 * GRACE), [true, false, true, true], async |[mut first, second, ..]| {
            assert!(second.await.is_err(), "silent, and the third wants its place");
            assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "there longer, but heard");
            assert!(first.await.is_err(), "heard, and the fourth wants its place");
        });
    }
}
