//! A bad network between the balancer and a server, without privileges: a proxy that delays, cuts
//! into slices, or ends connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::common::Server;
use crate::common::wait::pause;

/// What it does to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Passes everything on in pieces of 1 to 50 bytes.
    Slices,
    /// Passes everything on after 50 to 150 ms.
    Latency,
    /// Ends both connections in order once this many bytes have passed one way.
    EndAfter(u64),
    /// Resets both connections then.
    ResetAfter(u64),
}

/// The proxy, and how often it has done that.
#[derive(Debug)]
pub(crate) struct Proxy {
    _server: Server,
    acted: Arc<AtomicU64>,
}

impl Proxy {
    /// Listens at `address` for connections to `server`.
    pub(crate) fn start(address: SocketAddr, server: SocketAddr, trouble: Trouble) -> Self {
        let acted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&acted);
        let listening = Server::start(address, move |near| {
            let Ok(far) = TcpStream::connect(server) else { return };
            drop((near.set_read_timeout(None), far.set_nodelay(true)));
            let reset = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| carry(&near, &far, trouble, (&count, &reset)));
                carry(&far, &near, trouble, (&count, &reset));
            });
        });
        Self { _server: listening, acted }
    }

    pub(crate) fn acted(&self) -> u64 {
        self.acted.load(Ordering::Relaxed)
    }
}

/// Carries one direction. Errors of a peer that has closed end it.
fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    trouble: Trouble,
    (acted, reset): (&AtomicU64, &AtomicBool),
) {
    let (mut passed, mut chunk) = (0, vec![0; 64 * 1024]);
    loop {
        let acts = match trouble {
            Trouble::Slices | Trouble::Latency => false,
            Trouble::EndAfter(end) | Trouble::ResetAfter(end) => passed >= end,
        };
        if acts {
            acted.fetch_add(1, Ordering::Relaxed);
            return act(from, to, trouble, reset);
        }
        let Ok(count @ 1..) = from.read(&mut chunk) else { break };
        passed += count as u64;
        let sent = match trouble {
            Trouble::Slices => slices(to, &chunk[..count], acted),
            Trouble::Latency => {
                acted.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_millis(50 + passed % 100));
                to.write_all(&chunk[..count])
            }
            _ => to.write_all(&chunk[..count]),
        };
        if sent.is_err() {
            break;
        }
    }
    if !reset.load(Ordering::Relaxed) {
        drop(to.shutdown(Shutdown::Write));
    }
}

fn slices(mut to: &TcpStream, mut bytes: &[u8], acted: &AtomicU64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let (slice, rest) = bytes.split_at(bytes.len().min(1 + bytes.len() % 50));
        to.write_all(slice)?;
        acted.fetch_add(1, Ordering::Relaxed);
        bytes = rest;
    }
    Ok(())
}

/// Ends both connections as `trouble` says.
fn act(mut from: &TcpStream, to: &TcpStream, trouble: Trouble, reset: &AtomicBool) {
    if matches!(trouble, Trouble::ResetAfter(_)) {
        reset.store(true, Ordering::Relaxed);
        for stream in [from, to] {
            drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
            // Wakes the thread of the other direction; the last of both closes the connections.
            drop(stream.shutdown(Shutdown::Read));
        }
        return;
    }
    for stream in [from, to] {
        drop(stream.shutdown(Shutdown::Write));
    }
    // Unread bytes would turn the close into a reset.
    drop(std::io::copy(&mut from, &mut std::io::sink()));
}
