//! Who is told the outcome of a reload or an upgrade.

use tokio::sync::oneshot;

/// The sender of a request, who waits for its outcome if it came over the control socket.
#[derive(Debug)]
pub(super) struct Requester(Option<oneshot::Sender<Result<String, String>>>);

impl Requester {
    /// A signal, or evenkeel itself: nobody waits.
    pub(super) const fn signal() -> Self {
        Self(None)
    }

    /// A connection to the control socket.
    pub(super) const fn command(answer: oneshot::Sender<Result<String, String>>) -> Self {
        Self(Some(answer))
    }

    /// The outcome of the request.
    pub(super) fn answer(self, outcome: Result<String, String>) {
        // It may have given up waiting.
        drop(self.0.map(|answer| answer.send(outcome)));
    }

    /// Nothing is done, and why.
    pub(super) fn refuse(self, why: &str) {
        tracing::warn!("{why}");
        self.answer(Err(why.to_owned()));
    }
}
