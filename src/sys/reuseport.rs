//! SO_REUSEPORT groups: which of the sockets of one address the kernel gives new connections to,
//! and what waits in the queue of one of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, accept4};
use socket2::SockRef;

use crate::sys::socket::Socket;

/// `SO_DETACH_REUSEPORT_BPF` (kernel 5.3), which the libc crate does not have on every
/// architecture.
const DETACH: libc::c_int = 68;

/// The wait for a connection that another thread has taken first: the shortest that the kernel has.
const ACCEPT_TIMEOUT: Duration = Duration::from_millis(1);

/// Gives each new connection to one of these sockets of the group of `socket`, at random. They are
/// numbered in the order in which they began to listen. Nothing changes for connections that wait
/// in a queue already. (`SO_ATTACH_REUSEPORT_CBPF`, socket(7): a classic BPF program returns the
/// number; a number that does not exist is as without a program.)
///
/// # Errors
/// As setsockopt(2); EINVAL: `socket` is in no such group, or there are too many sockets.
pub fn select_among(socket: &impl AsFd, numbers: &[u32]) -> io::Result<()> {
    let mut program = selection(numbers);
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    let value = &raw const program;
    // SAFETY: `value` points to a sock_fprog of `size` bytes, whose filter has `length` entries;
    // the kernel copies both before it returns.
    let answer =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.cast(), size) };
    Ok(Errno::result(answer).map(drop)?)
}

/// Gives new connections to all sockets of the group again.
///
/// # Errors
/// As setsockopt(2).
pub fn select_all(socket: &impl AsFd) -> io::Result<()> {
    let (descriptor, level, none) = (socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, 0);
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let value = &raw const none;
    // SAFETY: `value` points to an int of `size` bytes.
    let answer = unsafe { libc::setsockopt(descriptor, level, DETACH, value.cast(), size) };
    match Errno::result(answer) {
        // No program is attached.
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A random number modulo the count, and a jump to the return of the number that it stands for.
fn selection(numbers: &[u32]) -> Vec<libc::sock_filter> {
    let entry = |code: u32, jump_false: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: jump_false,
        k,
    };
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();
    let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX).max(1);
    let mut program = vec![
        entry(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, random),
        entry(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, count),
    ];
    for (case, number) in (0..).zip(numbers) {
        program.push(entry(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, case));
        program.push(entry(libc::BPF_RET | libc::BPF_K, 0, *number));
    }
    program.push(entry(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
    program
}

/// Takes a connection that waits at a listening socket in blocking mode, if there is one.
///
/// # Errors
/// As accept(2).
pub fn accept_waiting(listener: &OwnedFd) -> io::Result<Option<Socket>> {
    let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut polled, PollTimeout::ZERO)? == 0 {
        return Ok(None);
    }
    // Its own worker may take the connection first, and accept(2) would wait for another one.
    // O_NONBLOCK would change the socket for every thread and process that shares it.
    let socket = SockRef::from(listener);
    socket.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let accepted = accept4(listener, flags);
    socket.set_read_timeout(None)?;
    match accepted {
        Ok(descriptor) => Ok(Some(Socket::from_descriptor(descriptor))),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use socket2::{Domain, Type};

    use super::*;

    /// Sockets of one group, and their address.
    fn group(count: usize) -> (Vec<TcpListener>, SocketAddr) {
        let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = (0..count).map(|_| {
            let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(64).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            TcpListener::from(socket)
        });
        (sockets.collect(), address)
    }

    /// How many connections wait at each socket; they are taken.
    fn taken(sockets: &[TcpListener]) -> Vec<usize> {
        let take = |socket: &TcpListener| {
            let socket = socket.try_clone().unwrap().into();
            std::iter::from_fn(|| accept_waiting(&socket).unwrap()).count()
        };
        sockets.iter().map(take).collect()
    }

    fn connect(address: SocketAddr) -> Vec<TcpStream> {
        (0..60).map(|_| TcpStream::connect(address).unwrap()).collect()
    }

    #[test]
    fn new_connections_go_to_the_selected_sockets_and_waiting_ones_stay() {
        let (sockets, address) = group(4);
        let _before = connect(address);
        select_among(&sockets[0], &[0, 3]).unwrap();
        let before = taken(&sockets);
        assert_eq!(before.iter().sum::<usize>(), 60);
        assert!(before.iter().all(|count| *count > 0), "{before:?}");
        let _among = connect(address);
        let among = taken(&sockets);
        assert!(among[0] > 5 && among[3] > 5 && among[0] + among[3] == 60, "{among:?}");
        // Through any socket of the group.
        select_all(&sockets[2]).unwrap();
        select_all(&sockets[2]).unwrap();
        let _after = connect(address);
        assert!(taken(&sockets).iter().all(|count| *count > 0));
    }

    #[test]
    fn a_selection_holds_for_sockets_that_join_later() {
        let (mut sockets, address) = group(1);
        select_among(&sockets[0], &[1]).unwrap();
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        sockets.push(socket.into());
        let _clients = connect(address);
        assert_eq!(taken(&sockets), [0, 60]);
    }

    #[test]
    fn nothing_waits_at_an_idle_socket() {
        let (sockets, _) = group(1);
        assert_eq!(taken(&sockets), [0]);
        assert_eq!(SockRef::from(&sockets[0]).read_timeout().unwrap(), None);
    }
}
