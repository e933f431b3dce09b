//! The ranges of values that several sections have.

use std::time::Duration;

use super::kinds::Kind;

/// The shortest time that timers know.
pub(super) const MS: Duration = Duration::from_millis(1);
/// Timers count milliseconds, and those of HAProxy end at 2^31 ms (24.8 days).
pub(super) const TIME_MAX: Duration = Duration::from_secs(24 * 24 * 60 * 60);
/// A timeout of 0 would end every session at once.
pub(super) const TIMEOUT: Kind = Kind::Time(MS, TIME_MAX);
/// A session takes two descriptors; ten million sessions are far above the limit of one process
/// (`fs.nr_open`).
pub(super) const SESSIONS: Kind = Kind::Number(1, 10_000_000);
/// `TCP_KEEPIDLE` counts seconds, and the kernel limits it to `MAX_TCP_KEEPIDLE` (net/tcp.h).
pub(super) const KEEPALIVE: Kind = Kind::Time(Duration::from_secs(1), Duration::from_secs(32_767));
