//! The preface of the client, which comes in pieces, and the PROXY header for the server.

use evenkeel::proxy::io::PrefaceRead;
use evenkeel::terms::Side;
use nix::errno::Errno;

use super::{Simulated, index};
use crate::fate::Planted;

impl Simulated {
    /// Looks at what the client has sent. It may end or be reset before the preface is complete.
    pub(super) fn look_at_preface(&mut self) -> PrefaceRead {
        assert!(self.armed.is_empty() && self.attempts == 0, "too late for a preface: {self:?}");
        let [header, hello] = self.fate.preface;
        let client = &mut self.peers[index(Side::Client)];
        assert_eq!(client.taken, 0, "the preface is read twice");
        let header = header.min(self.fate.client_says);
        let needed = (header + hello).min(self.fate.client_says);
        if client.said < needed || self.fate.preface_is_missing {
            let is_news = self.preface_seen.replace(client.said) != Some(client.said);
            let has_left = client.ended || client.reset;
            return match (is_news, has_left) {
                (true, false) => PrefaceRead::Incomplete,
                // Bytes hide what is behind them, at the first look.
                (true, true) if client.said > 0 => PrefaceRead::Incomplete,
                (_, true) => PrefaceRead::ClientLeft,
                (false, false) => PrefaceRead::Unchanged,
            };
        }
        if self.fate.preface_is_invalid {
            return PrefaceRead::Invalid;
        }
        if self.fate.planted != Some(Planted::HeaderIsRelayed) {
            client.taken = header;
        }
        client.header = header;
        if self.fate.client_is_refused {
            return PrefaceRead::Refused;
        }
        self.preface_seen = None;
        PrefaceRead::Complete(self.backend)
    }

    /// Whether the socket of a client whose preface is awaited is readable: sometimes it is though
    /// nothing has come.
    pub(super) fn preface_may_go_on(&mut self) -> bool {
        let client = self.peer(Side::Client);
        let is_news = Some(client.said) != self.preface_seen;
        is_news || client.ended || client.reset || self.random.one_in(16)
    }

    /// The server takes the PROXY header, or a part of it, or is gone.
    pub(super) fn send_header(&mut self) -> Result<bool, Errno> {
        let server = self.peer(Side::Server);
        assert!(self.sends_proxy && server.open, "no header is wanted: {self:?}");
        assert!(
            !server.has_proxy_header && server.got == 0,
            "the header is not the first: {self:?}"
        );
        if let Some(errno) = self.send_error(Side::Server) {
            return Err(errno);
        }
        if self.random.one_in(8) {
            return Ok(false);
        }
        let is_lost = self.is_planted(Planted::NoProxyHeader);
        self.peers[index(Side::Server)].has_proxy_header = !is_lost;
        Ok(true)
    }
}
