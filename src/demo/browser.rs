//! The HTTP client of the tour: one connection for each request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than evenkeel may take to find a server that accepts.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The page of /metrics has some ten KiB with three servers.
const ANSWER_MAX: u64 = 4 << 20;

/// The body of the answer to `GET path`, without white space at its ends.
///
/// # Errors
/// No connection, no answer in time, an incomplete answer, or a status that is not 200.
pub(super) fn page(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    body(&answer).map(|body| body.trim().to_owned()).map_err(io::Error::other)
}

fn body(answer: &str) -> Result<&str, String> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err(format!("an answer of {} bytes without the end of its header", answer.len()));
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("{status}: {}", body.trim()));
    }
    let length = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if length != body.len() => {
            Err(format!("{} of {length} bytes received", body.len()))
        }
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_answer_with_status_200_is_accepted() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npi-1"), Ok("pi-1"));
        assert!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npi-1").is_err());
        assert!(body("HTTP/1.1 503 Nobody\r\n\r\nno").unwrap_err().contains("503"));
        assert!(body("").is_err());
    }
}
