//! Clients: a connection, and the verbs of a scripted peer that the standard library lacks.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::wait::PATIENCE;

/// Connects; reads and writes that hang fail after a while instead.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .unwrap_or_else(|error| panic!("{address} takes no connection: {error}"));
    patient(&stream);
    stream
}

/// What reads and writes of a test are held to.
pub(crate) fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// The end of what we say (FIN); we still listen.
pub(crate) fn end(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

/// RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// How a connection ended, as its reader saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// FIN
    Orderly,
    /// RST
    Reset,
}

/// All that comes, and how it ended.
#[track_caller]
pub(crate) fn read_out(mut stream: &TcpStream) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (bytes, Ending::Orderly),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if is_reset(&error) => return (bytes, Ending::Reset),
            Err(error) => panic!("after {} bytes: {error}", bytes.len()),
        }
    }
}

/// Connects, says nothing, and hears what becomes of it. A reset may be there before connect(2) has
/// returned.
#[track_caller]
pub(crate) fn fate(address: SocketAddr) -> (Vec<u8>, Ending) {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(stream) => {
            patient(&stream);
            read_out(&stream)
        }
        Err(error) if is_reset(&error) => (Vec::new(), Ending::Reset),
        Err(error) => panic!("{address} takes no connection: {error}"),
    }
}

pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Says nothing, and hears the whole answer.
///
/// # Errors
/// Refused, reset, or nothing in time.
pub(crate) fn visit(address: SocketAddr) -> io::Result<String> {
    ask(address, b"")
}

/// Says `request`, and hears all until the other side ends.
///
/// # Errors
/// Refused, reset, or nothing in time.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    patient(&stream);
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Says `message` and hears as many bytes back.
#[track_caller]
pub(crate) fn exchange(mut stream: &TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}
