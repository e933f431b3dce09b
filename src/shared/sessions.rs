//! Open sessions as an operator sees them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::address::ClientAddress;
use crate::terms::WorkerIndex;

/// The id of a session: WORKER-SLOT-GENERATION. It is given again after 16 million sessions in the
/// same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId {
    /// Its worker.
    pub worker: WorkerIndex,
    /// Its slot there.
    pub slot: u32,
    /// The generation of the slot.
    pub generation: u32,
}

impl fmt::Display for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}-{}", self.worker.0, self.slot, self.generation)
    }
}

impl FromStr for SessionId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ERROR: &str = "write an ID as `evenkeel sessions` shows it, such as 0-12-3";
        let mut parts = text.split('-').map(|part| part.parse::<u32>().map_err(|_| ERROR));
        let mut next = || parts.next().unwrap_or(Err(ERROR));
        let (worker, slot, generation) = (next()?, next()?, next()?);
        match parts.next() {
            None => Ok(Self { worker: WorkerIndex(worker as usize), slot, generation }),
            Some(_) => Err(ERROR),
        }
    }
}

/// An open session.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Its frontend.
    pub frontend: Arc<str>,
    /// Its backend.
    pub backend: Arc<str>,
    /// The server that it is connected to, or tries.
    pub server: Option<Arc<str>>,
    /// The address of the client; none if it has left already.
    pub client: Option<ClientAddress>,
    /// The step that it is in.
    pub state: &'static str,
    /// Since it was accepted.
    pub age: Duration,
    /// Since bytes last moved.
    pub idle: Duration,
    /// Bytes sent, in and out.
    pub bytes: [u64; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = SessionId { worker: WorkerIndex(3), slot: 70_000, generation: 16_777_215 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1", "1-2", "1-2-3-4", "a-2-3", "1--3", "-1-2-3", "1-2-4294967296"] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}
