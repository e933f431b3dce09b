//! The settings that a session follows, in little memory: an idle session keeps them too.

use std::time::Duration;

use crate::config::{BackendSettings, FrontendSettings};
use crate::proxy::timer_wheel::Tick;

/// The settings of the frontend and the backend that a session follows.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// For the preface to be complete; never: there is no preface.
    pub preface_timeout: Timeout,
    /// Waiting while every server is full; never: there is no queue.
    pub queue_timeout: Timeout,
    /// No byte in either direction.
    pub idle_timeout: Timeout,
    /// One direction has ended and the other is silent.
    pub half_closed_timeout: Timeout,
    /// Attempts to connect after the first.
    pub retries: u32,
}

/// Those of them that the backend sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendRules {
    /// Waiting while every server is full; never: there is no queue.
    pub queue_timeout: Timeout,
    /// Attempts to connect after the first.
    pub retries: u32,
}

impl Rules {
    /// Of a session of this frontend, with a preface or without one.
    #[must_use]
    pub fn new(frontend: &FrontendSettings, has_preface: bool, backend: BackendRules) -> Self {
        Self {
            preface_timeout: has_preface.then_some(frontend.preface_timeout).into(),
            queue_timeout: backend.queue_timeout,
            idle_timeout: frontend.idle_timeout.into(),
            half_closed_timeout: frontend.half_closed_timeout.into(),
            retries: backend.retries,
        }
    }

    /// The session goes to this backend.
    pub(super) const fn follow(&mut self, backend: BackendRules) {
        self.queue_timeout = backend.queue_timeout;
        self.retries = backend.retries;
    }
}

/// Of no backend.
impl Default for BackendRules {
    fn default() -> Self {
        Self { queue_timeout: Timeout::NEVER, retries: 0 }
    }
}

impl From<&BackendSettings> for BackendRules {
    fn from(settings: &BackendSettings) -> Self {
        let queue_timeout = match settings.queue_max {
            0 => Timeout::NEVER,
            _ => settings.queue_timeout.into(),
        };
        Self { queue_timeout, retries: settings.retries }
    }
}

/// A timeout in milliseconds, or never. The configuration bounds it to 2^31 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(u32);

impl Timeout {
    /// It never ends.
    pub const NEVER: Self = Self(u32::MAX);

    /// As a duration; none: never.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_millis(self.0.into()))
    }

    /// When it ends if it begins at `start`.
    #[must_use]
    pub fn end(self, start: Tick) -> Tick {
        self.duration().map_or(Tick::NEVER, |duration| start.after(duration))
    }

    /// Half of it.
    #[must_use]
    pub const fn half(self) -> Self {
        if self.0 == u32::MAX { self } else { Self(self.0 / 2) }
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        let longest = Self::NEVER.0 - 1;
        Self(u32::try_from(duration.as_millis()).unwrap_or(longest).min(longest))
    }
}

/// None: never.
impl From<Option<Duration>> for Timeout {
    fn from(duration: Option<Duration>) -> Self {
        duration.map_or(Self::NEVER, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_ends_when_it_says_or_never() {
        let start = Tick::START.after(Duration::from_secs(7));
        let timeout = Timeout::from(Duration::from_millis(1500));
        assert_eq!(timeout.end(start), start.after(Duration::from_millis(1500)));
        assert_eq!(timeout.half().end(start), start.after(Duration::from_millis(750)));
        assert_eq!(Timeout::NEVER.end(start), Tick::NEVER);
        assert_eq!(Timeout::NEVER.half(), Timeout::NEVER);
        assert!(Timeout::from(Duration::MAX) < Timeout::NEVER, "a long time is not never");
    }
}
