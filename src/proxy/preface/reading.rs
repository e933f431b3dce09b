//! Reads the preface from the client's socket. The bytes are looked at (`MSG_PEEK`); only those of
//! the PROXY header are taken away, so that the relay receives what follows.

use std::io;

use nix::errno::Errno;

use crate::proxy::io::PrefaceRead;
use crate::proxy::preface::header::ProxyHeader;
use crate::proxy::preface::origin::{Origin, Part};
use crate::proxy::preface::{Progress, header, hello};
use crate::proxy::sockets::SessionSockets;
use crate::shared::table::Frontend;
use crate::sys::address::ClientAddress;
use crate::terms::Refusal;

impl SessionSockets {
    /// Reads as much of the preface as has come. `room` is memory for its bytes, which is made when
    /// it is needed first.
    pub(in crate::proxy) fn read_preface(&mut self, room: &mut Vec<u8>) -> PrefaceRead {
        let Some(frontend) = self.frontend.clone() else { return PrefaceRead::ClientLeft };
        let mut origin = self.origin.take().unwrap_or_default();
        room.resize(hello::BYTES_MAX, 0);
        let read = self.read_parts(&frontend, &mut origin, room);
        self.origin = Some(origin);
        read
    }

    fn read_parts(
        &mut self,
        frontend: &Frontend,
        origin: &mut Origin,
        room: &mut [u8],
    ) -> PrefaceRead {
        while let Some(part) = origin.part {
            let Some(client) = &self.client else { return PrefaceRead::ClientLeft };
            let seen = match client.peek(room) {
                Ok(seen @ 1..) => seen,
                Err(Errno::EAGAIN | Errno::EINTR) => 0,
                Ok(0) | Err(_) => return PrefaceRead::ClientLeft,
            };
            let bytes = &mut room[..seen];
            let read = match part {
                Part::ProxyHeader => self.read_header(bytes, frontend, origin),
                Part::ClientHello => read_hello(bytes, frontend, origin),
            };
            match read {
                Ok(Read::All) => origin.seen = None,
                Ok(Read::Needs(needed)) => return self.wait(origin, seen, needed),
                Err(end) => return end,
            }
        }
        if let (Some(client), Some(_)) = (&self.client, origin.low_water.take()) {
            client.set_low_water(1);
        }
        let backend = frontend.backend_of(origin.hello.as_ref());
        PrefaceRead::Complete(backend.map(|one| (&*one.settings).into()).unwrap_or_default())
    }

    /// Reads the PROXY header, takes its bytes away, and checks the client that it names.
    fn read_header(
        &mut self,
        bytes: &mut [u8],
        frontend: &Frontend,
        origin: &mut Origin,
    ) -> Result<Read, PrefaceRead> {
        let (header, length) = match header::read(bytes) {
            Progress::Complete(header, length) => (header, length),
            Progress::Incomplete(needed) => return Ok(Read::Needs(needed)),
            Progress::Invalid => return Err(PrefaceRead::Invalid),
        };
        let client = self.client.as_ref().ok_or(PrefaceRead::ClientLeft)?;
        // Nobody knows any more whether to believe a peer that has left.
        if client.peer().is_err_and(|error| error.kind() == io::ErrorKind::NotConnected) {
            return Err(PrefaceRead::ClientLeft);
        }
        if client.receive(&mut bytes[..length]) != Ok(length) {
            return Err(PrefaceRead::Invalid);
        }
        if let Err(refusal) = self.follow_header(header, frontend, origin) {
            self.permit.cell().refused[refusal as usize].add(1);
            return Err(PrefaceRead::Refused);
        }
        origin.part = Part::after_header(frontend);
        Ok(Read::All)
    }

    /// Takes the addresses of a PROXY header for those of the connection, and checks the client.
    fn follow_header(
        &mut self,
        header: ProxyHeader,
        frontend: &Frontend,
        origin: &mut Origin,
    ) -> Result<(), Refusal> {
        if let Some((source, destination)) = header.addresses {
            self.address = Some(source.into());
            origin.destination = Some(destination);
        }
        origin.tlvs = header.tlvs;
        let client = self.client_address();
        self.permit.check_client(client.and_then(ClientAddress::ip), frontend)
    }

    /// Of this part, `seen` bytes have come and so many are `needed`.
    fn wait(&self, origin: &mut Origin, seen: usize, needed: usize) -> PrefaceRead {
        let Some(client) = &self.client else { return PrefaceRead::ClientLeft };
        if origin.seen.replace(seen) == Some(seen) {
            let has_left = client.has_left();
            return if has_left { PrefaceRead::ClientLeft } else { PrefaceRead::Unchanged };
        }
        if origin.low_water.unwrap_or(1) != needed {
            client.set_low_water(needed);
            origin.low_water = Some(needed);
        }
        PrefaceRead::Incomplete
    }
}

/// What is known of a part of the preface that may still become valid.
enum Read {
    /// It is complete.
    All,
    /// So many bytes are needed at least.
    Needs(usize),
}

fn read_hello(bytes: &[u8], frontend: &Frontend, origin: &mut Origin) -> Result<Read, PrefaceRead> {
    let routes = frontend.routes.as_ref();
    let is_routed = |name: &[u8]| routes.is_some_and(|routes| routes.has_protocol(name));
    match hello::read(bytes, is_routed) {
        Progress::Complete(hello, _) => {
            (origin.part, origin.hello) = (None, Some(hello));
            Ok(Read::All)
        }
        Progress::Incomplete(needed) => Ok(Read::Needs(needed)),
        Progress::Invalid => Err(PrefaceRead::Invalid),
    }
}
