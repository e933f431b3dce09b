//! The socket of an attempt to connect: the address that it comes from, and TCP Fast Open.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use crate::config::Sources;
use crate::proxy::io::First;
use crate::proxy::sockets::SessionSockets;
use crate::proxy::user_data::connect_failure;
use crate::sys::buffer::Buffers;
use crate::sys::socket::Socket;
use crate::terms::ConnectFailure;

/// Bytes that a SYN holds at most: an Ethernet frame without headers and TCP options.
const EARLY_MAX: usize = 1440;

impl SessionSockets {
    /// Binds `socket` to the address that its connection to `server` comes from.
    pub(super) fn bind_source(
        &self,
        socket: &Socket,
        server: SocketAddr,
        (sources, turn): (&Sources, usize),
    ) -> Result<(), ConnectFailure> {
        let bound = if sources.client().is_some() {
            let client = self.client_ip();
            let client = client.filter(|client| client.is_ipv4() == server.is_ipv4());
            let client = client.ok_or(ConnectFailure::NoSource)?;
            let mut any_port = client;
            any_port.set_port(0);
            // A connection with both ends may exist already: the next attempt takes another port.
            let taken = self.failed == Some(ConnectFailure::NoPort);
            match socket.bind_as_client(if taken { any_port } else { client }) {
                // EACCES: a port below 1024, for which a capability was dropped.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                    ) =>
                {
                    socket.bind_as_client(any_port)
                }
                bound => bound,
            }
        } else {
            let source = sources.of_turn(server, turn).ok_or(ConnectFailure::NoSource)?;
            socket.bind_to(source)
        };
        bound.map_err(|error| match errno(&error) {
            Errno::ENOMEM | Errno::ENOBUFS => ConnectFailure::Exhausted,
            _ => ConnectFailure::NoSource,
        })
    }

    /// Starts a connect that sends the first bytes of the client with the SYN, if there are any,
    /// and if this kernel does that. How many it took; none: nothing was begun.
    pub(super) fn connect_early(
        &self,
        socket: &Socket,
        server: SocketAddr,
        (first, buffers): (First<'_>, &Buffers),
    ) -> Result<Option<u32>, ConnectFailure> {
        let mut room = [0; EARLY_MAX];
        let bytes = match first {
            First::Held(buffer, length) => {
                let length = length.min(u32::try_from(EARLY_MAX).unwrap_or(u32::MAX));
                buffers.bytes(buffer, (0, length))
            }
            First::AtClient => {
                let peeked = self.client.as_ref().and_then(|client| client.peek(&mut room).ok());
                &room[..peeked.unwrap_or(0)]
            }
            First::Unknown => &[],
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        match socket.connect_with(server, bytes) {
            Ok(taken) => Ok(Some(u32::try_from(taken).unwrap_or(u32::MAX))),
            Err(error) => match errno(&error) {
                Errno::EOPNOTSUPP => Ok(None),
                errno => Err(connect_failure(errno)),
            },
        }
    }

    /// The outcome of a connect whose socket became writable.
    pub(super) fn connect_outcome(&self) -> Result<u32, Errno> {
        let error = self.server.as_ref().and_then(Socket::take_error);
        error.map_or(Ok(0), |error| Err(errno(&error)))
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
