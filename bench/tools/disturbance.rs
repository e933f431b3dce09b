//! What others do beside the clients that are measured.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::control_plane::{scrape, status};
use crate::exchange::{ANSWER_MAX, Exchange, verified};
use crate::process::pause;
use crate::subject::Subject;

/// Events are made at this distance, several at once: a timer for each would cost more.
const TICK: Duration = Duration::from_millis(1);

/// Bytes that a slow reader takes at a time, once a second.
const SIP: usize = 4096;

/// Bytes of its receive buffer. The kernel doubles it.
const RECEIVE_BUFFER: usize = 8192;

/// A kind of disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// None: the noise of the comparison.
    Nothing,
    /// So many clients connect and send nothing.
    Silent(usize),
    /// So many clients a second connect and reset the connection at once.
    Resets(u32),
    /// So many clients ask for a long answer and read it slowly.
    SlowReaders(usize),
    /// A scrape of the metrics and a question for the state of all servers, over and over.
    Scrapes,
    /// TCP probes of all servers at this interval.
    Probes(Duration),
}

/// Where a disturbance goes.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) subject: Subject,
    /// Of the clients' frontend.
    pub(crate) address: SocketAddr,
    /// Of the metrics.
    pub(crate) metrics: SocketAddr,
    /// Of the control socket.
    pub(crate) folder: PathBuf,
}

/// A disturbance under way.
pub(crate) struct Active {
    /// Connections that stay open.
    clients: Vec<TcpStream>,
    thread: Option<JoinHandle<io::Result<u32>>>,
    stop: Arc<AtomicBool>,
    since: Instant,
}

impl Disturbance {
    /// Begins; returns when it is in full force, apart from buffers that fill.
    pub(crate) fn begin(self, aim: Aim) -> io::Result<Active> {
        let clients = match self {
            Self::Silent(count) => silent(aim.address, count)?,
            _ => Vec::new(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let since = Instant::now();
        let mut active = Active { clients, thread: None, stop: Arc::clone(&stop), since };
        active.thread = match self {
            Self::Nothing | Self::Silent(_) | Self::Probes(_) => None,
            Self::Resets(rate) => Some(thread::spawn(move || {
                at_rate(f64::from(rate), &stop, |_| connect_and_reset(aim.address))
            })),
            Self::SlowReaders(count) => {
                let mut readers = slow_readers(aim.address, count)?;
                Some(thread::spawn(move || {
                    at_rate(count as f64, &stop, |event| sip(&mut readers[event % count]))
                }))
            }
            Self::Scrapes => Some(thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    scrape(aim.metrics)?;
                    status(aim.subject, &aim.folder)?;
                    done += 1;
                }
                Ok(done)
            })),
        };
        Ok(active)
    }
}

impl Active {
    /// Ends it; returns its events a second, if it has any.
    pub(crate) fn end(mut self) -> io::Result<Option<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(None) };
        let events = thread.join().map_err(|_| io::Error::other("a disturbance panicked"))??;
        Ok(Some(f64::from(events) / self.since.elapsed().as_secs_f64()))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.clear();
    }
}

/// Calls `event` with 0, 1, 2 ... so many times a second until it is told to stop; returns how
/// often.
fn at_rate(
    rate: f64,
    stop: &AtomicBool,
    mut event: impl FnMut(usize) -> io::Result<()>,
) -> io::Result<u32> {
    let (start, mut done) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * rate;
        while f64::from(done) < due && !stop.load(Ordering::Relaxed) {
            event(done as usize)?;
            done += 1;
        }
        pause(TICK);
    }
    Ok(done)
}

/// Connections on which nothing was sent. Closing them sends a reset, so none is left in
/// `TIME_WAIT`.
fn silent(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    while clients.len() < count {
        let client = TcpStream::connect(address)?;
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        clients.push(client);
    }
    // Clients are accepted in the order in which they came.
    verified(address, &[], Exchange { up: 116, down: 128, last: true })?;
    Ok(clients)
}

fn connect_and_reset(address: SocketAddr) -> io::Result<()> {
    let client = TcpStream::connect(address)?;
    SockRef::from(&client).set_linger(Some(Duration::ZERO))
}

/// Clients that have asked for a long answer.
fn slow_readers(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let down = u32::try_from(ANSWER_MAX).map_err(io::Error::other)?;
    let request = Exchange { up: 116, down, last: false }.request();
    let mut readers = Vec::new();
    while readers.len() < count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?; // before the window is announced
        socket.set_linger(Some(Duration::ZERO))?;
        socket.connect(&address.into())?;
        let mut reader = TcpStream::from(socket);
        reader.write_all(&request)?;
        reader.set_nonblocking(true)?;
        readers.push(reader);
    }
    Ok(readers)
}

fn sip(reader: &mut TcpStream) -> io::Result<()> {
    match reader.read(&mut [0; SIP]) {
        Ok(0) => Err(io::Error::other("the end of stream for a slow reader")),
        Err(error) if error.kind() != ErrorKind::WouldBlock => {
            Err(io::Error::new(error.kind(), format!("a slow reader: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::subject::EVENKEEL;

    #[test]
    fn a_flood_of_resets_keeps_to_its_rate() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let subject = Subject::find(EVENKEEL).unwrap();
        let aim = Aim { subject, address, metrics: address, folder: PathBuf::new() };
        let flood = Disturbance::Resets(500).begin(aim).unwrap();
        for _ in 0..50 {
            let (mut client, _) = server.accept().unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        // At least a tenth of a second has passed.
        assert!(flood.since.elapsed() >= Duration::from_millis(95));
        let rate = flood.end().unwrap().unwrap();
        assert!((1.0..=550.0).contains(&rate), "{rate}");
    }
}
