//! Sockets of servers whose connection is over, kept for the next one: to connect a socket again
//! costs less than to close it and to make another.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::SPARES_PER_WORKER;
use crate::proxy::wheel::Moment;
use crate::shared::server::Endpoint;
use crate::sys::socket::Socket;

/// How long they are kept when nobody needs one. Who is served less often than this gains nothing
/// by them.
const KEPT: Duration = Duration::from_millis(100);

/// The row of a worker, first in, first out: the peer's kernel has had the most time to acknowledge
/// the end that was sent to it, without which a socket is not renewed.
#[derive(Debug)]
pub(super) struct Spares {
    row: VecDeque<Spare>,
    /// One was put in or taken out since `until` was set.
    used: bool,
    /// When all are let go, if none is used before.
    until: Moment,
}

/// A socket goes on from the sequence numbers that its last peer knows (RFC 6528 says what for). Of
/// the servers of one backend, which serve the same to the same clients, each may: who knows
/// them could reset a connection of another, if it found the port. Others must not.
#[derive(Debug)]
struct Spare {
    socket: Socket,
    family: Family,
    backend: Arc<str>,
}

/// A socket connects to addresses of the family that it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// None of an IPv4 address that is written as one of IPv6: its socket has become neither.
    fn of(address: SocketAddr) -> Option<Self> {
        match address.ip() {
            IpAddr::V4(_) => Some(Self::V4),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().is_none().then_some(Self::V6),
        }
    }
}

impl Spares {
    pub(super) fn new() -> Self {
        let row = VecDeque::with_capacity(usize::from(SPARES_PER_WORKER));
        Self { row, used: false, until: Moment::START }
    }

    /// Sends the end (FIN) and keeps the socket of a connection to `server`, which has sent its
    /// own. Hands it back as it came where there are `most` already, or no renewal for it.
    pub(super) fn keep(&mut self, socket: Socket, server: &Endpoint, most: u16) -> Option<Socket> {
        let Some(family) = Family::of(server.address) else { return Some(socket) };
        let is_full = self.row.len() >= usize::from(most);
        if is_full || !server.timestamps.get_or_init(|| socket.has_timestamps()) {
            return Some(socket);
        }
        socket.shut_down();
        let backend = Arc::clone(&server.shared.backend);
        self.row.push_back(Spare { socket, family, backend });
        self.used = true;
        None
    }

    /// A socket that could connect to `server` once it is renewed. If that fails, it is to be
    /// closed.
    pub(super) fn take(&mut self, server: &Endpoint) -> Option<Socket> {
        let (family, backend) = (Family::of(server.address)?, &server.shared.backend);
        let suits = |spare: &Spare| spare.family == family && spare.backend == *backend;
        let place = self.row.iter().position(suits)?;
        self.used = true;
        self.row.remove(place).map(|spare| spare.socket)
    }

    /// Closes all; false: there was none.
    pub(super) fn let_go(&mut self) -> bool {
        let some = !self.row.is_empty();
        self.row.clear();
        some
    }

    /// Closes those that nobody has needed for a while; false: nothing was closed.
    pub(super) fn tidy_up(&mut self, now: Moment) -> bool {
        if std::mem::take(&mut self.used) {
            self.until = now.after(KEPT);
        }
        now >= self.until && self.let_go()
    }

    /// When [`Spares::tidy_up`] has something to do.
    pub(super) fn next(&self) -> Option<Moment> {
        (!self.row.is_empty()).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use crate::shared::counters::PerWorker;
    use crate::shared::limit::Limit;
    use crate::shared::server::ServerShared;
    use crate::terms::{EndpointId, ServerId};

    use super::*;

    /// Both ends of a connection to a server at `host`, and what the table says of that.
    fn served(host: IpAddr) -> (Socket, TcpStream, Endpoint) {
        let (socket, peer, address) = connected(host);
        (socket, peer, server("b", address))
    }

    fn connected(host: IpAddr) -> (Socket, TcpStream, SocketAddr) {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Socket::from(TcpStream::connect(address).unwrap());
        (socket, listener.accept().unwrap().0, address)
    }

    fn server(backend: &str, address: SocketAddr) -> Endpoint {
        let shared = ServerShared {
            id: ServerId(1),
            backend: Arc::from(backend),
            name: Arc::from("a"),
            sessions: Limit::new(None),
            cells: PerWorker::new(1),
        };
        let id = EndpointId { server: shared.id, number: 1 };
        Endpoint::new(id, address, Arc::new(shared))
    }

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn the_first_that_came_is_the_first_to_serve_and_the_row_is_bounded() {
        let mut spares = Spares::new();
        let mut peers = Vec::new();
        let mut numbers = Vec::new();
        for kept in [true, true, false] {
            let (socket, peer, server) = served(V4);
            numbers.push(socket.number());
            assert_eq!(spares.keep(socket, &server, 2).is_none(), kept);
            peers.push((peer, server));
        }
        let mut next = || spares.take(&peers[2].1).map(|socket| socket.number());
        assert_eq!([next(), next(), next()], [Some(numbers[0]), Some(numbers[1]), None]);
    }

    #[test]
    fn a_family_of_addresses_has_sockets_of_its_own() {
        let mut spares = Spares::new();
        let (socket, _peer, of_v4) = served(V4);
        assert!(spares.keep(socket, &of_v4, 2).is_none());
        let of_v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 80));
        for address in [of_v6, mapped] {
            assert!(spares.take(&server("b", address)).is_none());
        }
        assert!(spares.take(&of_v4).is_some());
    }

    #[test]
    fn a_server_of_another_backend_meets_no_sequence_number_of_this_one() {
        let mut spares = Spares::new();
        let (socket, _peer, of_b) = served(V4);
        assert!(spares.keep(socket, &of_b, 2).is_none());
        assert!(spares.take(&server("c", of_b.address)).is_none());
        assert!(spares.take(&of_b).is_some());
    }

    #[test]
    fn what_nobody_needs_is_closed_after_a_while() {
        let mut spares = Spares::new();
        let (socket, _peer, server) = served(V4);
        let start = Moment::START.after(Duration::from_secs(1));
        assert!(spares.keep(socket, &server, 2).is_none());
        assert!(!spares.tidy_up(start), "it has just been put in");
        assert_eq!(spares.next(), Some(start.after(KEPT)));
        assert!(!spares.tidy_up(start.after(KEPT - Duration::from_millis(1))));
        assert!(spares.tidy_up(start.after(KEPT)));
        assert!(spares.take(&server).is_none());
        assert_eq!(spares.next(), None, "nothing is waited for");
    }

    #[test]
    fn a_server_without_timestamps_has_its_sockets_closed() {
        let mut spares = Spares::new();
        let (socket, _peer, server) = served(V4);
        server.timestamps.set(false).unwrap();
        assert!(spares.keep(socket, &server, 2).is_some());
    }
}
