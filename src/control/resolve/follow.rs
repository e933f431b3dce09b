//! Follows a host name: looks it up again when its TTL ends, and reports changes.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::control::resolve::resolver::{Answer, Resolver};

/// The pause after a failure, and the longest after several.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The shortest time between two lookups of one name.
const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A change of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The name.
    pub host: String,
    /// Its addresses, which changed or are known again; or why the lookup failed, in which case the
    /// last good answer still holds.
    pub answer: Result<Answer, String>,
}

/// A task that keeps looking up a host name; it ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    refresh: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows `host` from its `first` answer on (none: looks it up at once). Reports to `sender`
    /// when its addresses change, when a lookup fails after one that succeeded, and when one
    /// succeeds again. Within a runtime of tokio-uring.
    #[must_use]
    pub fn start(
        resolver: Resolver,
        host: String,
        first: Option<Answer>,
        sender: mpsc::UnboundedSender<Resolved>,
    ) -> Self {
        let refresh = Rc::new(Notify::new());
        let task = tokio_uring::spawn(follow(resolver, host, first, sender, Rc::clone(&refresh)));
        Self { refresh, task }
    }

    /// Looks it up again now, but not twice in a second: after a failed connect.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The task has no operation of the ring in flight.
        self.task.abort();
    }
}

async fn follow(
    resolver: Resolver,
    host: String,
    first: Option<Answer>,
    sender: mpsc::UnboundedSender<Resolved>,
    refresh: Rc<Notify>,
) {
    let started = Instant::now();
    let seed = RandomState::new();
    let soon = |ttl, asked: Instant| jittered(ttl, seed.hash_one(asked.duration_since(started)));
    let mut wait = first.as_ref().map_or(Duration::ZERO, |answer| soon(answer.ttl, started));
    let mut known = first.map(|answer| answer.addresses);
    let mut retry = None;
    let mut asked = started;
    loop {
        tokio::select! {
            () = sleep_until(asked + wait) => {}
            () = refresh.notified() => sleep_until(asked + LOOKUP_INTERVAL_MIN.min(wait)).await,
        }
        asked = Instant::now();
        let answer = resolver.lookup_after(&host, known.as_deref().unwrap_or_default()).await;
        let is_new = match &answer {
            Ok(answer) => {
                wait = soon(answer.ttl, asked);
                let was_failing = retry.take().is_some();
                let changed = known.as_ref() != Some(&answer.addresses);
                known = Some(answer.addresses.clone());
                changed || was_failing
            }
            Err(_) => {
                wait = retry.unwrap_or(RETRY.0);
                retry.replace((wait * 2).min(RETRY.1)).is_none()
            }
        };
        if is_new && sender.send(Resolved { host: host.clone(), answer }).is_err() {
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
