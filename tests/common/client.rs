//! Clients, and operations of a TCP peer that the standard library lacks.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::wait::{TIMEOUT, holds_for, until_some};

/// Connects. Reads and writes have a timeout.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .unwrap_or_else(|error| panic!("connecting to {address} failed: {error}"));
    set_timeouts(&stream);
    stream
}

/// Sets the timeouts of reads and writes, and turns Nagle's algorithm off.
pub(crate) fn set_timeouts(stream: &TcpStream) {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// Shuts the sending direction down (FIN); the stream can still be read.
pub(crate) fn shut_down(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Aborts the connection: RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// How the stream ended that a peer has read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// FIN
    Orderly,
    /// RST
    Reset,
}

/// Reads until the stream ends: the bytes, and how it ended.
#[track_caller]
pub(crate) fn read_to_end(mut stream: &TcpStream) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (bytes, Ending::Orderly),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if is_reset(&error) => return (bytes, Ending::Reset),
            // A debugger, or a machine that was suspended: a read with a timeout does not resume.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("after {} bytes: {error}", bytes.len()),
        }
    }
}

/// Connects, sends nothing, and reads until the stream ends. A reset may arrive before connect(2)
/// returns.
#[track_caller]
pub(crate) fn connect_and_read(address: SocketAddr) -> (Vec<u8>, Ending) {
    match TcpStream::connect_timeout(&address, TIMEOUT) {
        Ok(stream) => {
            set_timeouts(&stream);
            read_to_end(&stream)
        }
        Err(error) if is_reset(&error) => (Vec::new(), Ending::Reset),
        Err(error) => panic!("connecting to {address} failed: {error}"),
    }
}

pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Connects, sends nothing, and reads the whole answer.
///
/// # Errors
/// Refused, reset, or no answer in time.
pub(crate) fn fetch(address: SocketAddr) -> io::Result<String> {
    fetch_with(address, b"")
}

/// Connects, sends `request`, and reads the whole answer.
///
/// # Errors
/// Refused, reset, or no answer in time.
pub(crate) fn fetch_with(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    set_timeouts(&stream);
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Sends `message` and reads as many bytes.
#[track_caller]
pub(crate) fn exchange(mut stream: &TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// Writes from all clients, which do not read, until the kernel takes no more bytes.
#[track_caller]
pub(crate) fn fill(clients: &[TcpStream], receive_buffer: usize) {
    for client in clients {
        SockRef::from(client).set_recv_buffer_size(receive_buffer).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let write = |mut client: &TcpStream| {
        (0..).take_while(|_| client.write(&[9; 64 * 1024]).is_ok()).count()
    };
    let mut rounds_full = 0;
    let mut is_full = || {
        let written: usize = clients.iter().map(write).sum();
        rounds_full = if written == 0 { rounds_full + 1 } else { 0 };
        rounds_full == 50
    };
    // Gigabytes may pass: on a busy machine that takes longer than one timeout.
    assert!((0..10).any(|_| !holds_for(TIMEOUT, || !is_full())), "socket buffers are not full");
}

/// Bytes that were sent and that the kernel of the peer has not acknowledged (`tx_queue` of
/// /proc/net/tcp, proc(5)).
#[track_caller]
pub(crate) fn unacknowledged(stream: &TcpStream) -> usize {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            let ip = u32::from_ne_bytes(address.ip().octets());
            format!("{ip:08X}:{:04X}", address.port())
        }
        SocketAddr::V6(address) => panic!("{address} is an IPv6 address"),
    };
    let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let addresses = format!(" {} {} ", hex(own), hex(peer));
    // The table changes while it is read, and may lack a line.
    until_some("the connection is in /proc/net/tcp", || {
        let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let (_, rest) = table.lines().find_map(|line| line.split_once(&addresses))?;
        // The state, then `tx_queue:rx_queue`.
        let (sent, _) = rest.split(' ').nth(1)?.split_once(':')?;
        usize::from_str_radix(sent, 16).ok()
    })
}
