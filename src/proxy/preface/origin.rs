//! What a session keeps of its preface, and of the PROXY header that its server gets.

use std::net::SocketAddr;

use crate::config::ProxyProtocol;
use crate::shared::proxy_header::ProxyTlvs;
use crate::shared::routes::ClientHello;
use crate::shared::table::Frontend;

/// What a session knows of its client besides the connection.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Origin {
    /// The part of the preface that is read next.
    pub(super) part: Option<Part>,
    /// Bytes of that part that had come at the last look.
    pub(super) seen: Option<usize>,
    /// `SO_RCVLOWAT` of the client's socket, unless it is the default.
    pub(super) low_water: Option<usize>,
    /// The address that the client connected to, as its PROXY header says.
    pub(in crate::proxy) destination: Option<SocketAddr>,
    /// Of its PROXY header.
    pub(in crate::proxy) tlvs: ProxyTlvs,
    /// What its `ClientHello` says, if that was read.
    pub(in crate::proxy) hello: Option<ClientHello>,
    /// Of the PROXY header for the server, what is not sent yet.
    pub(in crate::proxy) unsent: Vec<u8>,
}

/// A part of a preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    ProxyHeader,
    ClientHello,
}

impl Origin {
    /// Of a new client; none if nothing is to be known.
    pub(in crate::proxy) fn new(frontend: &Frontend) -> Option<Box<Self>> {
        let part = match frontend.settings.proxy_protocol {
            ProxyProtocol::Required => Some(Part::ProxyHeader),
            ProxyProtocol::Off => Part::after_header(frontend),
        };
        part.map(|part| Box::new(Self { part: Some(part), ..Self::default() }))
    }
}

impl Part {
    /// What is read after the PROXY header, or without one.
    pub(super) fn after_header(frontend: &Frontend) -> Option<Self> {
        frontend.routes.is_some().then_some(Self::ClientHello)
    }
}
