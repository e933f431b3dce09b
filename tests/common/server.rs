//! Scripted servers: a thread that accepts, and a thread for each connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::client;

/// A listening server. Dropping it closes the listening socket.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server that runs `handler` for each connection, in a thread of its own.
    pub(crate) fn start(
        address: SocketAddr,
        handler: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Self::with(listener, handler)
    }

    /// As `start`, on a socket that already listens.
    pub(crate) fn with(
        listener: TcpListener,
        handler: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (accepted, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let acceptor = Acceptor {
            listener: listener.try_clone().unwrap(),
            accepted: Arc::clone(&accepted),
            stopped: Arc::clone(&stopped),
        };
        let handler = Arc::new(handler);
        let thread = Some(thread::spawn(move || acceptor.run(&handler)));
        Self { address, accepted, stopped, listener, thread }
    }

    /// Hands each connection over to the test.
    pub(crate) fn handing_over(address: SocketAddr) -> (Self, mpsc::Receiver<TcpStream>) {
        let (sender, connections) = mpsc::channel();
        (Self::start(address, move |stream| drop(sender.send(stream))), connections)
    }

    /// Sends its name and shuts down, as the web servers of the cluster do.
    pub(crate) fn naming(name: &str, address: SocketAddr) -> Self {
        let name = name.to_owned();
        Self::start(address, move |mut stream| {
            // Errors of a peer that has closed are ignored, here and below.
            drop(stream.write_all(name.as_bytes()));
            drop(stream.shutdown(Shutdown::Write));
            drop(io::copy(&mut stream, &mut io::sink()));
        })
    }

    /// Sends back what it receives, until the client shuts down.
    pub(crate) fn echo(address: SocketAddr) -> Self {
        Self::start(address, |stream| {
            // A session may be silent for long on a busy machine. Its client has a time limit.
            stream.set_read_timeout(None).unwrap();
            stream.set_write_timeout(None).unwrap();
            echo(&stream);
        })
    }

    /// Answers an HTTP request with its name, and closes.
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

    /// The number of connections that were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes the listening socket. Connections stay open.
    pub(crate) fn kill(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes accept(2), which then fails. The socket is closed with its last descriptor.
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
    stopped: Arc<AtomicBool>,
}

impl Acceptor {
    fn run(self, handler: &Arc<impl Fn(TcpStream) + Send + Sync + 'static>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.stopped.load(Ordering::Relaxed) {
                // As the kernel ends the connections that nobody has accepted.
                client::reset(stream);
                break;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
            client::set_timeouts(&stream);
            let handler = Arc::clone(handler);
            thread::spawn(move || handler(stream));
        }
    }
}

/// Sends back what it receives, until the peer shuts down.
pub(crate) fn echo(mut stream: &TcpStream) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        if stream.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
    drop(stream.shutdown(Shutdown::Write));
}

/// An address where SYNs are dropped: the accept queue of length one is full, and nothing accepts.
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
            // EINPROGRESS for each of them.
            drop(socket.connect(&address.into()));
            socket
        };
        let hole =
            Self { address, listener: socket.into(), fillers: (0..4).map(|_| filler()).collect() };
        super::until("the accept queue is full", || {
            let probe = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            probe.is_err()
        });
        hole
    }

    /// Starts to accept. A client that is connecting succeeds with its next SYN, after about a
    /// second.
    pub(crate) fn become_server(
        self,
        handler: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Server {
        drop(self.fillers);
        Server::with(self.listener, handler)
    }
}
