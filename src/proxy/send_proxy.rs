//! The PROXY header that a server gets before the first byte of the client (`send_proxy`).

use nix::errno::Errno;

use crate::proxy::sockets::{Nagle, SessionSockets};
use crate::shared::proxy_header::{self, ProxyTlvs, ProxyVersion};
use crate::shared::table::Backend;

impl SessionSockets {
    /// Sends the header, or the rest of it, to the server: whether all of it is sent. With `more`,
    /// it waits for the bytes that follow at once, and goes with them.
    pub(super) fn send_proxy_header(&mut self, more: bool) -> Result<bool, Errno> {
        let unsent = self.origin.as_mut().map(|origin| std::mem::take(&mut origin.unsent));
        let header = match unsent {
            Some(unsent) if !unsent.is_empty() => unsent,
            _ => self.header(),
        };
        let server = self.server.as_ref().ok_or(Errno::ENOTCONN)?;
        let sent = match server.send(&header, more) {
            Ok(sent) => sent as usize,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        if let Some(unsent) = header.get(sent..).filter(|unsent| !unsent.is_empty()) {
            self.origin.get_or_insert_default().unsent = unsent.to_vec();
            return Ok(false);
        }
        if !more && !self.server_is_unix {
            // The header is the first message, and the next one must not wait until the server has
            // acknowledged it.
            self.nagle = Nagle::DisableNow;
        }
        Ok(true)
    }

    /// The addresses of the client's own header, or those of its connection.
    fn header(&self) -> Vec<u8> {
        let version = |backend: &Backend| ProxyVersion::of(backend.settings.send_proxy);
        let Some(version) = self.backend().and_then(|backend| version(backend)) else {
            return Vec::new();
        };
        let origin = self.origin.as_deref();
        let destination = origin.and_then(|origin| origin.destination);
        let destination = destination.or_else(|| self.client.as_ref()?.local().ok());
        let none = ProxyTlvs::default();
        let tlvs = origin.map_or(&none, |origin| &origin.tlvs);
        proxy_header::header(version, self.client_ip(), destination, tlvs)
    }
}
