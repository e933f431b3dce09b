//! One probe: a connection, or an HTTP request and its status.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;

use crate::config::{Check, Health, HttpCheck};
use crate::shared::snapshot::ProbeResult;
use crate::sys::probe_socket::{ProbeError, ProbeSocket};

/// The longest answer to an HTTP probe up to the end of its status line: 4 KiB is far more than any
/// server sends.
pub(super) const ANSWER_MAX: usize = 4096;

/// Why a probe failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// For the metrics.
    pub(super) result: ProbeResult,
    /// For the operator.
    pub(super) detail: String,
    /// This machine had no descriptor, memory or port for it.
    pub(super) ours: bool,
}

impl Failure {
    const fn bad_answer(detail: String) -> Self {
        Self { result: ProbeResult::BadAnswer, detail, ours: false }
    }

    /// `missing`: what did not come by the deadline.
    fn of(error: ProbeError, missing: &str, timeout: Duration) -> Self {
        match error {
            ProbeError::Deadline => Self {
                result: ProbeResult::Timeout,
                detail: format!("{missing} within {timeout:?}"),
                ours: false,
            },
            ProbeError::Itself => Self {
                result: ProbeResult::Refused,
                detail: "no server listens there (the socket connected to itself)".to_owned(),
                ours: false,
            },
            ProbeError::Failed(error) => Self::of_kernel(&error),
        }
    }

    fn of_kernel(error: &io::Error) -> Self {
        let result = match error.kind() {
            ErrorKind::ConnectionRefused => ProbeResult::Refused,
            ErrorKind::TimedOut => ProbeResult::Timeout,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ProbeResult::Unreachable,
            _ => ProbeResult::Error,
        };
        let errno = error.raw_os_error().map(Errno::from_raw);
        // Descriptors, memory, and local ports (EADDRNOTAVAIL).
        let ours = matches!(
            errno,
            Some(
                Errno::EMFILE
                    | Errno::ENFILE
                    | Errno::ENOBUFS
                    | Errno::ENOMEM
                    | Errno::EADDRNOTAVAIL
            )
        );
        let detail = errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_lowercase());
        Self { result, detail, ours }
    }
}

/// Probes `address` as `health` says, with the Host header `host` unless `health` has its own. The
/// result is for the operator.
pub(super) async fn probe(
    address: SocketAddr,
    host: &str,
    health: &Health,
    deadline: Instant,
) -> Result<String, Failure> {
    let timeout = health.timeout;
    let connection = ProbeSocket::connect(address, deadline)
        .await
        .map_err(|error| Failure::of(error, "no connection", timeout))?;
    if health.check != Check::Http {
        return Ok("connected".to_owned());
    }
    let check = &health.http;
    let failed = |error| Failure::of(error, "no answer", timeout);
    connection.send(request(check, host)).await.map_err(failed)?;
    let (mut answer, mut filled) = (vec![0; ANSWER_MAX], 0);
    loop {
        let received;
        (answer, received) = connection.receive(answer, filled).await.map_err(failed)?;
        filled += received;
        let seen = answer.get(..filled).unwrap_or_default();
        match status(seen) {
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
    fn a_shortage_of_this_machine_says_nothing_about_the_server() {
        let cases = [
            (Errno::EMFILE, ProbeResult::Error, true),
            (Errno::ENOBUFS, ProbeResult::Error, true),
            (Errno::EADDRNOTAVAIL, ProbeResult::Error, true),
            (Errno::EHOSTUNREACH, ProbeResult::Unreachable, false),
            (Errno::ETIMEDOUT, ProbeResult::Timeout, false),
            (Errno::EPERM, ProbeResult::Error, false),
        ];
        for (errno, result, ours) in cases {
            let failure = Failure::of_kernel(&errno.into());
            assert_eq!((failure.result, failure.ours), (result, ours), "{}", failure.detail);
        }
    }
}
