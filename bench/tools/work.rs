//! The kinds of work. `bench/README.md` says which question each answers.

use std::io;

use crate::exchange::Exchange;
use crate::subject::{DIRECT, EVENKEEL_OPEN, HAPROXY, HAPROXY_NULL, HAPROXY_SPLICE_512K, Subject};

/// What a generator does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// What each does over and over; `last` means a new connection for each exchange.
    pub(crate) exchange: Exchange,
    /// Sent before each request, and skipped by the responder: a `ClientHello`.
    pub(crate) hello: &'static [u8],
}

/// A new connection acknowledges what it receives at once, up to this many segments
/// (`TCP_MAX_QUICKACKS`); later an acknowledgement waits for the next bytes.
const QUICKACKS: f64 = 16.0;

/// Bytes of a segment on an Ethernet.
const SEGMENT: f64 = 1448.0;

impl Load {
    /// Exchanges of all connections until they acknowledge as they will from then on.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn warm_up(&self) -> f64 {
        let segments = (self.exchange.bytes() as f64 / SEGMENT).ceil();
        let each = if self.exchange.last { 1.0 } else { (QUICKACKS / segments).max(1.0) };
        each * self.connections as f64
    }
}

/// How a kind of work is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    /// Exchanges a second of a closed loop.
    Throughput(Load),
    /// The same beside as many idle sessions as possible.
    Beside(Load),
    /// Latencies of the first load beside the second.
    Mixed(Load, Load),
    /// Latencies of an open loop at shares of HAProxy's limit.
    Latency(Load),
    /// Memory of idle sessions.
    Idle,
    /// Two workers on two cores.
    Two(Load),
    /// What grows with numbers.
    Growth,
    /// CPU time of a health probe.
    Probes,
    /// CPU time of a scrape.
    Scrapes,
    /// Latencies beside silent clients, resets, slow readers, scrapes and probes.
    Neighbours,
    /// A connection with what a balancer may do for it.
    Features,
    /// A board's network: small segments, over veth.
    Pi,
    /// Generator, balancer and servers in network namespaces, on two cores.
    Veth(Load),
}

impl Method {
    /// Whether a turn starts at once, because the subjects are running already.
    pub(crate) const fn starts_at_once(self) -> bool {
        match self {
            Self::Throughput(_)
            | Self::Mixed(..)
            | Self::Latency(_)
            | Self::Two(_)
            | Self::Veth(_) => true,
            // `Pi` has idle time, which the kernel counts in hundredths of a second.
            Self::Beside(_) | Self::Idle | Self::Growth | Self::Features | Self::Pi => false,
            // A subject is started for each turn.
            Self::Probes | Self::Scrapes | Self::Neighbours => false,
        }
    }
}

/// One or more rows of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// As on the command line and in the JSON file.
    pub(crate) name: &'static str,
    /// As in the tables.
    pub(crate) title: &'static str,
    pub(crate) method: Method,
    /// Whether `--quick` includes it.
    pub(crate) quick: bool,
}

impl Kind {
    /// Whether this kind of work measures a subject.
    pub(crate) fn measures(&self, subject: Subject) -> bool {
        let Subject { name, batch, .. } = subject;
        // A scheduling policy matters to latencies, larger pipes to bulk, and system calls that are
        // not filtered to what makes many of them.
        let is_special = [HAPROXY_SPLICE_512K, EVENKEEL_OPEN].contains(&name);
        let usual = !batch && !is_special;
        let few = usual && (name == DIRECT || name == HAPROXY || subject.is_evenkeel());
        match self.method {
            Method::Latency(_) | Method::Mixed(..) => !is_special,
            Method::Veth(_) | Method::Features => few || name == HAPROXY_NULL,
            Method::Growth | Method::Neighbours => few,
            Method::Probes => (few || name == HAPROXY_NULL) && name != DIRECT,
            Method::Scrapes => few && name != DIRECT,
            Method::Two(_) => usual && subject.has_workers() && !subject.is_tuned(),
            // The tuned forms of HAProxy allocate more only while bytes are transferred.
            Method::Idle => usual && !subject.is_tuned() && name != HAPROXY_NULL,
            Method::Throughput(load) => {
                let is_bulk = load.exchange.bytes() > 1 << 20;
                usual
                    || (is_bulk && name == HAPROXY_SPLICE_512K)
                    || (!is_bulk && name == EVENKEEL_OPEN)
            }
            Method::Pi => !batch && name != EVENKEEL_OPEN,
            Method::Beside(_) => usual,
        }
    }

    /// With this number of connections, if it is a closed loop; the name says so.
    pub(crate) fn with_connections(&self, number: Option<u16>) -> (Self, String, String) {
        let (mut kind, mut name, mut title) = (*self, self.name.to_owned(), self.title.to_owned());
        if let (Method::Throughput(load), Some(number)) = (&mut kind.method, number)
            && load.connections != usize::from(number)
        {
            load.connections = usize::from(number);
            name += &format!("-{number}");
            title += &format!(": {number} connections");
        }
        (kind, name, title)
    }
}

/// A load of exchanges of these sizes.
pub(crate) const fn load(connections: usize, up: u32, down: u32, last: bool) -> Load {
    Load { connections, exchange: Exchange { up, down, last }, hello: &[] }
}

/// 128 bytes, a header of 12 and a body of 116, and 128 back.
pub(crate) const fn small(connections: usize) -> Load {
    load(connections, 116, 128, false)
}

/// The same, with a new connection for each exchange.
pub(crate) const fn connections(connections: usize) -> Load {
    load(connections, 116, 128, true)
}

const fn quick(name: &'static str, title: &'static str, method: Method) -> Kind {
    Kind { name, title, method, quick: true }
}

const fn full(name: &'static str, title: &'static str, method: Method) -> Kind {
    Kind { name, title, method, quick: false }
}

const DOWN: Load = load(16, 116, 1 << 20, false);
const UP: Load = load(16, 1 << 20, 128, false);
const MIXED: Method = Method::Mixed(small(60), load(4, 116, 1 << 20, false));

/// All of them.
pub(crate) const KINDS: &[Kind] = &[
    quick("keepalive", "keep-alive, 128 B, 64 connections", Method::Throughput(small(64))),
    quick(
        "connection",
        "a connection for each request, 64 at a time",
        Method::Throughput(connections(64)),
    ),
    quick("bulk", "1 MiB bodies down, 16 connections", Method::Throughput(DOWN)),
    quick("upload", "1 MiB bodies up, 16 connections", Method::Throughput(UP)),
    quick("idle", "memory of an idle session", Method::Idle),
    quick("mixed", "60 small keep-alive beside 4 bulk", MIXED),
    full("latency", "open loop", Method::Latency(small(64))),
    full("beside", "keep-alive beside idle sessions", Method::Beside(small(64))),
    full("two", "keep-alive, two workers on two cores", Method::Two(small(64))),
    full("growth", "growth", Method::Growth),
    full("probes", "a probe", Method::Probes),
    full("scrape", "a scrape", Method::Scrapes),
    full("neighbours", "beside others", Method::Neighbours),
    full("features", "a connection with features", Method::Features),
    full("pi", "MTU 1500, a quarter of a core", Method::Pi),
    full("veth", "veth pairs, two cores", Method::Veth(small(64))),
];

/// The kinds of these names; without names all, or those of `--quick`.
pub(crate) fn find(names: &[String], quick: bool) -> io::Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(KINDS.iter().copied().filter(|kind| kind.quick || !quick).collect());
    }
    let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let find_one = |name: &String| {
        KINDS.iter().find(|kind| kind.name == name).copied().ok_or_else(|| {
            io::Error::other(format!("unknown kind of work {name}; there are: {}", known()))
        })
    };
    names.iter().map(find_one).collect()
}
