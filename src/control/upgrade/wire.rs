//! Messages on a stream: their length in 4 bytes, little-endian, then JSON.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length.
const HEAD: usize = 4;

/// A stream whose reads and writes end at a deadline, however slowly bytes come.
struct Timed<'a>(&'a UnixStream, Instant);

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.1.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// The timeout of a socket is EAGAIN.
fn late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.set_read_timeout(self.left()?)?;
        self.0.read(into).map_err(late)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set_write_timeout(self.left()?)?;
        self.0.write(bytes).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message as its bytes.
///
/// # Errors
/// It is longer than 4 GiB.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - HEAD).map_err(io::Error::other)?;
    bytes[..HEAD].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Writes a message by the deadline.
///
/// # Errors
/// The peer is gone or does not read.
pub(super) fn write(
    stream: &UnixStream,
    message: &impl Serialize,
    deadline: Instant,
) -> io::Result<()> {
    write_bytes(stream, &encode(message)?, deadline)
}

/// Writes bytes of a message by the deadline.
///
/// # Errors
/// The peer is gone or does not read.
pub(super) fn write_bytes(stream: &UnixStream, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    Timed(stream, deadline).write_all(bytes)
}

/// Reads a message of at most `max` bytes by the deadline.
///
/// # Errors
/// The peer is gone, silent or slow; or its message is too long, or of another kind.
pub(super) fn read<T: DeserializeOwned>(
    stream: &UnixStream,
    max: usize,
    deadline: Instant,
) -> io::Result<T> {
    let mut stream = Timed(stream, deadline);
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    let length = length(head, max)?;
    // It grows as bytes come, and not by what the peer says.
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// The length of a message.
fn length(head: [u8; HEAD], max: usize) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > max {
        let problem = format!("a message of {length} bytes, where {max} are the most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(length)
}

/// Takes the first message out of bytes that were received; none: it is not complete.
///
/// # Errors
/// It is too long, or of another kind.
pub(super) fn take<T: DeserializeOwned>(bytes: &mut Vec<u8>, max: usize) -> io::Result<Option<T>> {
    let message = take_text(bytes, max)?;
    Ok(message.map(|message| serde_json::from_slice(&message)).transpose()?)
}

/// As [`take`], of any kind: its JSON.
///
/// # Errors
/// It is too long.
pub(super) fn take_text(bytes: &mut Vec<u8>, max: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(head) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
    let end = HEAD + length(*head, max)?;
    if bytes.len() < end {
        return Ok(None);
    }
    Ok(Some(bytes.drain(..end).skip(HEAD).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_message_arrives_and_a_second_one_is_not_touched() {
        let (here, there) = UnixStream::pair().unwrap();
        write(&here, &vec![1, 2], soon()).unwrap();
        write(&here, &"second", soon()).unwrap();
        assert_eq!(read::<Vec<u32>>(&there, 64, soon()).unwrap(), [1, 2]);
        assert_eq!(read::<String>(&there, 64, soon()).unwrap(), "second");
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let error = read::<String>(&there, 64, soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(take::<String>(&mut u32::MAX.to_le_bytes().to_vec(), 64).is_err());
    }

    #[test]
    fn junk_the_end_and_silence_are_errors() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&3u32.to_le_bytes()).unwrap();
        here.write_all(b"{{{").unwrap();
        assert!(read::<String>(&there, 64, soon()).is_err());
        here.write_all(&3u32.to_le_bytes()).unwrap();
        let silent = Instant::now() + Duration::from_millis(20);
        let error = read::<String>(&there, 64, silent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(here);
        let error = read::<String>(&there, 64, soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn messages_are_taken_from_what_has_arrived() {
        let mut bytes = encode(&"one").unwrap();
        bytes.extend(encode(&"two").unwrap());
        let rest = bytes.split_off(bytes.len() - 1);
        assert_eq!(take::<String>(&mut bytes, 64).unwrap().as_deref(), Some("one"));
        assert_eq!(take::<String>(&mut bytes, 64).unwrap(), None);
        bytes.extend(rest);
        assert_eq!(take::<String>(&mut bytes, 64).unwrap().as_deref(), Some("two"));
        assert!(bytes.is_empty());
    }
}
