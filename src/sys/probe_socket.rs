//! A connection of a probe, on the ring of tokio-uring.
//!
//! The connect of tokio-uring 0.5 keeps its socket until it completes, so that a deadline would
//! leave the socket in SYN-SENT, and dropping an operation does not cancel it. Therefore the
//! sockets are made here, each operation owns the memory that the kernel uses, and a deadline calls
//! shutdown(2) and then waits for the operation; it never drops it.
//!
//! `UnsubmittedOneshot` can be called without `unsafe`, but requires that the memory of the entry
//! outlives the operation. Here it does: the operation owns the socket and the memory in a
//! `ManuallyDrop` that only its completion opens. If a future is dropped while its operation is in
//! flight (the runtime ends; tokio-uring then frees what it holds before it cancels), the memory is
//! leaked instead of freed.

use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use io_uring_06::{cqueue, opcode, squeue, types};
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

use crate::sys::address::Address;
use crate::sys::socket::{ephemeral_ports, is_reached_by};
use crate::sys::socket_options::bind_source;

/// The time between two calls of shutdown(2), if an operation did not complete after the first.
const AGAIN: Duration = Duration::from_millis(50);

/// Why an operation of a probe failed.
#[derive(Debug)]
pub enum ProbeError {
    /// The deadline passed.
    Deadline,
    /// The socket was connected to itself: nobody listens on a port of the ephemeral range of this
    /// machine, and the kernel chose the same port for this end (RFC 9293, 3.5: simultaneous open).
    Itself,
    /// The socket cannot be bound to this source address.
    NoSource(SocketAddr, io::Error),
    /// The error of the kernel.
    Failed(io::Error),
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A connection of a probe. When it is dropped, it is reset: neither side keeps a TIME-WAIT for it,
/// and the rest of an answer is not transmitted. (HAProxy resets its checks for the same reason.) A
/// unix socket is closed: it has no reset.
#[derive(Debug)]
pub struct ProbeSocket {
    socket: Rc<Socket>,
    deadline: Instant,
}

impl ProbeSocket {
    /// Connects, from `source` (an address without a port) if there is one. `deadline` holds for
    /// this and all further operations.
    ///
    /// # Errors
    /// As [`ProbeError`]. No descriptor is leaked.
    pub async fn connect(
        source: Option<SocketAddr>,
        peer: &Address,
        deadline: Instant,
    ) -> Result<Self, ProbeError> {
        match peer.for_client(None) {
            Some(peer) => Self::connect_by(socket_to(source, peer)?, peer, deadline).await,
            None => Self::connect_unix(&peer.for_kernel(None)?, deadline),
        }
    }

    /// Connects, for a probe that sends nothing. The kernel delays the last ACK of the handshake by
    /// 200 ms (`TCP_DELACK_MAX`), and the reset of the drop comes before it: the peer never
    /// completes the handshake, so that no server program accepts the connection. (HAProxy's checks
    /// do this.)
    ///
    /// # Errors
    /// As [`ProbeError`]. No descriptor is leaked.
    pub async fn connect_without_ack(
        source: Option<SocketAddr>,
        peer: &Address,
        deadline: Instant,
    ) -> Result<Self, ProbeError> {
        let Some(ip) = peer.for_client(None) else {
            return Self::connect(source, peer, deadline).await;
        };
        let socket = socket_to(source, ip)?;
        // Without TCP_QUICKACK a connect schedules the ACK instead of sending it
        // (tcp_rcv_synsent_state_process in net/ipv4/tcp_input.c).
        socket.set_tcp_quickack(false)?;
        Self::connect_by(socket, ip, deadline).await
    }

    /// Connects to a unix socket, without the ring: a connect that waits for room in the backlog
    /// does not end at shutdown(2).
    fn connect_unix(peer: &SockAddr, deadline: Instant) -> Result<Self, ProbeError> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(peer)?;
        socket.set_nonblocking(false)?;
        Ok(Self { socket: Rc::new(socket), deadline })
    }

    async fn connect_by(
        socket: Socket,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Self, ProbeError> {
        let connection = Self { socket: Rc::new(socket), deadline };
        connection.socket.set_linger(Some(Duration::ZERO))?;
        let address = Rc::new(SockAddr::from(peer));
        let entry =
            opcode::Connect::new(connection.descriptor(), address.as_ptr().cast(), address.len())
                .build();
        let (done, _) = connection.run(entry, address).await;
        done?;
        // Only a port of that range can have been chosen by the kernel.
        if ephemeral_ports().contains(&peer.port()) && connection.is_to_itself(peer)? {
            return Err(ProbeError::Itself);
        }
        Ok(connection)
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// As [`ProbeError`].
    pub async fn send(&self, mut bytes: Vec<u8>) -> Result<(), ProbeError> {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(self.descriptor(), rest.as_ptr(), length)
                .flags(libc::MSG_NOSIGNAL)
                .build();
            let done;
            (done, bytes) = self.run(entry, bytes).await;
            sent += done?;
        }
        Ok(())
    }

    /// Receives into `buffer` from `filled` on. Returns the buffer and how many bytes were
    /// received: 0 is the end of the stream, or a full buffer.
    ///
    /// # Errors
    /// As [`ProbeError`].
    pub async fn receive(
        &self,
        mut buffer: Vec<u8>,
        filled: usize,
    ) -> Result<(Vec<u8>, usize), ProbeError> {
        let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) else {
            return Ok((buffer, 0));
        };
        let length = u32::try_from(room.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(self.descriptor(), room.as_mut_ptr(), length).build();
        let (done, buffer) = self.run(entry, buffer).await;
        match done? {
            // A socket that this end has shut down reads as ended.
            0 if Instant::now() >= self.deadline => Err(ProbeError::Deadline),
            received => Ok((buffer, received)),
        }
    }

    /// The address of this end.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Waits for the completion of one operation. At the deadline shutdown(2) makes it complete; if
    /// it has succeeded all the same, that is the result.
    async fn run<M: Unpin + 'static>(
        &self,
        entry: squeue::Entry,
        memory: M,
    ) -> (Result<usize, ProbeError>, M) {
        let held = Held(ManuallyDrop::new((Rc::clone(&self.socket), memory)));
        let finish = Finish(PhantomData);
        let mut operation: InFlightOneshot<_, _> =
            UnsubmittedOneshot::new(held, finish, entry).submit();
        let mut wait = self.deadline;
        let (result, (_, memory)) = loop {
            if let Ok(ended) = timeout_at(wait, &mut operation).await {
                break ended;
            }
            // The timer may be handled before a completion that came earlier, above all when this
            // thread had much to do.
            yield_now().await;
            if let Ok(ended) = timeout_at(wait, &mut operation).await {
                break ended;
            }
            // ENOTCONN: the connection has just ended by itself.
            drop(self.socket.shutdown(Shutdown::Both));
            wait = Instant::now() + AGAIN;
        };
        let late = wait != self.deadline;
        let result = match usize::try_from(result) {
            Ok(done) if !late || done > 0 => Ok(done),
            Ok(_) => Err(ProbeError::Deadline),
            Err(_) if late => Err(ProbeError::Deadline),
            Err(_) => Err(ProbeError::Failed(io::Error::from_raw_os_error(-result))),
        };
        (result, memory)
    }

    fn descriptor(&self) -> types::Fd {
        types::Fd(self.socket.as_raw_fd())
    }

    fn is_to_itself(&self, peer: SocketAddr) -> io::Result<bool> {
        let local = self.socket.local_addr()?.as_socket();
        Ok(local.is_some_and(|local| is_reached_by(local, peer)))
    }
}

fn socket_to(source: Option<SocketAddr>, peer: SocketAddr) -> Result<Socket, ProbeError> {
    // Blocking: the ring waits for the socket. With O_NONBLOCK it would complete with EAGAIN.
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        bind_source(&socket, source).map_err(|error| ProbeError::NoSource(source, error))?;
    }
    Ok(socket)
}

/// What an operation in flight owns. It is dropped after the completion; without one it is leaked.
struct Held<M>(ManuallyDrop<(Rc<Socket>, M)>);

/// Opens [`Held`] at the completion.
struct Finish<M>(PhantomData<M>);

impl<M> OneshotOutputTransform for Finish<M> {
    type Output = (i32, (Rc<Socket>, M));
    type StoredData = Held<M>;

    fn transform_oneshot_output(self, held: Held<M>, entry: cqueue::Entry) -> Self::Output {
        (entry.result(), ManuallyDrop::into_inner(held.0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(2);
    const LONG: Duration = Duration::from_secs(20);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn within(time: Duration) -> Instant {
        Instant::now() + time
    }

    /// A listener whose queue is full, so that the kernel drops further SYNs; the sockets that fill
    /// it.
    fn black_hole() -> (Socket, Vec<Socket>, SocketAddr) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let fill = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&SockAddr::from(address)));
            socket
        };
        let fillers = (0..4).map(fill).collect();
        (listener, fillers, address)
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_probe_sends_a_request_and_receives_the_answer() {
        let (listener, address) = listener();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut heard = [0; 5];
            client.read_exact(&mut heard).unwrap();
            client.write_all(b"world").unwrap();
            heard
        });
        tokio_uring::start(async {
            let probe = ProbeSocket::connect(None, &address.into(), within(LONG)).await.unwrap();
            probe.send(b"hello".to_vec()).await.unwrap();
            let (mut answer, mut filled) = (vec![0; 16], 0);
            loop {
                let received;
                (answer, received) = probe.receive(answer, filled).await.unwrap();
                if received == 0 {
                    break;
                }
                filled += received;
            }
            assert_eq!(&answer[..filled], b"world");
        });
        assert_eq!(&server.join().unwrap(), b"hello");
    }

    #[test]
    fn a_probe_closes_its_connection_by_a_reset() {
        let (listener, address) = listener();
        tokio_uring::start(async {
            drop(ProbeSocket::connect(None, &address.into(), within(LONG)).await.unwrap());
        });
        let (mut client, _) = listener.accept().unwrap();
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_server_does_not_accept_a_probe_that_only_connects() {
        const PROBES: usize = 20;
        let (listener, address) = listener();
        listener.set_nonblocking(true).unwrap();
        tokio_uring::start(async {
            for _ in 0..PROBES {
                drop(
                    ProbeSocket::connect_without_ack(None, &address.into(), within(LONG))
                        .await
                        .unwrap(),
                );
            }
        });
        // The ACK is only sent if this thread did not run for 200 ms.
        let accepted = std::iter::from_fn(|| listener.accept().ok()).count();
        assert!(accepted < PROBES / 2, "{accepted} of {PROBES}");
    }

    #[test]
    fn a_refused_connect_reports_it() {
        let (listener, address) = listener();
        drop(listener);
        let result = tokio_uring::start(async {
            ProbeSocket::connect(None, &address.into(), within(LONG)).await
        });
        let Err(ProbeError::Failed(error)) = result else { panic!("{result:?}") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_connect_without_an_answer_ends_at_its_deadline() {
        let (_listener, _fillers, address) = black_hole();
        tokio_uring::start(async {
            let started = Instant::now();
            let result = ProbeSocket::connect(None, &address.into(), within(SOON)).await;
            assert!(matches!(result, Err(ProbeError::Deadline)), "{result:?}");
            assert!((SOON..LONG).contains(&started.elapsed()), "{:?}", started.elapsed());
        });
    }

    #[test]
    fn a_receive_from_a_silent_server_ends_at_the_deadline() {
        let (_listener, address) = listener();
        tokio_uring::start(async {
            let started = Instant::now();
            let probe = ProbeSocket::connect(None, &address.into(), within(SOON)).await.unwrap();
            let result = probe.receive(vec![0; 16], 0).await;
            assert!(matches!(result, Err(ProbeError::Deadline)), "{result:?}");
            assert!((SOON..LONG).contains(&started.elapsed()), "{:?}", started.elapsed());
        });
    }

    #[test]
    fn an_answer_that_arrived_before_the_deadline_counts() {
        let (listener, address) = listener();
        tokio_uring::start(async {
            let probe = ProbeSocket::connect(None, &address.into(), within(SOON)).await.unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(b"yes").unwrap();
            // The thread does not run until after the deadline, as after SIGSTOP.
            while Instant::now() < probe.deadline + SOON / 4 {
                std::thread::park_timeout(SOON / 100);
            }
            let (answer, received) = probe.receive(vec![0; 16], 0).await.unwrap();
            assert_eq!(&answer[..received], b"yes");
        });
    }

    #[test]
    fn a_connection_to_itself_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let result = tokio_uring::start(async move {
            ProbeSocket::connect_by(socket, address, within(LONG)).await
        });
        assert!(matches!(result, Err(ProbeError::Itself)), "{result:?}");
    }

    #[test]
    fn no_failed_or_finished_probe_leaks_a_descriptor() {
        const ROUNDS: usize = 600;
        let (listening, open) = listener();
        let (dead, refused) = listener();
        drop(dead);
        let (_listener, _fillers, hole) = black_hole();
        tokio_uring::start(async {
            let before = descriptors();
            for _ in 0..ROUNDS {
                drop(ProbeSocket::connect(None, &open.into(), within(LONG)).await.unwrap());
                drop(listening.accept().unwrap());
                assert!(ProbeSocket::connect(None, &refused.into(), within(LONG)).await.is_err());
                assert!(ProbeSocket::connect(None, &hole.into(), Instant::now()).await.is_err());
            }
            // Other tests of this process open descriptors, too.
            let after = descriptors();
            assert!(after < before + ROUNDS / 2, "{before} descriptors became {after}");
        });
    }

    #[test]
    fn a_runtime_can_end_while_a_probe_is_in_flight() {
        let (_listener, address) = listener();
        tokio_uring::start(async {
            let probe = ProbeSocket::connect(None, &address.into(), within(LONG)).await.unwrap();
            tokio_uring::spawn(async move { probe.receive(vec![0; 16], 0).await });
            yield_now().await;
        });
    }
}
