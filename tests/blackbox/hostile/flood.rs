//! Hundreds of slow clients that one thread drives.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{SockAddr, Socket, Type};

use crate::common::wait::pause;

/// Between two bytes of a client.
const STEP: Duration = Duration::from_millis(5);

/// A client that was cut off connects again after so many steps.
const STEPS_TO_RECONNECT: usize = 20;

/// What each client of a flood does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// Sends nothing.
    Silent,
    /// Sends these bytes one at a time, again and again.
    Drip(&'static [u8]),
    /// Sends these bytes and shuts down (FIN).
    HalfClosed(&'static [u8]),
    /// Sends these bytes, and reads nothing.
    Deaf(&'static [u8]),
}

/// Slow clients, which connect again when they are cut off. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Flood {
    stop: Arc<AtomicBool>,
    cut: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// So many clients of each manner, at one address.
    pub(super) fn start(address: SockAddr, manners: &[(Manner, usize)]) -> Self {
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let all = manners.iter().flat_map(|(manner, count)| std::iter::repeat_n(*manner, *count));
        let mut clients: Vec<Client> =
            all.map(|manner| Client { manner, stream: None, sent: 0, pause: 0 }).collect();
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&cut));
        let thread = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let cut = clients.iter_mut().filter_map(|one| one.step(&address).err()).count();
                count.fetch_add(cut, Ordering::Relaxed);
                pause(STEP);
            }
        });
        Self { stop, cut, thread: Some(thread) }
    }

    /// How often a client was cut off so far.
    pub(super) fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Client {
    manner: Manner,
    stream: Option<Socket>,
    /// Bytes, since it is connected.
    sent: usize,
    /// Steps until it connects again.
    pause: usize,
}

/// The balancer has closed the connection.
struct Cut;

impl Client {
    fn step(&mut self, address: &SockAddr) -> Result<(), Cut> {
        if self.pause > 0 {
            self.pause -= 1;
            return Ok(());
        }
        let Some(stream) = &self.stream else {
            let stream = Socket::new(address.domain(), Type::STREAM, None).unwrap();
            stream.set_nonblocking(true).unwrap();
            let begun = stream.connect(address);
            // EAGAIN: the backlog of a unix socket is full.
            let waits = begun.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EAGAIN));
            (self.stream, self.sent) = ((!waits).then_some(stream), 0);
            return Ok(());
        };
        let outcome = self.talk(stream);
        match outcome {
            Ok(sent) => self.sent += sent,
            Err(Cut) => (self.stream, self.pause) = (None, STEPS_TO_RECONNECT),
        }
        outcome.map(drop)
    }

    /// How many bytes were sent.
    fn talk(&self, stream: &Socket) -> Result<usize, Cut> {
        let next: &[u8] = match self.manner {
            Manner::Silent => b"",
            Manner::Drip(bytes) => {
                let at = self.sent % bytes.len();
                &bytes[at..=at]
            }
            Manner::HalfClosed(bytes) | Manner::Deaf(bytes) => {
                bytes.get(self.sent..).unwrap_or(b"")
            }
        };
        let mut sent = 0;
        if !next.is_empty() {
            match stream.send(next) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Cut),
            }
        }
        match self.manner {
            Manner::Deaf(_) => return Ok(sent),
            Manner::HalfClosed(bytes)
                if self.sent < bytes.len() && self.sent + sent == bytes.len() =>
            {
                drop(stream.shutdown(Shutdown::Write));
            }
            _ => {}
        }
        match stream.recv(&mut [MaybeUninit::uninit(); 256]) {
            Ok(0) => Err(Cut),
            Ok(_) => Ok(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(sent),
            Err(_) => Err(Cut),
        }
    }
}
