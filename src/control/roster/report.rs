//! What the books say: to the prober, to the status page, to the metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, AdminState, Check};
use crate::control::roster::mint::since;
use crate::control::roster::{FrontendBook, Roster};
use crate::shared::snapshot::{FrontendStatus, ServerStatus};
use crate::terms::ServerId;

/// A server that wants to be probed.
#[derive(Debug)]
pub struct Probed<'a> {
    /// Whom.
    pub id: ServerId,
    /// Where it serves; `health.port` may say otherwise.
    pub address: SocketAddr,
    /// Its address as written, for the Host header.
    pub written: &'a Arc<str>,
    /// How.
    pub health: &'a config::Health,
    /// Whether it is up.
    pub up: bool,
}

/// How many servers there are, and how many of them are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strength {
    /// Up, whatever an operator says.
    pub up: usize,
    /// All.
    pub all: usize,
}

impl Roster {
    /// Who is to be probed.
    pub fn to_probe(&self) -> impl Iterator<Item = Probed<'_>> {
        let probing = self.backends.iter().filter(|book| book.config.health.check != Check::Off);
        probing.flat_map(|backend| {
            let health = &backend.config.health;
            let servers =
                backend.servers.iter().filter(|server| server.state() != AdminState::Maint);
            servers.flat_map(move |server| {
                server.members.iter().filter_map(move |member| {
                    let address = member.address?;
                    let (id, up) = (member.shared.id, member.is_up());
                    Some(Probed { id, address, written: &server.written, health, up })
                })
            })
        })
    }

    /// How many servers there are.
    #[must_use]
    pub fn strength(&self) -> Strength {
        let servers = self.backends.iter().flat_map(|book| &book.servers);
        let members = servers.flat_map(|server| &server.members);
        members.fold(Strength { up: 0, all: 0 }, |sum, member| Strength {
            up: sum.up + usize::from(member.is_up()),
            all: sum.all + 1,
        })
    }

    /// Frontends as reported: in the order of the file, then those that are gone and still have
    /// sessions.
    #[must_use]
    pub fn frontends(&self) -> Vec<FrontendStatus> {
        let status = |book: &FrontendBook, addresses| FrontendStatus {
            name: Arc::clone(&book.name),
            backend: book.config.backend.0.as_str().into(),
            addresses,
            shared: Arc::clone(&book.shared),
        };
        let bind = |book: &FrontendBook| book.config.bind.iter().map(|(at, _)| *at).collect();
        let present = self.frontends.iter().map(|book| status(book, bind(book)));
        present.chain(self.removed.iter().map(|book| status(book, Vec::new()))).collect()
    }

    /// Servers as reported.
    #[must_use]
    pub fn servers(&self, now: Instant) -> Vec<ServerStatus> {
        let present = self.backends.iter().flat_map(|backend| {
            let servers = backend.servers.iter();
            servers.flat_map(move |server| {
                server.members.iter().map(move |member| ServerStatus {
                    backend: Arc::clone(&backend.name),
                    address: member.address,
                    written: Arc::clone(&server.written),
                    up: member.is_up(),
                    admin: server.state(),
                    weight: server.weight(),
                    backup: server.config.backup,
                    removed: false,
                    since: since(member.since, now),
                    probes: Arc::clone(&member.probes),
                    last_probe: member.last_probe.clone(),
                    shared: Arc::clone(&member.shared),
                })
            })
        });
        present.chain(self.past.statuses(now)).collect()
    }
}
