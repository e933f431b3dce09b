//! The HTTP request of a probe, and its status.

use std::time::Duration;

use crate::config::HttpCheck;
use crate::control::probe_failure::Failure;
use crate::control::probe_stream::ProbeStream;

/// The longest answer to an HTTP probe up to the end of its status line, with interim responses
/// (1xx) before it: 4 KiB is far more than any server sends.
pub(super) const ANSWER_MAX: usize = 4096;

/// Sends the request, with the Host header `host` unless the check has its own, and reads the
/// status.
pub(super) async fn check(
    stream: &mut ProbeStream,
    check: &HttpCheck,
    host: &str,
    timeout: Duration,
) -> Result<String, Failure> {
    let failed = |error| Failure::of(error, "no answer", timeout);
    stream.send(request(check, host)).await.map_err(failed)?;
    let (mut answer, mut filled) = (vec![0; ANSWER_MAX], 0);
    loop {
        let received;
        (answer, received) = stream.receive(answer, filled).await.map_err(failed)?;
        filled += received;
        match final_status(answer.get(..filled).unwrap_or_default(), check) {
            Ok(Some(status)) => return judge(status, check.status),
            Ok(None) if received > 0 => {}
            Ok(None) if filled == 0 => {
                return Err(Failure::bad_answer("closed without a response".to_owned()));
            }
            Ok(None) => return Err(Failure::bad_answer("incomplete status line".to_owned())),
            Err(error) => return Err(Failure::bad_answer(format!("not HTTP: {error}"))),
        }
    }
}

fn request(check: &HttpCheck, host: &str) -> Vec<u8> {
    let host = check.host.as_deref().unwrap_or(host);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: evenkeel/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        check.method, check.path
    )
    .into_bytes()
}

/// The status of the response that counts, once its status line is whole.
pub(super) fn final_status(
    mut answer: &[u8],
    check: &HttpCheck,
) -> Result<Option<u16>, httparse::Error> {
    loop {
        match status(answer) {
            Ok(Some(interim)) if is_interim(interim, check) => match after_head(answer) {
                Some(rest) => answer = rest,
                None => return Ok(None),
            },
            found => return found,
        }
    }
}

/// The status, once the status line is whole.
fn status(answer: &[u8]) -> Result<Option<u16>, httparse::Error> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = response.parse(answer);
    match (response.code, response.reason, parsed) {
        // The status line is parsed without space for headers.
        (Some(code), Some(_), _) => Ok(Some(code)),
        (_, _, Err(error)) => Err(error),
        (_, _, Ok(_)) => Ok(None),
    }
}

/// Whether another response follows (RFC 9110, 15.2), unless the check asks for this one. After
/// 101 the connection has another protocol.
const fn is_interim(status: u16, check: &HttpCheck) -> bool {
    let (first, last) = check.status;
    matches!(status, 100 | 102..=199) && !(first <= status && status <= last)
}

/// What follows the headers of a response, once they are whole.
fn after_head(answer: &[u8]) -> Option<&[u8]> {
    let mut rest = answer;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        if matches!(line, b"\n" | b"\r\n") {
            return Some(rest);
        }
    }
}

fn judge(status: u16, (first, last): (u16, u16)) -> Result<String, Failure> {
    if (first..=last).contains(&status) {
        return Ok(format!("status {status}"));
    }
    let wanted = if first == last { first.to_string() } else { format!("{first}-{last}") };
    Err(Failure::bad_answer(format!("status {status}, expected {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_headers_is_found() {
        let cases: [(&[u8], Option<&[u8]>); 5] = [
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP", Some(b"HTTP")),
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Some(b"")),
            (b"HTTP/1.1 100 \n\nHTTP", Some(b"HTTP")),
            (b"HTTP/1.1 100 Continue\r\n\r", None),
            (b"HTTP/1.1 100 Continue\r\n", None),
        ];
        for (answer, rest) in cases {
            assert_eq!(after_head(answer), rest, "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn an_interim_response_is_passed_over_unless_it_is_asked_for() {
        let check = |status| HttpCheck { status, ..HttpCheck::default() };
        for status in [100, 103, 199] {
            assert!(is_interim(status, &check((200, 399))), "{status}");
            assert!(!is_interim(status, &check((100, 399))), "{status}");
        }
        assert!(!is_interim(101, &check((200, 399))) && !is_interim(200, &check((200, 399))));
    }
}
