//! Servers that check what they receive, and that can die: all their connections are reset then.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::Server;
use crate::common::client::reset;
use crate::report::Report;
use crate::stream::{Broken, Way, read_blocks, read_end, write_blocks};

/// What a session does after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages of a few blocks, each answered by as many.
    Echo,
    /// Blocks from the server.
    Download,
    /// Blocks to the server, then one from it.
    Upload,
    /// Blocks from the server, then a reset by it.
    ServerResets,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Echo, Self::Download, Self::Upload, Self::ServerResets];
}

/// The first bytes of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) connection: u64,
    /// Messages of an echo session.
    pub(crate) messages: u64,
    /// Blocks of a message, or of the whole stream.
    pub(crate) blocks: u64,
}

impl Request {
    const LENGTH: usize = 32;

    pub(crate) fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let words = [self.kind as u64, self.connection, self.messages, self.blocks];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn read(mut stream: impl Read) -> io::Result<Self> {
        let mut bytes = [0; Self::LENGTH];
        stream.read_exact(&mut bytes)?;
        let word = |index: usize| {
            u64::from_le_bytes(bytes[8 * index..8 * (index + 1)].try_into().unwrap())
        };
        let kind = Kind::ALL[usize::try_from(word(0)).unwrap()];
        Ok(Self { kind, connection: word(1), messages: word(2), blocks: word(3) })
    }
}

/// A server that dies and starts again on the same address.
pub(crate) struct Mortal {
    address: SocketAddr,
    running: Option<(Server, Arc<AtomicBool>)>,
    /// The beginnings and the ends of deaths of all servers.
    deaths: Arc<AtomicU64>,
    report: Arc<Report>,
}

impl Mortal {
    pub(crate) fn start(address: SocketAddr, deaths: Arc<AtomicU64>, report: Arc<Report>) -> Self {
        let mut mortal = Self { address, running: None, deaths, report };
        mortal.revive();
        mortal
    }

    pub(crate) fn revive(&mut self) {
        let is_dead = Arc::new(AtomicBool::new(false));
        let (dead, report) = (Arc::clone(&is_dead), Arc::clone(&self.report));
        let server = Server::start(self.address, move |stream| serve(stream, &dead, &report));
        self.running = Some((server, is_dead));
    }

    /// Closes its listening socket and resets its connections.
    pub(crate) fn die(&mut self) {
        // Odd while it dies, since a connection that begins now may end with it.
        self.deaths.fetch_add(1, Ordering::SeqCst);
        if let Some((server, is_dead)) = self.running.take() {
            is_dead.store(true, Ordering::SeqCst);
            drop(server);
        }
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }
}

/// How long a connection of a server that has died lives on, at most.
const LOOK: Duration = Duration::from_millis(50);

/// A stream that fails when its server has died.
struct Living<'a> {
    stream: &'a TcpStream,
    dead: &'a AtomicBool,
}

impl Living<'_> {
    fn retry<T>(&self, mut attempt: impl FnMut(&TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            if self.dead.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match attempt(self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Read for &Living<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|mut stream| stream.read(buffer))
    }
}

impl Write for &Living<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.retry(|mut stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serve(stream: TcpStream, dead: &AtomicBool, report: &Report) {
    stream.set_read_timeout(Some(LOOK)).unwrap();
    stream.set_write_timeout(Some(LOOK)).unwrap();
    let living = Living { stream: &stream, dead };
    match act(&living) {
        Ok(false) => {}
        Ok(true) | Err(Broken::Cut(_)) => reset(stream),
        Err(Broken::WrongByte(what)) => report.wrong(format!("at a server: {what}")),
    }
}

/// Does what the client requests; whether the connection is to be reset then.
fn act(living: &Living<'_>) -> Result<bool, Broken> {
    let cut = |error: io::Error| Broken::Cut(Some(error.kind()));
    let Request { kind, connection, messages, blocks } = Request::read(living).map_err(cut)?;
    match kind {
        Kind::Echo => {
            for message in 0..messages {
                let range = message * blocks..(message + 1) * blocks;
                read_blocks(living, connection, Way::ToServer, range.clone())?;
                write_blocks(living, connection, Way::ToClient, range)?;
            }
        }
        Kind::Download | Kind::ServerResets => {
            write_blocks(living, connection, Way::ToClient, 0..blocks)?;
            if kind == Kind::ServerResets {
                // The client has read them: a reset destroys what has not arrived.
                read_blocks(living, connection, Way::ToServer, 0..1)?;
                return Ok(true);
            }
        }
        Kind::Upload => {
            read_blocks(living, connection, Way::ToServer, 0..blocks)?;
            read_end(living)?;
            write_blocks(living, connection, Way::ToClient, 0..1)?;
        }
    }
    // Its client may have reset it.
    drop(living.stream.shutdown(Shutdown::Write));
    if kind != Kind::Upload {
        read_end(living)?;
    }
    Ok(false)
}
