//! TCP sockets of sessions and listeners, by plain system calls.

use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::sockopt::{GetStruct, SetBool};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockFlag, accept4, getsockopt, recv, recvmsg, send, setsockopt,
};
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
    pub fn peer(&self) -> io::Result<SocketAddr> {
        let address = SockRef::from(&self.0).peer_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::Unsupported)?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Whether its own address is this one. If that is also the address that it connected to, it is
    /// connected to itself: the port was an ephemeral one, nobody listened there, and the kernel
    /// chose the same port for this end.
    #[must_use]
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let own = SockRef::from(&self.0).local_addr().ok().and_then(|own| own.as_socket());
        own.is_some_and(|own| is_reached_by(own, address))
    }

    /// The core that received its last packet (`SO_INCOMING_CPU`, socket(7)); none before the
    /// first.
    #[must_use]
    pub fn received_by(&self) -> Option<usize> {
        SockRef::from(&self.0).cpu_affinity().ok().filter(|core| *core != ANY_CORE)
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

    /// Whether both kernels put timestamps into their segments (RFC 7323).
    #[must_use]
    pub fn has_timestamps(&self) -> bool {
        getsockopt(&self.0, Info).is_ok_and(|info| info[5] & TIMESTAMPS != 0)
    }

    /// Makes a socket as good as new on which both ends were sent and the peer's was read. False,
    /// and nothing is done, while ours is not acknowledged: the peer would be reset. What was set
    /// on it stays ([`Socket::do_not_delay`]).
    ///
    /// It goes on from its last sequence number instead of a secret one (RFC 6528;
    /// `tcp_disconnect` forgets what would tell `tcp_v4_connect` otherwise), which its last peer
    /// knows. Where its new number is below one that the peer's `TIME_WAIT` remembers of the same
    /// ports, it takes [timestamps](Self::has_timestamps) to be let in.
    #[must_use]
    pub fn renew(&self) -> bool {
        self.unacknowledged() == 0 && self.forget_peer().is_ok()
    }

    /// Ends the association with its peer (connect(2)).
    #[expect(clippy::cast_possible_truncation, reason = "0, and 16 bytes")]
    fn forget_peer(&self) -> Result<libc::c_int, Errno> {
        let family = libc::AF_UNSPEC as libc::sa_family_t;
        let nobody = libc::sockaddr { sa_family: family, sa_data: [0; 14] };
        let length = size_of_val(&nobody) as libc::socklen_t;
        // SAFETY: connect(2) reads `nobody`, which is as long as it is told.
        let answer = unsafe { libc::connect(self.0.as_raw_fd(), &raw const nobody, length) };
        Errno::result(answer)
    }

    /// Makes the next close an abort (RST): what is not sent yet is dropped.
    pub fn abort_on_close(&self) {
        drop(SockRef::from(&self.0).set_linger(Some(Duration::ZERO)));
    }

    /// Bytes that were sent and that the peer has not acknowledged (SIOCOUTQ, tcp(7)).
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

/// The beginning of `struct tcp_info` (linux/tcp.h); its sixth byte is what was agreed on.
#[derive(Debug, Clone, Copy)]
struct Info;

nix::getsockopt_impl!(Info, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 8], GetStruct<[u8; 8]>);

/// `TCPI_OPT_TIMESTAMPS` (linux/tcp.h).
const TIMESTAMPS: u8 = 1;

nix::ioctl_read_bad!(
    /// SIOCOUTQ
    unacknowledged_bytes,
    libc::TIOCOUTQ,
    libc::c_int
);

/// Accepts one connection from the queue of a listening socket on which no accept is armed any
/// more; none when the queue is empty.
///
/// # Errors
/// Out of descriptors or memory.
pub fn accept_waiting(listener: &OwnedFd) -> Result<Option<Socket>, Errno> {
    let flags = OFlag::from_bits_retain(fcntl(listener, FcntlArg::F_GETFL)?);
    fcntl(listener, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    loop {
        match accept4(listener, flags) {
            Ok(descriptor) => return Ok(Some(Socket(descriptor))),
            Err(Errno::EINTR | Errno::ECONNABORTED | Errno::EPROTO) => {}
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) => {
                return Err(errno);
            }
            Err(_) => return Ok(None),
        }
    }
}

/// `SO_INCOMING_CPU` when it is not set: -1, as socket2 represents it.
const ANY_CORE: usize = usize::MAX;

/// Among the sockets that listen on the same port, prefers this one for connections whose packets
/// `core` receives; none: the kernel chooses by its hash, as it does by default. A kernel without
/// this option continues to choose by its hash.
pub fn prefer_core(listener: &OwnedFd, core: Option<usize>) {
    drop(SockRef::from(listener).set_cpu_affinity(core.unwrap_or(ANY_CORE)));
}

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

/// Stops a listening socket: later connects are refused. shutdown(2), because a close would wait
/// for the last of those who share the descriptor.
pub fn stop_listening(listener: &OwnedFd) {
    drop(SockRef::from(listener).shutdown(Shutdown::Both));
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
    use std::io::Read;
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
    fn an_end_that_is_left_by_a_reset_is_not_orderly() {
        let (socket, peer) = pair();
        assert!(!socket.ended_in_order());
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(socket.send(b"x", false), Err(Errno::ECONNRESET), "which takes the error");
        assert_eq!(read(&socket), Ok(0));
        assert!(!socket.ended_in_order());
    }

    /// A socket that has connected, and the other end.
    fn connected(socket: &Socket, listener: &TcpListener) -> TcpStream {
        let address = listener.local_addr().unwrap().into();
        // In progress; it is over when the other end has been accepted.
        drop(SockRef::from(socket).connect(&address));
        listener.accept().unwrap().0
    }

    #[test]
    fn a_socket_whose_connection_is_over_connects_again() {
        let [first, second] = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let socket = Socket::to(first.local_addr().unwrap()).unwrap();
        for (listener, letter) in [(&first, b'a'), (&second, b'b'), (&second, b'c')] {
            let mut peer = connected(&socket, listener);
            assert_eq!(socket.peer().unwrap(), listener.local_addr().unwrap());
            assert_eq!(socket.send(&[letter], false), Ok(1));
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read(&socket), Ok(0));
            socket.shut_down();
            assert!(socket.has_timestamps(), "they are a kernel's default");
            assert!(socket.renew());
            let mut all = Vec::new();
            assert_eq!(peer.read_to_end(&mut all).unwrap(), 1, "then its end, and no reset");
            assert_eq!(all, [letter]);
            assert!(socket.peer().is_err(), "it has none");
        }
    }

    #[test]
    fn one_whose_end_is_still_on_its_way_is_not_renewed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = Socket::to(listener.local_addr().unwrap()).unwrap();
        let mut peer = connected(&socket, &listener);
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(&socket), Ok(0));
        let mut sent = 0;
        // As much as both kernels hold: some of it waits in ours.
        while let Ok(bytes) = socket.send(&[0; 65_536], false) {
            sent += bytes as usize;
        }
        socket.shut_down();
        assert!(!socket.renew());
        drop(socket);
        let mut all = Vec::new();
        assert_eq!(peer.read_to_end(&mut all).unwrap(), sent, "all, then its end, and no reset");
    }
}
