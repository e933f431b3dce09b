//! Following a name: asking for it again as its TTL ends, and saying what changed.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{Answer, Resolver};

/// After a failure, and at most after many.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Between two questions for one name, however often it is asked for.
const POKE_MIN: Duration = Duration::from_secs(1);

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The name.
    pub host: String,
    /// Its addresses, which changed or are known again; or why they could not be learned, in which
    /// case the last good answer still holds.
    pub answer: Result<Answer, String>,
}

/// A task that keeps asking for a name, and ends with this.
#[derive(Debug)]
pub struct Follower {
    poke: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows `host` from its `first` answer on (none: asks at once), and tells `sender` when its
    /// addresses changed, when the first of several lookups failed, and when that is over. Within
    /// a runtime of tokio-uring.
    #[must_use]
    pub fn start(
        resolver: Resolver,
        host: String,
        first: Option<Answer>,
        sender: mpsc::UnboundedSender<Resolved>,
    ) -> Self {
        let poke = Rc::new(Notify::new());
        let task = tokio_uring::spawn(follow(resolver, host, first, sender, Rc::clone(&poke)));
        Self { poke, task }
    }

    /// Asks at once, though not twice in a second: after a failed connect.
    pub fn poke(&self) {
        self.poke.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // No operation of the ring's is in this task.
        self.task.abort();
    }
}

async fn follow(
    resolver: Resolver,
    host: String,
    first: Option<Answer>,
    sender: mpsc::UnboundedSender<Resolved>,
    poke: Rc<Notify>,
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
            () = poke.notified() => sleep_until(asked + POKE_MIN.min(wait)).await,
        }
        asked = Instant::now();
        let answer = resolver.lookup_after(&host, known.as_deref().unwrap_or_default()).await;
        let news = match &answer {
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
        if news && sender.send(Resolved { host: host.clone(), answer }).is_err() {
            return;
        }
    }
}

/// Up to an eighth less than the TTL, so that names that were answered together part; not less
/// than a second, and never more than the TTL.
pub(super) fn jittered(ttl: Duration, random: u64) -> Duration {
    let part = u32::try_from(random >> 48).unwrap_or(0);
    (ttl - ttl / 8 * part / (1 << 16)).max(POKE_MIN)
}
