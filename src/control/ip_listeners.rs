//! Binding of TCP addresses: one SO_REUSEPORT socket for each worker.
//!
//! With SO_REUSEPORT, another process of the same user could share the address and take a part of
//! the clients. So the first socket of an address is bound and listens without it, which the kernel
//! refuses if any other socket listens there. Only then it gets the option, and the others join its
//! group. There is no moment in which two processes have the address: each begins with a socket
//! that excludes the other.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::control::listen_options::ListenOptions;

/// The listen backlog of `observe.bind`.
const OBSERVE_BACKLOG: i32 = 128;

/// Whether nobody listens at an address. (Sockets that are bound and do not listen are no obstacle,
/// because of `SO_REUSEADDR`.)
///
/// # Errors
/// It cannot be bound.
pub(super) fn trial(address: SocketAddr) -> io::Result<()> {
    plain(address)?.bind(&address.into())
}

/// The sockets of one address. The first one listens already, unless sockets of this process
/// `overlap` the address: a wildcard, which a reload replaces with one of its addresses or the
/// other way round.
///
/// # Errors
/// The address cannot be bound, or another process has it.
pub(super) fn bind(
    address: SocketAddr,
    workers: usize,
    options: ListenOptions,
    overlap: bool,
) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(workers);
    if !overlap {
        let first = plain(address)?;
        // Accepted sockets inherit it, which saves a system call for each session.
        first.set_tcp_nodelay(true)?;
        first.bind(&address.into())?;
        options.listen(&first)?;
        first.set_reuse_port(true)?;
        sockets.push(first);
    }
    while sockets.len() < workers {
        sockets.push(bind_shared(address)?);
    }
    Ok(sockets)
}

/// A socket in the group of others that this process has. It does not listen yet.
///
/// # Errors
/// The address cannot be bound.
pub(super) fn bind_shared(address: SocketAddr) -> io::Result<Socket> {
    let socket = plain(address)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens for HTTP: one socket, of its own family only, as those of frontends.
///
/// # Errors
/// The address cannot be bound.
pub(super) fn bind_observe(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = plain(address)?;
    socket.bind(&address.into())?;
    socket.listen(OBSERVE_BACKLOG)?;
    Ok(socket.into())
}

fn plain(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Sockets of an earlier process in TIME_WAIT do not matter.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] does not include 0.0.0.0, whatever net.ipv6.bindv6only is.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use socket2::SockRef;

    use super::*;
    use crate::config::FrontendSettings;

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn try_bind(address: SocketAddr) -> io::Result<Vec<Socket>> {
        bind(address, 2, ListenOptions::of(&FrontendSettings::default()), false)
    }

    #[test]
    fn two_that_bind_at_once_never_both_succeed() {
        for _ in 0..200 {
            let (address, start) = (free(), Barrier::new(2));
            let bind = || {
                start.wait();
                try_bind(address).ok()
            };
            let (one, two) = thread::scope(|scope| {
                let one = scope.spawn(bind);
                let two = bind();
                (one.join().unwrap(), two)
            });
            assert!(one.is_none() || two.is_none());
            // If both have seen each other, both fail: the next attempt succeeds.
            assert!(one.is_some() || two.is_some() || try_bind(address).is_ok());
        }
    }

    #[test]
    fn all_sockets_of_an_address_are_one_group() {
        let address = free();
        let options = ListenOptions::of(&FrontendSettings::default());
        let sockets = bind(address, 3, options, false).unwrap();
        sockets.iter().for_each(|socket| options.listen(socket).unwrap());
        let clients: Vec<_> =
            (0..90).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.accept().is_ok(), "each gets clients");
        }
        drop(clients);
    }

    #[test]
    fn an_ipv6_wildcard_of_observe_takes_no_ipv4_port() {
        let listener = bind_observe("[::]:0".parse().unwrap()).unwrap();
        let socket = SockRef::from(&listener);
        assert!(socket.is_listener().unwrap() && socket.only_v6().unwrap());
    }
}
