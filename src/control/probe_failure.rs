//! Why a probe failed: a label for the metrics, and a text for the operator.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;

use crate::control::sources;
use crate::shared::snapshot::ProbeResult;
use crate::sys::probe_socket::ProbeError;

/// The longest text of an error of TLS, in characters: a line of a log, or of a status.
const TEXT_MAX: usize = 240;

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

/// Why the connection of a probe failed.
#[derive(Debug)]
pub(super) enum StreamError {
    Socket(ProbeError),
    Tls(rustls::Error),
}

impl From<ProbeError> for StreamError {
    fn from(error: ProbeError) -> Self {
        Self::Socket(error)
    }
}

impl From<rustls::Error> for StreamError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl Failure {
    /// The server gave another answer than it should.
    pub(super) const fn bad_answer(detail: String) -> Self {
        Self { result: ProbeResult::BadAnswer, detail, ours: false }
    }

    /// The probe could not be made.
    pub(super) const fn unable(detail: String) -> Self {
        Self { result: ProbeResult::Error, detail, ours: false }
    }

    /// No source address has the family of the server: no session can reach it either.
    pub(super) fn no_source(address: SocketAddr) -> Self {
        let family = if address.ip().to_canonical().is_ipv4() { "IPv4" } else { "IPv6" };
        Self::unable(format!("`source` of the backend has no {family} address"))
    }

    /// `missing`: what did not come by the deadline.
    pub(super) fn of(error: impl Into<StreamError>, missing: &str, timeout: Duration) -> Self {
        match error.into() {
            StreamError::Socket(ProbeError::Deadline) => Self {
                result: ProbeResult::Timeout,
                detail: format!("{missing} within {timeout:?}"),
                ours: false,
            },
            StreamError::Socket(ProbeError::Itself) => Self {
                result: ProbeResult::Refused,
                detail: "no server listens there (the socket connected to itself)".to_owned(),
                ours: false,
            },
            StreamError::Socket(ProbeError::NoSource(source, error)) => {
                Self { detail: sources::explain(source, &error), ..Self::of_kernel(&error) }
            }
            StreamError::Socket(ProbeError::Failed(error)) => Self::of_kernel(&error),
            StreamError::Tls(error) => Self::bad_answer(shortened(format!("TLS: {error}"))),
        }
    }

    /// The same, with a text before its detail.
    pub(super) fn after(mut self, text: &str) -> Self {
        self.detail.insert_str(0, text);
        self
    }

    fn of_kernel(error: &io::Error) -> Self {
        let result = match error.kind() {
            // Of a unix socket: there is no file, or the backlog of its listener is full (EAGAIN).
            ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::WouldBlock => {
                ProbeResult::Refused
            }
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

/// The beginning of what a server sent, as a log line shows it: in quotes, escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    format!("\"{}\"{more}", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

/// What an error of TLS says, which may be every name of a certificate.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    text
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

    #[test]
    fn of_a_certificate_with_thousands_of_names_the_first_ones_are_shown() {
        let error = rustls::CertificateError::NotValidForNameContext {
            expected: "a.example".try_into().unwrap(),
            presented: (0..5000).map(|name| format!("host{name}.example")).collect(),
        };
        let error = rustls::Error::InvalidCertificate(error);
        let detail = Failure::of(error, "", Duration::ZERO).detail;
        assert!(detail.contains("not valid for name \"a.example\"") && detail.contains("host0."));
        assert_eq!(detail.chars().count(), TEXT_MAX + "...".len());
    }

    #[test]
    fn bytes_are_shown_escaped_and_cut() {
        assert_eq!(shown(b"+OK\r\n\x00\xff"), r#""+OK\r\n\x00\xff""#);
        assert_eq!(shown(&[b'a'; 1000]), format!("\"{}\"...", "a".repeat(80)));
    }
}
