//! Looking at the first bytes of a connection without taking them.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use socket2::SockRef;

use crate::sys::socket::Socket;

impl Socket {
    /// Copies what is there now, at most as much as there is room for, and leaves it there. `Ok(0)`
    /// is the end of the stream.
    ///
    /// # Errors
    /// As recv(2); EAGAIN: nothing is there.
    pub fn peek(&self, room: &mut [u8]) -> Result<usize, Errno> {
        recv(self.descriptor(), room, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
    }

    /// From how many bytes on the socket is readable (`SO_RCVLOWAT`, socket(7)); the default is 1.
    /// It is readable with fewer after the end of the stream, and if the kernel has no memory for
    /// more.
    pub fn set_low_water(&self, bytes: usize) {
        // The kernel takes less if the receive buffer cannot become twice as large.
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        setsockopt(self, LowWater, &bytes).ok();
    }

    /// Whether the peer has ended its direction or reset the connection, however many bytes are
    /// left to read.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.poll_now(libc::POLLRDHUP) != 0
    }

    /// Whether the peer of a unix socket has closed it, or shut down both directions, however many
    /// bytes are left to read (`POLLHUP`, `unix_poll` of the kernel). A TCP socket shows
    /// that only once both directions have ended.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.poll_now(0) & libc::POLLHUP != 0
    }

    /// Which of these events, of errors and of a hang-up there are now.
    fn poll_now(&self, events: libc::c_short) -> libc::c_short {
        let mut one = libc::pollfd { fd: self.descriptor(), events, revents: 0 };
        // SAFETY: `one` is one `pollfd`, which poll(2) writes; a timeout of 0 is no wait.
        unsafe { libc::poll(&raw mut one, 1, 0) };
        one.revents
    }

    /// The own address: the one that the peer connected to; as IPv4 if it is an IPv4-mapped one.
    ///
    /// # Errors
    /// It has none.
    pub fn local(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(self).local_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::Unsupported)?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

/// `SO_RCVLOWAT`
#[derive(Debug, Clone, Copy)]
struct LowWater;

nix::setsockopt_impl!(
    LowWater,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    libc::c_int,
    SetStruct<'_, libc::c_int>
);

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_are_seen_and_stay_and_the_end_shows_behind_them() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = TcpStream::connect(address).unwrap();
        let socket = Socket::from(listener.accept().unwrap().0);
        assert_eq!(socket.local().unwrap(), address);
        let mut room = [0; 8];
        assert_eq!(socket.peek(&mut room), Err(Errno::EAGAIN));
        peer.write_all(b"abc").unwrap();
        assert_eq!((socket.peek(&mut room), socket.peek(&mut room[..2])), (Ok(3), Ok(2)));
        assert!(!socket.has_left());
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(socket.has_left());
        assert_eq!((socket.receive(&mut room), socket.peek(&mut room)), (Ok(3), Ok(0)));
    }

    #[test]
    fn the_close_of_a_unix_socket_shows_behind_bytes_and_an_end_is_none() {
        let (mut peer, socket) = UnixStream::pair().unwrap();
        let socket = Socket::from_descriptor(socket.into());
        peer.write_all(b"abc").unwrap();
        assert!(!socket.has_closed());
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(socket.has_left() && !socket.has_closed());
        drop(peer);
        assert!(socket.has_closed());
    }

    #[test]
    fn a_reset_shows_behind_bytes_too() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::from(listener.accept().unwrap().0);
        peer.write_all(b"abc").unwrap();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert!(socket.has_left());
    }
}
