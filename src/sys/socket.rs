//! Sockets of sessions: what is done to them by plain system calls.

use std::io::{self, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
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

    /// The core that received its last packet (`SO_INCOMING_CPU`, socket(7)); none before one.
    #[must_use]
    pub fn received_by(&self) -> Option<usize> {
        SockRef::from(&self.0).cpu_affinity().ok().filter(|core| *core != ANY_CORE)
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

/// What still waits in the queue of a listening socket on which no accept is armed any more, one
/// connection a call; none when the queue is empty.
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

/// `SO_INCOMING_CPU` where it says nothing: -1, as socket2 has it.
const ANY_CORE: usize = usize::MAX;

/// Of sockets that listen on the same port, this one is to take what `core` receives; none: what
/// the hash gives it, as at first. A kernel that does not know of it goes on by its hash.
pub fn prefer_core(listener: &OwnedFd, core: Option<usize>) {
    drop(SockRef::from(listener).set_cpu_affinity(core.unwrap_or(ANY_CORE)));
}

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

/// Stops a listening socket: later connects are refused. shutdown(2), because a close would wait
/// for the last of those who share the descriptor.
pub fn stop_listening(listener: &OwnedFd) {
    drop(SockRef::from(listener).shutdown(Shutdown::Both));
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
