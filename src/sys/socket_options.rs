//! Options of TCP sockets: keep-alive, Fast Open, deferred accepts, and the address that a
//! connection comes from.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{IpBindAddressNoPort, SetUsize};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use crate::sys::socket::Socket;

/// Probes without an answer after which a peer is dead: two of them may be lost on the way.
const PROBES: u32 = 3;

/// The longest time between two probes: the kernel's default (tcp(7), `tcp_keepalive_intvl`).
const INTERVAL_MAX: u64 = 75;

/// When the kernel asks a silent peer whether it is there, and when it gives the peer up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe.
    idle: Duration,
    /// Between two probes.
    interval: Duration,
}

impl KeepAlive {
    /// The first probe after `silence`, in whole seconds, and further ones at a third of that time
    /// (at least 1 s, at most 75 s).
    #[must_use]
    pub fn after(silence: Duration) -> Self {
        let idle = silence.as_secs() + u64::from(silence.subsec_nanos() > 0);
        let interval = idle.div_ceil(3).clamp(1, INTERVAL_MAX);
        Self { idle: Duration::from_secs(idle.max(1)), interval: Duration::from_secs(interval) }
    }

    /// A dead peer is noticed after this time: after the last bytes that it sent, or after the
    /// first bytes that it did not acknowledge (`TCP_USER_TIMEOUT`).
    #[must_use]
    pub const fn dead_after(self) -> Duration {
        self.idle.saturating_add(self.interval.saturating_mul(PROBES))
    }

    /// Sets it on a socket. A socket that a listener accepts inherits it.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set(self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        let options = TcpKeepalive::new().with_time(self.idle).with_interval(self.interval);
        socket.set_tcp_keepalive(&options.with_retries(PROBES))?;
        // With this option the kernel counts the time and not the probes (`tcp_keepalive_timer`).
        socket.set_tcp_user_timeout(Some(self.dead_after()))
    }

    /// Turns it off.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn clear(socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_keepalive(false)?;
        socket.set_tcp_user_timeout(None)
    }
}

/// The length of the queue of Fast Open requests (`TCP_FASTOPEN`): connections that were accepted
/// with their first bytes and whose handshake is not complete.
#[derive(Debug, Clone, Copy)]
struct FastOpenQueue;

nix::setsockopt_impl!(FastOpenQueue, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, usize, SetUsize);

/// For how many seconds a listener waits for the first byte (`TCP_DEFER_ACCEPT`).
#[derive(Debug, Clone, Copy)]
struct DeferAccept;

nix::setsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, usize, SetUsize);

/// Lets a listener take the first bytes with the SYN, from at most `queue` clients whose handshake
/// is not complete; 0: from none (RFC 7413).
///
/// # Errors
/// As setsockopt(2).
pub fn set_fast_open(listener: &impl AsFd, queue: u32) -> io::Result<()> {
    Ok(setsockopt(listener, FastOpenQueue, &(queue as usize))?)
}

/// Lets a listener accept a connection once its first byte is there, or after this time without
/// one; zero: at once. The kernel rounds the time up to that of a number of retransmissions.
///
/// # Errors
/// As setsockopt(2).
pub fn set_defer_accept(listener: &impl AsFd, time: Duration) -> io::Result<()> {
    let seconds = usize::try_from(time.as_secs()).unwrap_or(usize::MAX);
    Ok(setsockopt(listener, DeferAccept, &seconds)?)
}

/// Binds a socket that will connect. The kernel chooses the port of a `source` whose port is 0
/// when it connects: it may be the port of other connections too, unless they have the same peer
/// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
///
/// # Errors
/// EADDRNOTAVAIL: not an address of this machine.
pub(crate) fn bind_source(socket: &impl AsFd, source: SocketAddr) -> io::Result<()> {
    if source.port() == 0 {
        setsockopt(socket, IpBindAddressNoPort, &true)?;
    }
    SockRef::from(socket).bind(&source.into())
}

/// Lets a socket be bound to an address that this machine does not have (`IP_TRANSPARENT`).
///
/// # Errors
/// EPERM: this process has neither `CAP_NET_ADMIN` nor `CAP_NET_RAW`.
fn set_transparent(socket: &SockRef<'_>, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Whether this process may connect from the addresses of its clients.
///
/// # Errors
/// As of [`Socket::bind_as_client`].
pub fn may_be_transparent() -> io::Result<()> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_ip_transparent_v4(true)
}

/// Whether connections can come from `source`, which has no port.
///
/// # Errors
/// As bind(2).
pub fn try_source(source: SocketAddr) -> io::Result<()> {
    let kind = Type::STREAM.cloexec();
    let socket = socket2::Socket::new(Domain::for_address(source), kind, Some(Protocol::TCP))?;
    bind_source(&socket, source)
}

impl Socket {
    /// Makes its connection come from `source`.
    ///
    /// # Errors
    /// EADDRNOTAVAIL: not an address of this machine.
    pub fn bind_to(&self, source: SocketAddr) -> io::Result<()> {
        bind_source(self, source)
    }

    /// Makes its connection come from the address of a client, and from its port if that is not 0.
    ///
    /// # Errors
    /// EPERM: this process has neither `CAP_NET_ADMIN` nor `CAP_NET_RAW`; EADDRINUSE: another
    /// socket has the port.
    pub fn bind_as_client(&self, client: SocketAddr) -> io::Result<()> {
        let socket = SockRef::from(self);
        set_transparent(&socket, client)?;
        if client.port() != 0 {
            // A client may use one port for several connections, one after the other or to several
            // addresses of this machine. The kernel compares both ends when the socket connects.
            socket.set_reuse_address(true)?;
        }
        bind_source(self, client)
    }

    /// Starts to connect to `server` with `bytes` in the SYN, and returns how many of them the
    /// kernel took: as many as the SYN holds, if a cookie of the server is known, else none
    /// (RFC 7413). The socket becomes writable when it is connected, or has failed.
    ///
    /// # Errors
    /// As connect(2); EOPNOTSUPP: not enabled (`net.ipv4.tcp_fastopen`), and nothing was begun.
    pub fn connect_with(&self, server: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        match SockRef::from(self).send_to_with_flags(bytes, &server.into(), flags) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(0),
            answer => answer,
        }
    }

    /// The error of a connect that has ended, if it failed (`SO_ERROR`).
    #[must_use]
    pub fn take_error(&self) -> Option<io::Error> {
        SockRef::from(self).take_error().unwrap_or_else(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_dead_peer_is_noticed_after_twice_the_silence() {
        let dead_after = |silence| KeepAlive::after(silence).dead_after();
        assert_eq!(dead_after(seconds(30)), seconds(60));
        assert_eq!(dead_after(seconds(1)), seconds(4), "a probe takes a second at least");
        assert_eq!(dead_after(Duration::from_millis(1500)), seconds(5));
        assert_eq!(dead_after(seconds(7200)), seconds(7200 + 225));
    }

    #[test]
    fn an_accepted_socket_inherits_the_keep_alive_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accept = || {
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (listener.accept().unwrap().0, client)
        };
        KeepAlive::after(seconds(30)).set(&listener).unwrap();
        let (accepted, _client) = accept();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), seconds(30));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), seconds(10));
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(seconds(60)));
        KeepAlive::clear(&listener).unwrap();
        let (accepted, _client) = accept();
        assert!(!SockRef::from(&accepted).keepalive().unwrap());
        let timeout = SockRef::from(&accepted).tcp_user_timeout().unwrap();
        assert!(timeout.is_none_or(|timeout| timeout.is_zero()));
    }

    #[test]
    fn an_address_of_another_machine_is_no_source() {
        let error = try_source("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        try_source("127.0.0.9:0".parse().unwrap()).unwrap();
        try_source("[::1]:0".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_source_without_a_port_gets_one_when_the_socket_connects() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let source: SocketAddr = "127.0.0.9:0".parse().unwrap();
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let port = || socket.local_addr().unwrap().as_socket().unwrap().port();
        bind_source(&socket, source).unwrap();
        assert_eq!(port(), 0);
        socket.connect(&server.local_addr().unwrap().into()).unwrap();
        assert_ne!(port(), 0);
        assert_eq!(server.accept().unwrap().1.ip(), source.ip());
    }
}
