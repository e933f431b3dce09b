//! The user data of operations: what a completion carries back, and which event it is to a session.

use nix::errno::Errno;

use crate::proxy::io::{Event, Operation};
use crate::proxy::slots::{GENERATIONS, Key};
use crate::sys::ring::completion::Completion;
use crate::terms::{ConnectFailure, Side};

/// The operation. In 64 bits: its kind, then the generation, then the slot or the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserData {
    /// Of a session.
    Session(Key, Operation),
    /// An accept of the listener with this number.
    Accept(u32),
    /// The watch of the waker.
    Wake,
}

/// Kinds above those of [`Operation::index`].
const ACCEPT: u8 = 0x20;
const WAKE: u8 = 0x21;

impl UserData {
    /// As a number.
    pub(super) const fn pack(self) -> u64 {
        let (kind, generation, slot) = match self {
            Self::Session(key, operation) => (operation.index(), key.generation, key.slot),
            Self::Accept(listener) => (ACCEPT, 0, listener),
            Self::Wake => (WAKE, 0, 0),
        };
        (kind as u64) << 56 | (generation as u64) << 32 | slot as u64
    }

    /// From a number; none if it was never packed.
    #[expect(clippy::cast_possible_truncation, reason = "the parts of the number")]
    pub(super) fn unpack(number: u64) -> Option<Self> {
        let (kind, slot) = ((number >> 56) as u8, number as u32);
        match kind {
            ACCEPT => Some(Self::Accept(slot)),
            WAKE => Some(Self::Wake),
            _ => {
                let generation = (number >> 32) as u32 % GENERATIONS;
                let operation = *Operation::ALL.get(usize::from(kind))?;
                Some(Self::Session(Key { slot, generation }, operation))
            }
        }
    }
}

/// The event that a completion is to its session; none of a send without its buffer.
pub(super) fn event(operation: Operation, completion: Completion) -> Option<Event> {
    Some(match operation {
        Operation::Receive(side) => received(side, completion),
        Operation::Send(side) => {
            Event::Sent { side, buffer: completion.buffer?, bytes: completion.result }
        }
        Operation::Ready(side, readiness) => Event::Ready(side, readiness),
        Operation::Connect => Event::Connected(connected(completion.result)),
    })
}

fn received(side: Side, completion: Completion) -> Event {
    let bytes = match (completion.result, completion.buffer) {
        (Ok(0), buffer) => {
            debug_assert!(buffer.is_none(), "the end brings no buffer");
            Ok(None)
        }
        (Ok(length), Some(buffer)) => Ok(Some((buffer, length))),
        (Ok(_), None) => Err(Errno::EIO),
        (Err(errno), _) => Err(errno),
    };
    Event::Received { side, bytes, more: completion.more, left: completion.left }
}

const fn connected(result: Result<u32, Errno>) -> Result<(), ConnectFailure> {
    match result {
        Ok(_) => Ok(()),
        Err(errno) => Err(connect_failure(errno)),
    }
}

/// Why a connect failed: connect(2), and `ECANCELED` after its deadline.
pub(super) const fn connect_failure(errno: Errno) -> ConnectFailure {
    match errno {
        // ENOENT of a unix socket: there is no file.
        Errno::ECONNREFUSED | Errno::ENOENT => ConnectFailure::Refused,
        Errno::EAGAIN => ConnectFailure::Busy,
        Errno::ECANCELED | Errno::ETIMEDOUT => ConnectFailure::Timeout,
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN => {
            ConnectFailure::Unreachable
        }
        Errno::EPERM | Errno::EACCES => ConnectFailure::Denied,
        Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => ConnectFailure::NoPort,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => ConnectFailure::Exhausted,
        Errno::ECONNRESET => ConnectFailure::Reset,
        _ => ConnectFailure::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_unpacked_as_it_was_packed() {
        let key = Key { slot: u32::MAX, generation: GENERATIONS - 1 };
        let sessions = Operation::ALL.map(|operation| UserData::Session(key, operation));
        for user_data in sessions.into_iter().chain([UserData::Accept(7), UserData::Wake]) {
            assert_eq!(UserData::unpack(user_data.pack()), Some(user_data));
        }
        assert_eq!(UserData::unpack(u64::MAX), None);
    }
}
