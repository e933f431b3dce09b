//! The kinds of work. A new one is a line here; one sentence on it stands in bench/README.md.

use std::io;

use crate::exchange::Exchange;

/// What a generator does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// What each does, over and over; `last` means a new connection for each.
    pub(crate) exchange: Exchange,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// As on the command line and in the JSON file.
    pub(crate) name: &'static str,
    /// As in the table.
    pub(crate) title: &'static str,
    /// What is driven; none: memory of idle sessions.
    pub(crate) load: Option<Load>,
    /// Subjects that only this row is interested in.
    pub(crate) with_splice: bool,
    /// What `--check` demands of evenkeel: times plain HAProxy, or bytes a session at most.
    pub(crate) target: f64,
}

const fn load(connections: usize, up: u32, down: u32, last: bool) -> Option<Load> {
    Some(Load { connections, exchange: Exchange { up, down, last } })
}

/// All of them. A request of 128 bytes is a header of 12 and a body of 116.
pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "keepalive",
        title: "keep-alive, 128 B, 64 connections",
        load: load(64, 116, 128, false),
        with_splice: false,
        target: 1.15,
    },
    Kind {
        name: "connection",
        title: "a connection a request, 64 at a time",
        load: load(64, 116, 128, true),
        with_splice: false,
        target: 1.10,
    },
    Kind {
        name: "bulk",
        title: "1 MiB bodies, 16 connections",
        load: load(16, 116, 1 << 20, false),
        with_splice: true,
        target: 1.4,
    },
    Kind {
        name: "idle",
        title: "memory of an idle session",
        load: None,
        with_splice: false,
        target: 1024.0,
    },
];

/// The kinds of these names; all for none.
///
/// # Errors
/// A name that isn't one.
pub(crate) fn find(names: &[String]) -> io::Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(KINDS.to_vec());
    }
    let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let find_one = |name: &String| {
        KINDS.iter().find(|kind| kind.name == name).copied().ok_or_else(|| {
            io::Error::other(format!("no kind of work is called {name}; there are: {}", known()))
        })
    };
    names.iter().map(find_one).collect()
}
