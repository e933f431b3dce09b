//! Clients: each session checks every byte, and how the connection ends.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::client::{reset, set_timeouts};
use crate::common::wait::pause;
use crate::report::Report;
use crate::server::{Kind, Request};
use crate::stream::{BLOCK, Broken, Way, mixed, read_blocks, read_end, write_blocks};

/// What all client threads share.
pub(crate) struct Clients {
    pub(crate) frontend: SocketAddr,
    /// The beginnings and the ends of deaths of servers.
    pub(crate) deaths: Arc<AtomicU64>,
    pub(crate) report: Arc<Report>,
    pub(crate) stopped: AtomicBool,
    /// Sessions so far; each connection gets a number of its own.
    pub(crate) connections: AtomicU64,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Plain,
    /// Stops reading for a moment in the middle.
    Stalls,
    /// Resets in the middle.
    Resets,
}

impl Clients {
    /// Runs sessions until stopped. `seed` decides which.
    pub(crate) fn run(&self, seed: u64) {
        let mut random = seed;
        while !self.stopped.load(Ordering::Relaxed) {
            random = mixed(random);
            let connection = self.connections.fetch_add(1, Ordering::Relaxed);
            let deaths = self.deaths.load(Ordering::SeqCst);
            let outcome = self.session(connection, random);
            // The number is odd while a server dies: one dies at a time.
            let died = deaths % 2 == 1 || self.deaths.load(Ordering::SeqCst) != deaths;
            match outcome {
                Ok(bytes) => self.report.count("bytes checked", bytes),
                Err(Broken::WrongByte(what)) => self.report.wrong(what),
                // A server that dies resets: an orderly end would hide the loss.
                // The reset may come before this end shuts down: ENOTCONN.
                Err(Broken::Cut(Some(
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected,
                ))) if died => {
                    self.report.count("sessions cut by the death of a server", 1);
                }
                Err(Broken::Cut(how)) => self.report.wrong(format!(
                    "connection {connection} was cut by {how:?} (a server died: {died})"
                )),
            }
        }
    }

    /// One session; the number of bytes that were checked.
    fn session(&self, connection: u64, random: u64) -> Result<u64, Broken> {
        let cut = |error: io::Error| Broken::Cut(Some(error.kind()));
        let mut stream = TcpStream::connect(self.frontend).map_err(cut)?;
        set_timeouts(&stream);
        let request = request(connection, random);
        let manner = match random >> 16 & 15 {
            0 => Manner::Stalls,
            1 => Manner::Resets,
            _ => Manner::Plain,
        };
        stream.write_all(&request.bytes()).map_err(cut)?;
        let Request { kind, messages, blocks, .. } = request;
        let total = match kind {
            Kind::Echo => {
                for message in 0..messages {
                    let range = message * blocks..(message + 1) * blocks;
                    write_blocks(&stream, connection, Way::ToServer, range.clone())?;
                    read_blocks(&stream, connection, Way::ToClient, range)?;
                }
                stream.shutdown(Shutdown::Write).map_err(cut)?;
                2 * messages * blocks
            }
            Kind::Download | Kind::ServerResets => {
                let half = blocks / 2;
                read_blocks(&stream, connection, Way::ToClient, 0..half)?;
                match manner {
                    Manner::Plain => {}
                    Manner::Stalls => pause(Duration::from_millis(random >> 32 & 255)),
                    Manner::Resets => {
                        reset(stream);
                        self.report.count("sessions reset by the client", 1);
                        return Ok(half * BLOCK as u64);
                    }
                }
                read_blocks(&stream, connection, Way::ToClient, half..blocks)?;
                if kind == Kind::ServerResets {
                    return self.expect_reset(&stream, connection, blocks);
                }
                stream.shutdown(Shutdown::Write).map_err(cut)?;
                blocks
            }
            Kind::Upload => {
                write_blocks(&stream, connection, Way::ToServer, 0..blocks)?;
                stream.shutdown(Shutdown::Write).map_err(cut)?;
                read_blocks(&stream, connection, Way::ToClient, 0..1)?;
                blocks + 1
            }
        };
        read_end(&stream)?;
        self.report.count("sessions complete", 1);
        Ok(total * BLOCK as u64)
    }

    /// The server resets after the client has read all blocks.
    fn expect_reset(
        &self,
        stream: &TcpStream,
        connection: u64,
        blocks: u64,
    ) -> Result<u64, Broken> {
        write_blocks(stream, connection, Way::ToServer, 0..1)?;
        match read_end(stream) {
            Err(Broken::Cut(Some(ErrorKind::ConnectionReset))) => {
                self.report.count("sessions reset by the server", 1);
                Ok(blocks * BLOCK as u64)
            }
            Ok(()) => Err(Broken::WrongByte(format!("connection {connection}: FIN, not RST"))),
            Err(other) => Err(other),
        }
    }
}

/// Mostly short echo sessions, some bulk, some resets.
const fn request(connection: u64, random: u64) -> Request {
    let size = random >> 40 & 0xffff;
    let (kind, messages, blocks) = match random & 15 {
        0 => (Kind::Download, 0, 2 + size),
        1 => (Kind::Upload, 0, 1 + size),
        2 => (Kind::ServerResets, 0, 2 + size / 16),
        3..=6 => (Kind::Download, 0, 2 + size % 64),
        _ => (Kind::Echo, 1 + size % 16, 1 + size % 7),
    };
    Request { kind, connection, messages, blocks }
}
