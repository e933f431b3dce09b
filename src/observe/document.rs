//! Documents over HTTP: made in parts on a thread of the pool, and sent as the client reads them.
//!
//! A document of 10,000 servers has many megabytes. A part is made when the one before it is on its
//! way, so that a client that stalls holds the memory of two parts, and one place of
//! [`DOCUMENTS_MAX`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::shared::orders::Request;
use crate::shared::snapshot::Snapshot;
use crate::shared::state::SharedState;

/// Documents that are sent at a time. Each has a snapshot: some megabytes with 10,000 servers.
pub(super) const DOCUMENTS_MAX: usize = 4;

/// For one of the places to become free: longer than a client may stall.
pub(super) const PLACE_TIMEOUT: Duration = Duration::from_secs(3);

/// For the control thread to answer.
pub(super) const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes documents.
#[derive(Debug)]
pub(super) struct Documents {
    control: mpsc::Sender<Request>,
    shared: Arc<SharedState>,
    places: Arc<Semaphore>,
    /// One part is made at a time: clients that scrape in a loop get one core at most.
    rendering: Arc<Semaphore>,
}

/// Why there is no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// As many are being sent as may be.
    Busy,
    /// The control thread does not answer.
    Silent,
    /// The program is stopping.
    Stopping,
}

impl Documents {
    pub(super) fn new(control: mpsc::Sender<Request>, shared: Arc<SharedState>) -> Self {
        let places = Arc::new(Semaphore::new(DOCUMENTS_MAX));
        Self { control, shared, places, rendering: Arc::new(Semaphore::new(1)) }
    }

    /// A document of the parts that `parts` makes of a snapshot.
    pub(super) async fn make<I>(
        &self,
        parts: impl FnOnce(Snapshot, Arc<SharedState>) -> I + Send + 'static,
    ) -> Result<Body, Unavailable>
    where
        I: Iterator<Item = String> + Send + 'static,
    {
        let place = timeout(PLACE_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_| Unavailable::Busy)?.map_err(|_| Unavailable::Stopping)?;
        let snapshot = timeout(CONTROL_TIMEOUT, self.snapshot()).await;
        let snapshot = snapshot.map_err(|_| Unavailable::Silent)?.ok_or(Unavailable::Stopping)?;
        let (sender, parts_made) = mpsc::channel(1);
        let (shared, rendering) = (Arc::clone(&self.shared), Arc::clone(&self.rendering));
        tokio::spawn(async move {
            let begin = move || parts(snapshot, shared);
            produce(begin, &rendering, &sender).await;
        });
        Ok(Body::new(Parts { made: parts_made, _place: place }))
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let (sender, receiver) = oneshot::channel();
        self.control.send(Request::Snapshot(sender)).await.ok()?;
        receiver.await.ok()
    }
}

/// Makes the parts of a document until the last one, or until nobody receives them.
async fn produce<I>(
    begin: impl FnOnce() -> I + Send + 'static,
    rendering: &Semaphore,
    sender: &mpsc::Sender<Bytes>,
) where
    I: Iterator<Item = String> + Send + 'static,
{
    let turn = rendering.acquire().await;
    let Ok(mut parts) = spawn_blocking(begin).await else { return };
    drop(turn);
    loop {
        let turn = rendering.acquire().await;
        // The snapshot is dropped there too.
        let next = move || parts.next().map(|part| (parts, part));
        let Ok(Some((rest, part))) = spawn_blocking(next).await else { return };
        drop(turn);
        if sender.send(part.into()).await.is_err() {
            return;
        }
        parts = rest;
    }
}

/// The body of a document. The place is free once it is dropped: at its end, or when the client has
/// gone.
struct Parts {
    made: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.made.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}
