//! Follows a name: looks it up again when its TTL ends, and reports changes.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::control::resolve::answer::{Answer, SrvAnswer};
use crate::control::resolve::resolver::Resolver;

/// The pause after a failure, and the longest after several.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The shortest time between two lookups of one name.
const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A change of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<A = Answer> {
    /// The name.
    pub name: String,
    /// What it has in DNS, which changed or is known again; or why the lookup failed, in which case
    /// the last good answer still holds.
    pub answer: Result<A, String>,
}

/// What a name has in DNS: addresses, or records.
pub trait Followed: Clone + 'static {
    /// How long it holds.
    fn ttl(&self) -> Duration;
    /// Whether it differs in no more than the TTL.
    fn is_same(&self, other: &Self) -> bool;
    /// Looks it up; `known` is the last good answer.
    fn look_up(
        resolver: &Resolver,
        name: &str,
        known: Option<&Self>,
    ) -> impl Future<Output = Result<Self, String>>;
}

impl Followed for Answer {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn is_same(&self, other: &Self) -> bool {
        self.addresses == other.addresses
    }

    async fn look_up(
        resolver: &Resolver,
        name: &str,
        known: Option<&Self>,
    ) -> Result<Self, String> {
        let known = known.map(|answer| &*answer.addresses).unwrap_or_default();
        resolver.lookup_after(name, known).await
    }
}

impl Followed for SrvAnswer {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn is_same(&self, other: &Self) -> bool {
        self.records == other.records
    }

    async fn look_up(resolver: &Resolver, name: &str, _: Option<&Self>) -> Result<Self, String> {
        resolver.lookup_srv(name).await
    }
}

/// A task that keeps looking up a name; it ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    hints: Rc<Hints>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows `name` from its `first` answer on (none: looks it up at once). Reports to `sender`
    /// when the answer changes, when a lookup fails after one that succeeded, and when one
    /// succeeds again. Within a runtime of tokio-uring.
    #[must_use]
    pub fn start<A: Followed>(
        resolver: Resolver,
        name: String,
        first: Option<A>,
        sender: mpsc::UnboundedSender<Resolved<A>>,
    ) -> Self {
        let hints = Rc::new(Hints::default());
        let task = tokio_uring::spawn(follow(resolver, name, first, sender, Rc::clone(&hints)));
        Self { hints, task }
    }

    /// Looks it up again now, but not twice in a second: the operator has reloaded.
    pub fn refresh(&self) {
        self.hints.pause.set(LOOKUP_INTERVAL_MIN);
        self.hints.notify.notify_one();
    }

    /// Looks it up again soon, since it may have moved: a connect or a probe has failed. As long as
    /// the answer stays the same, the pause between two such lookups grows to 30 s.
    pub fn hint(&self) {
        self.hints.notify.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The task has no operation of the ring in flight.
        self.task.abort();
    }
}

/// Hints that a name may have moved.
#[derive(Debug)]
struct Hints {
    notify: Notify,
    /// From a lookup to one that a hint causes.
    pause: Cell<Duration>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { notify: Notify::new(), pause: Cell::new(LOOKUP_INTERVAL_MIN) }
    }
}

impl Hints {
    /// Waits until the next lookup is due, `wait` after the last one or earlier after a hint; and
    /// whether there was one.
    async fn due(&self, asked: Instant, wait: Duration) -> bool {
        tokio::select! {
            () = sleep_until(asked + wait) => return false,
            () = self.notify.notified() => {}
        }
        loop {
            tokio::select! {
                () = sleep_until(asked + self.pause.get().min(wait)) => return true,
                // The pause may be shorter now.
                () = self.notify.notified() => {}
            }
        }
    }

    fn note_lookup(&self, hinted: bool, changed: bool) {
        let next = if hinted && !changed { self.pause.get() * 2 } else { LOOKUP_INTERVAL_MIN };
        self.pause.set(next.min(RETRY.1));
    }
}

async fn follow<A: Followed>(
    resolver: Resolver,
    name: String,
    first: Option<A>,
    sender: mpsc::UnboundedSender<Resolved<A>>,
    hints: Rc<Hints>,
) {
    let started = Instant::now();
    let seed = RandomState::new();
    let soon = |ttl, asked: Instant| jittered(ttl, seed.hash_one(asked.duration_since(started)));
    let mut wait = first.as_ref().map_or(Duration::ZERO, |answer| soon(answer.ttl(), started));
    let mut known = first;
    let mut retry = None;
    let mut asked = started;
    loop {
        let hinted = hints.due(asked, wait).await;
        asked = Instant::now();
        let answer = A::look_up(&resolver, &name, known.as_ref()).await;
        let (is_new, changed) = match &answer {
            Ok(answer) => {
                wait = soon(answer.ttl(), asked);
                let was_failing = retry.take().is_some();
                let changed = !known.as_ref().is_some_and(|known| known.is_same(answer));
                known = Some(answer.clone());
                (changed || was_failing, changed)
            }
            Err(_) => {
                wait = retry.unwrap_or(RETRY.0);
                (retry.replace((wait * 2).min(RETRY.1)).is_none(), false)
            }
        };
        hints.note_lookup(hinted, changed);
        if is_new && sender.send(Resolved { name: name.clone(), answer }).is_err() {
            return;
        }
    }
}

/// Up to an eighth less than the TTL, so that names that were looked up together are spread; at
/// least a second, and never more than the TTL.
pub(super) fn jittered(ttl: Duration, random: u64) -> Duration {
    let part = u32::try_from(random >> 48).unwrap_or(0);
    (ttl - ttl / 8 * part / (1 << 16)).max(LOOKUP_INTERVAL_MIN)
}
