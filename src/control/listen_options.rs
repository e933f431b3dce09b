//! The options of listening sockets. A socket that a listener accepts inherits its keep-alive.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

use crate::config::FrontendSettings;
use crate::sys::socket_options::{KeepAlive, set_defer_accept, set_fast_open};

/// Connections with TCP Fast Open that wait for the end of their handshake. Each one may be a
/// session already, and its client may have sent a false address together with a stolen cookie.
const FAST_OPEN_QUEUE: u32 = 1024;

/// How long a listener waits for a first byte: the time of two retransmissions. A client whose
/// server speaks first waits as long, if it gets here by mistake.
const DEFER_ACCEPT: Duration = Duration::from_secs(3);

/// The options of the listening sockets of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenOptions {
    pub(super) backlog: i32,
    keepalive: Option<KeepAlive>,
    fast_open: bool,
    defer_accept: bool,
}

impl ListenOptions {
    pub(super) fn of(frontend: &FrontendSettings) -> Self {
        Self {
            backlog: i32::try_from(frontend.backlog).unwrap_or(i32::MAX),
            keepalive: frontend.keepalive.map(KeepAlive::after),
            fast_open: frontend.fast_open,
            defer_accept: frontend.defer_accept,
        }
    }

    /// Lets a new socket listen with these options.
    pub(super) fn listen(self, socket: &impl AsFd) -> io::Result<()> {
        if let Some(keepalive) = self.keepalive {
            keepalive.set(socket)?;
        }
        if self.fast_open {
            set_fast_open(socket, FAST_OPEN_QUEUE)?;
        }
        if self.defer_accept {
            set_defer_accept(socket, DEFER_ACCEPT)?;
        }
        SockRef::from(socket).listen(self.backlog)
    }

    /// Changes the options of a socket that listens. (listen(2) changes its backlog and nothing
    /// else.)
    pub(super) fn change(self, socket: &impl AsFd) -> io::Result<()> {
        SockRef::from(socket).listen(self.backlog)?;
        match self.keepalive {
            Some(keepalive) => keepalive.set(socket)?,
            None => KeepAlive::clear(socket)?,
        }
        set_fast_open(socket, if self.fast_open { FAST_OPEN_QUEUE } else { 0 })?;
        set_defer_accept(socket, if self.defer_accept { DEFER_ACCEPT } else { Duration::ZERO })
    }
}
