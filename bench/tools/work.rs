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

/// A young connection acknowledges what it receives at once, up to so many segments
/// (`TCP_MAX_QUICKACKS`), and then as it goes on: with the next bytes, if those do not wait long.
const SEGMENTS_OF_YOUTH: f64 = 16.0;

/// Bytes of a segment on a usual network.
const SEGMENT: f64 = 1448.0;

impl Load {
    /// Exchanges of all connections together until these are as they stay.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn warm_up(&self) -> f64 {
        let segments = (self.exchange.bytes() as f64 / SEGMENT).ceil();
        let each = if self.exchange.last { 1.0 } else { (SEGMENTS_OF_YOUTH / segments).max(1.0) };
        each * self.connections as f64
    }
}

/// How a kind of work is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Exchanges a second of a closed loop.
    Throughput(Load),
    /// The same beside as many idle sessions as fit.
    Beside(Load),
    /// The first load's latencies beside the second.
    Mixed(Load, Load),
    /// Latencies of an open loop at these shares of HAProxy's limit.
    Latency(Load, &'static [u32]),
    /// Memory of idle sessions.
    Idle,
    /// Two workers on two cores.
    Two(Load),
    /// What becomes dearer with the number of connections, servers, frontends.
    Growth,
    /// A board's network: small segments, over veth.
    Pi,
}

impl Way {
    /// Whether a turn takes little more than its window, as the subjects are running already.
    pub(crate) const fn begins_at_once(self) -> bool {
        match self {
            Self::Throughput(_) | Self::Mixed(..) | Self::Latency(..) | Self::Two(_) => true,
            // Idle time is known in hundredths of a second: short turns would not do for `Pi`.
            Self::Beside(_) | Self::Idle | Self::Growth | Self::Pi => false,
        }
    }
}

/// A row of the table, or some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// As on the command line and in the JSON file.
    pub(crate) name: &'static str,
    /// As in the table.
    pub(crate) title: &'static str,
    pub(crate) way: Way,
    /// Whether `--quick` has it without being asked.
    pub(crate) quick: bool,
    /// What `--check` demands of evenkeel: times plain HAProxy, or bytes a session at most.
    pub(crate) target: Option<f64>,
}

impl Kind {
    /// With this number of connections, where it is one of throughput and a number is given.
    pub(crate) fn with_connections(&self, number: Option<u16>) -> Self {
        let mut kind = *self;
        if let (Way::Throughput(load), Some(number)) = (&mut kind.way, number) {
            load.connections = usize::from(number);
            if kind.is_unusual() {
                kind.target = None;
            }
        }
        kind
    }

    /// Whether its connections are not those of its title.
    pub(crate) fn is_unusual(&self) -> bool {
        let usual = KINDS.iter().find(|kind| kind.name == self.name);
        matches!((self.way, usual.map(|kind| kind.way)),
            (Way::Throughput(own), Some(Way::Throughput(usual)))
                if own.connections != usual.connections)
    }
}

/// Exchanges of these sizes.
pub(crate) const fn load(connections: usize, up: u32, down: u32, last: bool) -> Load {
    Load { connections, exchange: Exchange { up, down, last } }
}

/// 128 bytes, a header of 12 and a body of 116, and 128 back.
pub(crate) const fn small(connections: usize) -> Load {
    load(connections, 116, 128, false)
}

/// The same, each on a connection of its own.
pub(crate) const fn connections(connections: usize) -> Load {
    load(connections, 116, 128, true)
}

const fn throughput(
    name: &'static str,
    title: &'static str,
    load: Load,
    target: Option<f64>,
) -> Kind {
    Kind { name, title, way: Way::Throughput(load), quick: true, target }
}

/// All of them.
pub(crate) const KINDS: &[Kind] = &[
    throughput("keepalive", "keep-alive, 128 B, 64 connections", small(64), Some(1.15)),
    throughput("connection", "a connection a request, 64 at a time", connections(64), Some(1.10)),
    throughput(
        "bulk",
        "1 MiB bodies down, 16 connections",
        load(16, 116, 1 << 20, false),
        Some(1.4),
    ),
    throughput("upload", "1 MiB bodies up, 16 connections", load(16, 1 << 20, 128, false), None),
    Kind {
        name: "idle",
        title: "memory of an idle session",
        way: Way::Idle,
        quick: true,
        target: Some(1024.0),
    },
    Kind {
        name: "mixed",
        title: "60 small keep-alive beside 4 bulk",
        way: Way::Mixed(small(60), load(4, 116, 1 << 20, false)),
        quick: true,
        target: None,
    },
    Kind {
        name: "latency",
        title: "open loop, 128 B, 64 connections",
        way: Way::Latency(small(64), &[30, 60, 80]),
        quick: false,
        target: None,
    },
    Kind {
        name: "beside",
        title: "keep-alive beside idle sessions",
        way: Way::Beside(small(64)),
        quick: false,
        target: None,
    },
    Kind {
        name: "two",
        title: "keep-alive, two workers on two cores",
        way: Way::Two(small(64)),
        quick: false,
        target: None,
    },
    Kind { name: "growth", title: "growth", way: Way::Growth, quick: false, target: None },
    Kind {
        name: "pi",
        title: "MTU 1500, a quarter of a core",
        way: Way::Pi,
        quick: false,
        target: None,
    },
];

/// The kinds of these names; for none all, or those that are quick.
///
/// # Errors
/// A name that isn't one.
pub(crate) fn find(names: &[String], quick: bool) -> io::Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(KINDS.iter().copied().filter(|kind| kind.quick || !quick).collect());
    }
    let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let find_one = |name: &String| {
        KINDS.iter().find(|kind| kind.name == name).copied().ok_or_else(|| {
            io::Error::other(format!("no kind of work is called {name}; there are: {}", known()))
        })
    };
    names.iter().map(find_one).collect()
}
