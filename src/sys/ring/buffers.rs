//! The buffers of a ring, between its receives and its sends.

use nix::errno::Errno;

use super::Ring;
use crate::sys::buffer::{BufferId, Buffers};
use crate::sys::socket::Socket;

impl Ring {
    /// The buffers.
    #[must_use]
    pub const fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Takes a buffer back.
    pub fn release(&mut self, buffer: BufferId) {
        self.buffers.release(buffer);
    }

    /// Gives free buffers to the kernel to receive into.
    pub fn provide_buffers(&mut self) {
        self.buffers.provide();
    }

    /// A receive found no buffer in the ring: see [`Buffers::deepen`].
    pub fn deepen_buffers(&mut self) -> bool {
        self.buffers.deepen()
    }

    /// Gives the memory of the buffers back to the system, if no buffer holds bytes: neither one of
    /// a session, nor one of a receive whose completion was not looked at yet (a full submission
    /// queue is submitted within a turn, and what is there is received at once).
    pub fn give_back_memory(&mut self) {
        if self.uring.completion().is_empty() && !self.overflown() {
            self.buffers.give_back_memory();
        }
    }

    /// Receives what is there now behind the first `filled` bytes of a buffer, without a
    /// submission. Returns how many bytes; 0 is the end of the stream. No receive is in flight on
    /// the socket.
    ///
    /// # Errors
    /// As recv(2); EAGAIN: nothing is there.
    pub fn receive_rest(
        &mut self,
        socket: &Socket,
        buffer: &BufferId,
        filled: u32,
    ) -> Result<u32, Errno> {
        let received = socket.receive(self.buffers.room(buffer, filled))?;
        u32::try_from(received).map_err(|_| Errno::EOVERFLOW)
    }
}
