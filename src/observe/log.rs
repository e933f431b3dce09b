//! The session log: one record a session, written by a thread of its own.
//!
//! A worker hands its record to a bounded channel and goes on; when the writer cannot keep up
//! (a full disk, a pipe that nobody reads), records are dropped and counted, never waited for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::terms::End;

/// What is known of a session when it has ended.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Its frontend.
    pub frontend: Arc<str>,
    /// Its backend.
    pub backend: Arc<str>,
    /// The last server that was tried, if any.
    pub server: Option<Arc<str>>,
    /// The client's address; none if it was gone at once.
    pub client: Option<SocketAddr>,
    /// When it ended.
    pub ended: SystemTime,
    /// From accept to the end.
    pub duration: Duration,
    /// From the first attempt to the established connection; none if there never was one.
    pub connect: Option<Duration>,
    /// Attempts after the first.
    pub retries: u32,
    /// Bytes delivered, in and out.
    pub bytes: [u64; 2],
    /// How it ended.
    pub end: End,
}
