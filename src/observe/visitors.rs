//! Visitors: who connects to see or to order something. So many are served at once, and what is
//! beyond them waits in the backlog.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::observe::status::Request;

/// After an accept that failed for want of descriptors, most likely: else it would be a spin.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves who is accepted, `most` at a time, until the control thread hangs up; dropped, it ends
/// every conversation. `what` names the socket in the log.
pub(super) async fn serve<S, A, C>(
    (what, most): (&'static str, usize),
    control: &mpsc::Sender<Request>,
    accept: impl Fn() -> A,
    converse: impl Fn(S) -> C,
) where
    A: Future<Output = io::Result<S>>,
    C: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let mut conversations = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = control.closed() => return,
        };
        while conversations.try_join_next().is_some() {}
        match accepted {
            Ok(visitor) => {
                let conversation = converse(visitor);
                conversations.spawn(async move {
                    let _place = place;
                    conversation.await;
                });
            }
            Err(error) => {
                tracing::warn!("{what}: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}
