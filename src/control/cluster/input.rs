//! What the cluster state exchanges with the rest of the control plane: addresses from DNS,
//! listening sockets, endpoints to probe, results of probes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, ServerAddress, not_a_server};
use crate::control::health::ProbeTaskId;
use crate::shared::proxy_header::ProxyVersion;
use crate::shared::snapshot::ProbeResult;
use crate::shared::table::Listener;
use crate::sys::address::Address;

/// Addresses of one host name that are used: each is an endpoint, which is probed.
pub const ADDRESSES_MAX: usize = 1024;

/// Addresses by host name, from DNS. A name without an answer is not in it.
pub type Answers = BTreeMap<String, Vec<HostAddress>>;

/// An address of a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// The index of the interface that a link-local IPv6 address is reached through; or else 0.
    pub zone: u32,
}

impl HostAddress {
    /// With a port.
    #[must_use]
    pub fn at(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(_) => SocketAddr::new(self.ip, port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.zone).into(),
        }
    }
}

impl From<IpAddr> for HostAddress {
    fn from(ip: IpAddr) -> Self {
        Self { ip, zone: 0 }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            0 => self.ip.fmt(out),
            zone => write!(out, "{}%{zone}", self.ip),
        }
    }
}

/// The addresses of a server by its host name; none: it has no host name, or DNS has not answered.
pub(super) fn answered(
    address: &ServerAddress,
    answers: &Answers,
) -> impl Iterator<Item = Address> {
    let found = match address {
        ServerAddress::Ip(_) | ServerAddress::Unix(_) => None,
        ServerAddress::Name { host, port } => answers.get(host).map(|found| (found, *port)),
    };
    let found = found.into_iter();
    found.flat_map(|(found, port)| found.iter().map(move |address| address.at(port).into()))
}

/// Addresses that a server can have, and the others, each with what it is.
pub(super) fn usable(addresses: &[HostAddress]) -> (Vec<HostAddress>, Vec<(IpAddr, &'static str)>) {
    let (mut usable, mut others) = (Vec::new(), Vec::new());
    for address in addresses {
        match not_a_server(address.ip) {
            None => usable.push(*address),
            Some(what) => others.push((address.ip, what)),
        }
    }
    (usable, others)
}

/// Listening sockets by address.
pub type Bound = BTreeMap<Address, Arc<Listener>>;

/// An endpoint to probe.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeTarget {
    /// The task that probes it. The address and the check of a task never change.
    pub task: ProbeTaskId,
    /// The address; `health.port` replaces the port.
    pub address: Address,
    /// The Host header, unless `health.http.host` is set.
    pub host_header: Arc<str>,
    /// The host name of its server; none: an IP address.
    pub host: Option<Arc<str>>,
    /// How to probe it: the same value for all endpoints of a backend.
    pub check: Arc<ProbeCheck>,
    /// Whether it is up: `interval` or `interval_down`.
    pub up: bool,
}

/// How the endpoints of a backend are probed.
#[derive(Debug, Default)]
pub struct ProbeCheck {
    /// As configured.
    pub health: config::Health,
    /// The PROXY header that a probe begins with.
    pub proxy: Option<ProxyVersion>,
    /// The addresses to probe from, as sessions use them.
    pub source: config::Sources,
}

impl PartialEq for ProbeCheck {
    fn eq(&self, other: &Self) -> bool {
        let Self { health, proxy, source } = self;
        // Of thousands of endpoints with one value, few comparisons look at what is in it.
        std::ptr::eq(self, other)
            || (*health == other.health && *proxy == other.proxy && *source == other.source)
    }
}

impl ProbeCheck {
    /// Of a backend.
    #[must_use]
    pub fn of(backend: &config::BackendSettings) -> Self {
        let (health, source) = (backend.health.clone(), backend.source.clone());
        let proxy = ProxyVersion::of(backend.send_proxy).filter(|_| health.send_proxy);
        Self { health, proxy, source }
    }
}

/// The result of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// The task that made it.
    pub task: ProbeTaskId,
    /// For the metrics.
    pub result: ProbeResult,
    /// For the operator: "connection refused", "status 503, wanted 200-399".
    pub detail: Cow<'static, str>,
    /// From connect to answer.
    pub duration: Duration,
    /// Whether the endpoint passed. None: the probe failed because this machine had no descriptor,
    /// memory or port, which says nothing about the endpoint.
    pub verdict: Option<bool>,
}
