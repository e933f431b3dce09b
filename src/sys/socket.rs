//! Sockets of sessions: what is done to them by plain system calls.

use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::sockopt::SetBool;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send, setsockopt};
use socket2::{Domain, Protocol, SockRef, Type};

/// A connected or connecting TCP socket, non-blocking, closed when dropped.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A socket that can connect to `address`.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn to(address: SocketAddr) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        Ok(Self(socket.into()))
    }

    /// Adopts a descriptor that an accept on the ring has answered with.
    pub(crate) fn accepted(descriptor: RawFd) -> Self {
        // SAFETY: the kernel has just made this descriptor for us (an accept completion), and its
        // number is given to nobody else.
        Self(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Its number as a descriptor.
    #[must_use]
    pub fn number(&self) -> u64 {
        u64::from(self.0.as_raw_fd().unsigned_abs())
    }

    /// The address of the other end, IPv4 also where it came as `::ffff:a.b.c.d`.
    ///
    /// # Errors
    /// `ENOTCONN`: it has gone already.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&self.0).peer_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::Unsupported)?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Whether it is at this address itself. If it was connected to it, it is connected to itself:
    /// the port was in the range of ephemeral ports, nobody listened there, and the kernel gave us
    /// the very port that we connected to.
    #[must_use]
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let own = SockRef::from(&self.0).local_addr().ok().and_then(|own| own.as_socket());
        own.is_some_and(|own| is_reached_by(own, address))
    }

    /// Nothing is held back any more (`TCP_NODELAY`, tcp(7)): whoever wrote small messages has
    /// decided already. The first is not held back in any case. What waits goes out now.
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

    /// Whether the end of the stream is the next to be read. If it is, it is received, together with
    /// an urgent byte (RFC 6093) in front of it. Receives leave that byte out, and a peek does not
    /// take it from the queue: unread, it would turn a close into a reset (`__tcp_close` in
    /// net/ipv4/tcp.c).
    ///
    /// # Errors
    /// What the socket says: a reset, which no later read will tell.
    pub fn has_ended(&self) -> Result<bool, Errno> {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.0.as_raw_fd(), &mut [0], peek) {
            Ok(0) => self.receive(&mut [0]).map(|bytes| bytes == 0),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the end that was read of this stream was sent (FIN). A reset leaves an end as well,
    /// once a send has taken its error. What the kernel says is left to read counts a FIN even when
    /// it was read (`TCP_INQ`, kernel 4.18; `tcp_inq_hint` in net/ipv4/tcp.c).
    #[must_use]
    pub fn ended_in_order(&self) -> bool {
        let (mut byte, mut space) = ([0], cmsg_space!(libc::c_int));
        let mut part = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let asked = setsockopt(&self.0, TellLeft, &true);
        let read = asked
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

    /// Sends what there is room for now; it may be less than all. With `more` the last segment is
    /// held back (`MSG_MORE`, send(2)).
    ///
    /// # Errors
    /// As send(2); EAGAIN: there is no room.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> Result<u32, Errno> {
        let flags = MsgFlags::from_bits_retain(send_flags(more)) | MsgFlags::MSG_DONTWAIT;
        let sent = send(self.0.as_raw_fd(), bytes, flags)?;
        u32::try_from(sent).map_err(|_| Errno::EOVERFLOW)
    }

    /// Ends our direction: the peer reads the end after what was sent (FIN).
    pub fn shut_down(&self) {
        // ENOTCONN: the peer has reset it, which is reported where its bytes are read.
        drop(SockRef::from(&self.0).shutdown(Shutdown::Write));
    }

    /// Makes the close that follows a reset (RST), with nothing left to send.
    pub fn abort_on_close(&self) {
        drop(SockRef::from(&self.0).set_linger(Some(Duration::ZERO)));
    }

    /// Bytes that were sent and that the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7)).
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

/// The flags of a send; with `more` one that holds the last segment back.
pub(crate) const fn send_flags(more: bool) -> libc::c_int {
    libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 }
}

/// Whether who connects to `address` may have met this socket of its own machine.
pub(crate) fn is_reached_by(own: SocketAddr, address: SocketAddr) -> bool {
    // The kernel takes the unspecified address for its own machine.
    let host = address.ip().to_canonical();
    own.port() == address.port() && (host.is_unspecified() || own.ip().to_canonical() == host)
}

/// What is left to read comes with each recvmsg(2), as a control message (`TCP_INQ`).
#[derive(Debug, Clone, Copy)]
struct TellLeft;

nix::setsockopt_impl!(TellLeft, libc::IPPROTO_TCP, libc::TCP_INQ, bool, SetBool);

nix::ioctl_read_bad!(
    /// SIOCOUTQ
    unacknowledged_bytes,
    libc::TIOCOUTQ,
    libc::c_int
);

/// The soft limit of descriptors, as it is now.
#[must_use]
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Whether a descriptor could be had now.
#[must_use]
pub fn has_descriptors_left() -> bool {
    nix::sys::eventfd::EventFd::new().is_ok()
}

/// The ports that this kernel gives to sockets that ask for none (`ip_local_port_range`, ip(7)), as
/// they were when first asked for; the default where it cannot be read.
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
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A socket, and the other end of its connection.
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
    fn an_end_that_was_sent_stays_one_through_a_reset() {
        let (socket, peer) = pair();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(&socket), Ok(0));
        assert!(socket.ended_in_order());
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.send(b"x", false), Err(Errno::EPIPE), "what was sent is refused");
        assert!(socket.ended_in_order());
    }

    #[test]
    fn an_end_that_a_reset_left_is_none() {
        let (socket, peer) = pair();
        assert!(!socket.ended_in_order());
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.send(b"x", false), Err(Errno::ECONNRESET), "which takes the error");
        assert_eq!(read(&socket), Ok(0));
        assert!(!socket.ended_in_order());
    }
}
