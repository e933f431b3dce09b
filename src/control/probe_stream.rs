//! The connection of a probe, with or without TLS. rustls reads and writes buffers; the socket is
//! that of every probe.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::control::probe_failure::{Failure, StreamError};
use crate::sys::probe_socket::ProbeSocket;

/// Bytes that one receive takes from the socket: a handshake has 1 to 5 KiB.
const RECORDS: usize = 4096;

/// The connection of a probe. When it is dropped, it is reset.
#[derive(Debug)]
pub(super) struct ProbeStream {
    socket: ProbeSocket,
    tls: Option<Box<Tls>>,
}

/// TLS on a connection.
#[derive(Debug)]
struct Tls {
    connection: ClientConnection,
    /// Received, and from `read` on not given to rustls yet.
    records: Vec<u8>,
    read: usize,
}

impl ProbeStream {
    /// Without TLS.
    pub(super) const fn plain(socket: ProbeSocket) -> Self {
        Self { socket, tls: None }
    }

    /// With TLS: does the handshake. A failure is for the operator.
    pub(super) async fn tls(
        socket: ProbeSocket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let failed = |error: StreamError| match error {
            StreamError::Tls(error) => Failure::bad_answer(explain(&error)),
            error @ StreamError::Socket(_) => {
                let missing = "no TLS handshake";
                let failure = Failure::of(error, missing, timeout);
                if failure.detail.starts_with(missing) {
                    failure
                } else {
                    failure.after("TLS handshake: ")
                }
            }
        };
        let connection = ClientConnection::new(config, name).map_err(|it| failed(it.into()))?;
        let tls = Box::new(Tls { connection, records: Vec::new(), read: 0 });
        let mut stream = Self { socket, tls: Some(tls) };
        match stream.handshake().await {
            Ok(true) => Ok(stream),
            Ok(false) => {
                let text = "TLS handshake: closed by the server".to_owned();
                Err(Failure::bad_answer(text))
            }
            Err(error) => {
                // An alert says why to the server; the result of the probe is known.
                drop(stream.flush().await);
                Err(failed(error))
            }
        }
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), StreamError> {
        if self.tls.is_none() {
            return Ok(self.socket.send(bytes).await?);
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // rustls takes as much as its buffer has room for.
            let Some(tls) = &mut self.tls else { return Ok(()) };
            let taken = tls.connection.writer().write(rest).map_err(|error| failed(&error))?;
            rest = rest.get(taken..).unwrap_or_default();
            self.flush().await?;
        }
        Ok(())
    }

    /// Receives into `buffer` from `filled` on. Returns the buffer and how many bytes were
    /// received: 0 is the end of the stream, or a full buffer.
    pub(super) async fn receive(
        &mut self,
        mut buffer: Vec<u8>,
        filled: usize,
    ) -> Result<(Vec<u8>, usize), StreamError> {
        loop {
            let Some(tls) = &mut self.tls else {
                return Ok(self.socket.receive(buffer, filled).await?);
            };
            let room = buffer.get_mut(filled..).unwrap_or_default();
            if room.is_empty() {
                return Ok((buffer, 0));
            }
            match tls.connection.reader().read(room) {
                Ok(received) => return Ok((buffer, received)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Ok((buffer, 0)), // an end without an alert that says so
            }
            if !self.receive_records().await? {
                return Ok((buffer, 0));
            }
            self.flush().await?;
        }
    }

    /// Whether the handshake was completed; if not, the server has closed the connection.
    async fn handshake(&mut self) -> Result<bool, StreamError> {
        loop {
            self.flush().await?;
            if self.tls.as_ref().is_none_or(|tls| !tls.connection.is_handshaking()) {
                return Ok(true);
            }
            if !self.receive_records().await? {
                return Ok(false);
            }
        }
    }

    /// Sends what rustls has to send.
    async fn flush(&mut self) -> Result<(), StreamError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.connection.wants_write() {
            let mut records = Vec::new();
            tls.connection.write_tls(&mut records).map_err(|error| failed(&error))?;
            self.socket.send(records).await?;
        }
        Ok(())
    }

    /// Gives records to rustls, which it receives first if there are none. False: the stream has
    /// ended.
    async fn receive_records(&mut self) -> Result<bool, StreamError> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        if tls.read == tls.records.len() {
            let mut records = mem::take(&mut tls.records);
            records.resize(RECORDS, 0);
            let (mut records, received) = self.socket.receive(records, 0).await?;
            records.truncate(received);
            (tls.records, tls.read) = (records, 0);
        }
        let mut rest = tls.records.get(tls.read..).unwrap_or_default();
        let taken = tls.connection.read_tls(&mut rest).map_err(|error| failed(&error))?;
        tls.read += taken;
        tls.connection.process_new_packets()?;
        // 0: the end of the stream, or records after the alert that announces it.
        Ok(taken > 0)
    }
}

/// An error of rustls' buffers.
fn failed(error: &io::Error) -> StreamError {
    StreamError::Tls(rustls::Error::General(error.to_string()))
}

/// Why a handshake failed.
fn explain(error: &rustls::Error) -> String {
    use rustls::{CertificateError, InvalidMessage};
    let hint = match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            " (does the server speak TLS on this port?)"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            " (no root certificate of this machine has issued it)"
        }
        _ => "",
    };
    format!("TLS handshake: {error}{hint}")
}
