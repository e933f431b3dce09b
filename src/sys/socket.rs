//! Sockets of sessions, by plain system calls: TCP, and unix sockets where the text says so.

use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::sockopt::SetBool;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send, setsockopt};
use socket2::{SockAddr, SockRef, Type};

use crate::sys::address::ClientAddress;
use crate::sys::zone;

/// A connected or connecting stream socket, non-blocking, closed when dropped.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A socket that can connect to `address`.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn to(address: &SockAddr) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        Ok(Self(socket2::Socket::new(address.domain(), kind, None)?.into()))
    }

    /// Connects to a unix socket, which never waits.
    ///
    /// # Errors
    /// As connect(2); EAGAIN: the backlog of the listener is full, and nothing tells when it no
    /// longer is.
    pub(crate) fn connect_unix(&self, address: &SockAddr) -> Result<(), Errno> {
        let connected = SockRef::from(&self.0).connect(address);
        connected.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// A connection that was accepted. Its descriptor is non-blocking.
    pub(crate) const fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The number of its descriptor.
    #[must_use]
    pub fn number(&self) -> u64 {
        u64::from(self.0.as_raw_fd().unsigned_abs())
    }

    /// The address of the peer; as IPv4 if it is an IPv4-mapped one (`::ffff:a.b.c.d`).
    ///
    /// # Errors
    /// `ENOTCONN`: the peer has left already.
    pub fn peer(&self) -> io::Result<ClientAddress> {
        let peer = SockRef::from(&self.0).peer_addr()?;
        if peer.is_unix() {
            return Ok(ClientAddress::Unix);
        }
        let address = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(zone::canonical(address).into())
    }

    /// Whether its own address is this one. If that is also the address that it connected to, it is
    /// connected to itself: the port was an ephemeral one, nobody listened there, and the kernel
    /// chose the same port for this end.
    #[must_use]
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let own = SockRef::from(&self.0).local_addr().ok().and_then(|own| own.as_socket());
        own.is_some_and(|own| is_reached_by(own, address))
    }

    /// Turns Nagle's algorithm off (`TCP_NODELAY`, tcp(7)), and sends what it has held back. (It
    /// never holds the first message back.)
    pub fn do_not_delay(&self) {
        drop(SockRef::from(&self.0).set_tcp_nodelay(true));
    }

    /// Receives what is there now, at most as much as there is room for. `Ok(0)` is the end of the
    /// stream.
    ///
    /// # Errors
    /// As recv(2); EAGAIN: nothing is there.
    pub(crate) fn receive(&self, room: &mut [u8]) -> Result<usize, Errno> {
        recv(self.0.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)
    }

    /// Whether the end of the stream is the next to be read. If it is, it is received, together
    /// with an urgent byte (RFC 6093) in front of it. Receives leave that byte out, and a peek does
    /// not take it from the queue: unread, it would turn a close into a reset (`__tcp_close` in
    /// net/ipv4/tcp.c).
    ///
    /// # Errors
    /// The error of the socket: a reset, which no later receive reports.
    pub fn has_ended(&self) -> Result<bool, Errno> {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.0.as_raw_fd(), &mut [0], peek) {
            Ok(0) => self.receive(&mut [0]).map(|bytes| bytes == 0),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the end that was read of this stream was sent by the peer (FIN). After a reset a
    /// socket reads as ended too, once a send has taken its error. The number of bytes that are
    /// left to read includes a FIN, even one that was read (`TCP_INQ`, kernel 4.18; `tcp_inq_hint`
    /// in net/ipv4/tcp.c).
    #[must_use]
    pub fn ended_in_order(&self) -> bool {
        let (mut byte, mut space) = ([0], cmsg_space!(libc::c_int));
        let mut part = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let enabled = setsockopt(&self.0, BytesLeft, &true);
        let read = enabled
            .and_then(|()| recvmsg::<()>(self.0.as_raw_fd(), &mut part, Some(&mut space), flags));
        let messages = read.and_then(|read| Ok(read.cmsgs()?.collect::<Vec<_>>()));
        messages.unwrap_or_default().iter().any(|message| match message {
            ControlMessageOwned::Unknown(it) => {
                let kind = (it.cmsg_header.cmsg_level, it.cmsg_header.cmsg_type);
                kind == (libc::IPPROTO_TCP, libc::TCP_CM_INQ)
                    && it.data_bytes.iter().any(|byte| *byte != 0)
            }
            _ => false,
        })
    }

    /// Takes the error of a reset or another failure. Bytes that came before it can still be
    /// received; then the stream reads as ended. A reset that follows the end of the peer (EPIPE,
    /// `tcp_reset` in `net/ipv4/tcp_input.c`) is no error: all that it sent is here.
    pub(crate) fn take_failure(&self) -> Option<Errno> {
        let error = self.take_error()?;
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        (errno != Errno::EPIPE).then_some(errno)
    }

    /// Sends as much as there is room for now. With `more` the last segment is held back
    /// (`MSG_MORE`, send(2)).
    ///
    /// # Errors
    /// As send(2); EAGAIN: there is no room.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> Result<u32, Errno> {
        let flags = MsgFlags::from_bits_retain(send_flags(more)) | MsgFlags::MSG_DONTWAIT;
        let sent = send(self.0.as_raw_fd(), bytes, flags)?;
        u32::try_from(sent).map_err(|_| Errno::EOVERFLOW)
    }

    /// Shuts the sending direction down: the peer reads what was sent, then the end (FIN).
    pub fn shut_down(&self) {
        // ENOTCONN: the peer has reset the connection, which a receive reports.
        drop(SockRef::from(&self.0).shutdown(Shutdown::Write));
    }

    /// Makes the next close an abort (RST): what is not sent yet is dropped. A unix socket has no
    /// reset: its peer reads everything that was sent, then the end, and its sends fail with EPIPE.
    /// Only if bytes of the peer were not read before the close, the end is an ECONNRESET
    /// (`unix_release_sock` in `net/unix/af_unix.c`).
    pub fn abort_on_close(&self) {
        drop(SockRef::from(&self.0).set_linger(Some(Duration::ZERO)));
    }

    /// Bytes that were sent and that the peer has not acknowledged (SIOCOUTQ, tcp(7)). An end (FIN)
    /// that was sent counts as one byte. Of a unix socket: the memory of what the peer has not read
    /// yet (unix(7)), which a close does not discard.
    #[must_use]
    pub fn unacknowledged(&self) -> u32 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int, and `bytes` is one.
        let answer = unsafe { unacknowledged_bytes(self.0.as_raw_fd(), &raw mut bytes) };
        if answer.is_ok() { u32::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    /// For the ring's operations.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// For the ring's close.
    pub(crate) fn into_descriptor(self) -> RawFd {
        self.0.into_raw_fd()
    }
}

#[cfg(test)]
impl From<std::net::TcpStream> for Socket {
    fn from(stream: std::net::TcpStream) -> Self {
        Self(stream.into())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The flags of a send. With `more` the last segment is held back.
pub(crate) const fn send_flags(more: bool) -> libc::c_int {
    libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 }
}

/// Whether a connection to `address` may have reached the socket of this machine that is bound to
/// `own`.
pub(crate) fn is_reached_by(own: SocketAddr, address: SocketAddr) -> bool {
    // A connection to the unspecified address reaches the own machine.
    let host = address.ip().to_canonical();
    own.port() == address.port() && (host.is_unspecified() || own.ip().to_canonical() == host)
}

/// Each recvmsg(2) returns the number of bytes that are left to read, as a control message
/// (`TCP_INQ`).
#[derive(Debug, Clone, Copy)]
struct BytesLeft;

nix::setsockopt_impl!(BytesLeft, libc::IPPROTO_TCP, libc::TCP_INQ, bool, SetBool);

nix::ioctl_read_bad!(
    /// SIOCOUTQ
    unacknowledged_bytes,
    libc::TIOCOUTQ,
    libc::c_int
);

/// The present soft limit of descriptors.
#[must_use]
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Whether a descriptor can be opened now.
#[must_use]
pub fn has_descriptors_left() -> bool {
    nix::sys::eventfd::EventFd::new().is_ok()
}

/// The ports that the kernel gives to sockets that ask for none (`ip_local_port_range`, ip(7)),
/// read once; the default if it cannot be read.
pub fn ephemeral_ports() -> &'static RangeInclusive<u16> {
    static PORTS: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    PORTS.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let text = text.unwrap_or_default();
        let mut ports = text.split_whitespace().map_while(|word| word.parse().ok());
        ports.next().unwrap_or(32_768)..=ports.next().unwrap_or(60_999)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A socket and its peer.
    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Socket(listener.accept().unwrap().0.into()), peer)
    }

    fn read(socket: &Socket) -> Result<usize, Errno> {
        socket.receive(&mut [0])
    }

    #[test]
    fn an_urgent_byte_in_front_of_the_end_is_received_with_it() {
        let (socket, mut peer) = pair();
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        assert_eq!(socket.has_ended(), Ok(false));
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(socket.has_ended(), Ok(true));
        drop(socket);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the close is no reset");
    }

    #[test]
    fn an_end_that_was_sent_stays_orderly_after_a_reset() {
        let (socket, peer) = pair();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(&socket), Ok(0));
        assert!(socket.ended_in_order());
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.send(b"x", false), Err(Errno::EPIPE));
        assert!(socket.ended_in_order());
    }

    #[test]
    fn the_error_of_a_reset_is_taken_before_the_bytes_in_front_of_it_are_read() {
        let (socket, mut peer) = pair();
        assert_eq!(socket.take_failure(), None);
        peer.write_all(b"x").unwrap();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.take_failure(), Some(Errno::ECONNRESET));
        assert_eq!((read(&socket), read(&socket)), (Ok(1), Ok(0)));
        assert_eq!(socket.take_failure(), None);
    }

    #[test]
    fn a_reset_behind_an_end_is_no_error() {
        let (socket, mut peer) = pair();
        peer.write_all(b"x").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.take_failure(), None);
        assert_eq!((read(&socket), read(&socket)), (Ok(1), Ok(0)));
        assert!(socket.ended_in_order());
    }

    #[test]
    fn an_end_that_is_left_by_a_reset_is_not_orderly() {
        let (socket, peer) = pair();
        assert!(!socket.ended_in_order());
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.send(b"x", false), Err(Errno::ECONNRESET), "which takes the error");
        assert_eq!(read(&socket), Ok(0));
        assert!(!socket.ended_in_order());
    }
}
