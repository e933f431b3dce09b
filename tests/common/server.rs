//! Servers that do as they are told: a thread that accepts, and one a connection that plays its
//! part.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::client;

/// A listening server; nobody listens there any more once it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Plays `part` with each connection, in a thread of its own.
    pub(crate) fn start(
        address: SocketAddr,
        part: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Self::with(listener, part)
    }

    /// As `start`, on a socket that listens already.
    pub(crate) fn with(
        listener: TcpListener,
        part: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (accepted, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let acceptor = Acceptor {
            listener: listener.try_clone().unwrap(),
            accepted: Arc::clone(&accepted),
            gone: Arc::clone(&gone),
        };
        let part = Arc::new(part);
        let thread = Some(thread::spawn(move || acceptor.run(&part)));
        Self { address, accepted, gone, listener, thread }
    }

    /// Says its name and ends, as the web servers of the cluster do.
    pub(crate) fn naming(name: &str, address: SocketAddr) -> Self {
        let name = name.to_owned();
        Self::start(address, move |mut stream| {
            // A peer that has gone is none of a server's business, here and below.
            drop(stream.write_all(name.as_bytes()));
            drop(stream.shutdown(Shutdown::Write));
            drop(io::copy(&mut stream, &mut io::sink()));
        })
    }

    /// Says back what it hears, and ends when its peer does.
    pub(crate) fn echo(address: SocketAddr) -> Self {
        Self::start(address, |stream| echo(&stream))
    }

    /// Answers each request of HTTP with its name and closes.
    pub(crate) fn http(name: &str, address: SocketAddr) -> Self {
        let name = name.to_owned();
        Self::start(address, move |mut stream| {
            drop(stream.read(&mut [0; 4096]));
            let length = name.len();
            drop(write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
            ));
            drop(stream.shutdown(Shutdown::Write));
            drop(io::copy(&mut stream, &mut io::sink()));
        })
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Nobody listens any more; who is connected stays so.
    pub(crate) fn kill(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.gone.store(true, Ordering::Relaxed);
        // Wakes accept(2), which then fails; the socket closes with its last descriptor.
        SockRef::from(&self.listener).shutdown(Shutdown::Both).unwrap();
        thread.join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Acceptor {
    listener: TcpListener,
    accepted: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl Acceptor {
    fn run(self, part: &Arc<impl Fn(TcpStream) + Send + Sync + 'static>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.gone.load(Ordering::Relaxed) {
                break;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
            client::patient(&stream);
            let part = Arc::clone(part);
            thread::spawn(move || part(stream));
        }
    }
}

pub(crate) fn echo(mut stream: &TcpStream) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        if stream.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
    drop(stream.shutdown(Shutdown::Write));
}

/// An address where SYNs are dropped: its queue of one is full, and nobody accepts.
#[derive(Debug)]
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    fillers: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        let filler = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // "In progress", for all of them.
            drop(socket.connect(&address.into()));
            socket
        };
        let hole =
            Self { address, listener: socket.into(), fillers: (0..4).map(|_| filler()).collect() };
        super::until("the queue is full", || {
            let probe = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            probe.is_err()
        });
        hole
    }

    /// The hole becomes a server; who tries in vain comes through with the next SYN, after a
    /// second or so.
    pub(crate) fn become_server(self, part: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        drop(self.fillers);
        Server::with(self.listener, part)
    }
}
