//! A balancer with a frontend for each group of settings, the listening servers behind it, and the
//! check that nothing is left of a scenario.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use evenkeel::observe::admin;
use serde_json::Value;
use socket2::SockRef;

use crate::common::metrics::Metrics;
use crate::common::process::Descriptors;
use crate::common::wait::pause;
use crate::common::{Balancer, Server, TestEnv, http};
use crate::peer::SMALL;
use crate::proxy::{Proxy, Trouble};

/// The timeout that a scenario of a frontend named `..-brief` waits for.
pub(crate) const BRIEF: Duration = Duration::from_millis(500);

/// The names of the frontends, and what is special about each. All other timeouts are so long that
/// a scenario that meets one has failed.
const GROUPS: &[Group] = &[
    Group { name: "plain", frontend: "", backend: "", server: "", at: At::Server },
    Group { name: "plain-brief", frontend: IDLE, backend: "", server: "", at: At::Server },
    Group { name: "half-brief", frontend: HALF, backend: "", server: "", at: At::Server },
    Group { name: "late", frontend: "", backend: "", server: "", at: At::LateServer },
    Group { name: "late-brief", frontend: HALF, backend: "", server: "", at: At::LateServer },
    Group { name: "full", frontend: FULL, backend: "", server: "", at: At::Server },
    Group { name: "full-brief", frontend: FULL_IDLE, backend: "", server: "", at: At::Server },
    Group { name: "preface", frontend: HEADER, backend: "", server: "", at: At::Server },
    Group { name: "preface-brief", frontend: HEADER_IDLE, backend: "", server: "", at: At::Server },
    Group { name: "queue", frontend: "", backend: "", server: ONE, at: At::Server },
    Group { name: "queue-brief", frontend: "", backend: WAIT, server: ONE, at: At::Server },
    Group { name: "connect", frontend: "", backend: "", server: "", at: At::Hole },
    Group { name: "connect-brief", frontend: "", backend: CONNECT, server: "", at: At::Hole },
    Group { name: "reached-brief", frontend: "", backend: CONNECT, server: "", at: At::Server },
    Group { name: "refused", frontend: "", backend: "", server: "", at: At::Nothing },
    Group { name: "slices", frontend: "", backend: "", server: "", at: SLICES },
    Group { name: "latency", frontend: "", backend: "", server: "", at: LATENCY },
    Group { name: "ended-at-once", frontend: "", backend: "", server: "", at: END_AT_ONCE },
    Group { name: "ended", frontend: "", backend: "", server: "", at: END },
    Group { name: "reset", frontend: "", backend: "", server: "", at: RESET },
];

const IDLE: &str = "idle_timeout = \"500ms\"";
const HALF: &str = "half_closed_timeout = \"500ms\"";
const FULL: &str = "sessions_max = 1";
const FULL_IDLE: &str = "sessions_max = 1\nidle_timeout = \"500ms\"";
const HEADER: &str = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n\
                      preface_timeout = \"60s\"";
const HEADER_IDLE: &str = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n\
                           preface_timeout = \"500ms\"\nidle_timeout = \"500ms\"";
const WAIT: &str = "queue_timeout = \"500ms\"";
const CONNECT: &str = "connect_timeout = \"500ms\"";
const ONE: &str = "sessions_max = 1";
const SLICES: At = At::Behind(Trouble::Slices);
const LATENCY: At = At::Behind(Trouble::Latency);
const END_AT_ONCE: At = At::Behind(Trouble::EndAfter(0));
const END: At = At::Behind(Trouble::EndAfter(1000));
const RESET: At = At::Behind(Trouble::ResetAfter(1000));

/// A frontend, its backend and its only server.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    frontend: &'static str,
    backend: &'static str,
    server: &'static str,
    pub(crate) at: At,
}

/// What is at the address of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Server,
    /// One whose kernel takes little that it has not read.
    LateServer,
    /// A black hole, which a scenario can turn into a server.
    Hole,
    /// No listening socket.
    Nothing,
    /// A server behind a bad network.
    Behind(Trouble),
}

impl Group {
    pub(crate) fn named(name: &str) -> Result<&'static Self, String> {
        GROUPS.iter().find(|group| group.name == name).ok_or_else(|| format!("no frontend {name}"))
    }

    fn index(&self) -> u16 {
        let place = GROUPS.iter().position(|group| group.name == self.name);
        place.and_then(|place| u16::try_from(place).ok()).unwrap_or(0)
    }

    pub(crate) fn is_brief(&self) -> bool {
        self.name.ends_with("-brief")
    }
}

/// The balancer and its servers.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) balancer: Balancer<'a>,
    servers: BTreeMap<&'static str, (Server, Receiver<TcpStream>)>,
    proxies: BTreeMap<&'static str, Proxy>,
    /// For everything that has to happen.
    pub(crate) deadline: Duration,
}

impl<'a> World<'a> {
    pub(crate) fn start(env: &'a TestEnv, deadline: Duration) -> Self {
        let (mut servers, mut proxies) = (BTreeMap::new(), BTreeMap::new());
        for group in GROUPS {
            let address = env.port(9000 + group.index());
            match group.at {
                At::Hole | At::Nothing => {}
                At::Server | At::LateServer => {
                    let late = group.at == At::LateServer;
                    servers.insert(group.name, handing_over(address, late));
                }
                At::Behind(trouble) => {
                    let behind = env.port(9500 + group.index());
                    servers.insert(group.name, handing_over(behind, false));
                    proxies.insert(group.name, Proxy::start(address, behind, trouble));
                }
            }
        }
        let balancer = Balancer::start_text(env, &config(env, 100));
        Self { balancer, servers, proxies, deadline }
    }

    pub(crate) fn frontend(&self, group: &Group) -> SocketAddr {
        self.balancer.env.port(8000 + group.index())
    }

    /// The address that the balancer connects to.
    pub(crate) fn server(&self, group: &Group) -> SocketAddr {
        self.balancer.env.port(9000 + group.index())
    }

    /// The connections that the server of this group accepts.
    pub(crate) fn accepted(&self, group: &Group) -> Option<&Receiver<TcpStream>> {
        self.servers.get(group.name).map(|(_, connections)| connections)
    }

    /// How often the bad network of this group has acted; none: it has no such network.
    pub(crate) fn troubles(&self, group: &Group) -> Option<u64> {
        self.proxies.get(group.name).map(Proxy::acted)
    }

    /// Replaces the file by one with this weight of every server.
    pub(crate) fn reload(&self, weight: u32) -> Result<(), String> {
        self.balancer.rewrite(&config(self.balancer.env, weight));
        let output = self.balancer.control(&["reload"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    }

    /// Open sessions, as `evenkeel sessions --json` shows them.
    pub(crate) fn sessions(&self) -> Result<Vec<Value>, String> {
        let json = admin::sessions(&self.balancer.env.file("control.sock"), true)?;
        serde_json::from_str(&json).map_err(|error| error.to_string())
    }

    pub(crate) fn metrics(&self) -> Result<Metrics, String> {
        let (status, text) =
            http::get(self.balancer.env.observe(), "/metrics").map_err(|why| why.to_string())?;
        if status == 200 { Ok(Metrics::parse(&text)) } else { Err(format!("/metrics: {status}")) }
    }

    /// Waits until `attempt` succeeds; at the deadline, its last error.
    pub(crate) fn wait<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, String>,
    ) -> Result<T, String> {
        let end = Instant::now() + self.deadline;
        loop {
            match attempt() {
                Err(why) if Instant::now() > end => {
                    return Err(format!("not within {:?}: {why}", self.deadline));
                }
                Err(_) => pause(Duration::from_millis(10)),
                done => return done,
            }
        }
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.balancer.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// Waits until every gauge is zero and every descriptor is back, and returns the counters.
    pub(crate) fn quiet(&self) -> Result<Metrics, String> {
        self.wait(|| {
            // Of clients that left while they were being connected.
            for (_, connections) in self.servers.values() {
                while connections.try_recv().is_ok() {}
            }
            let metrics = self.metrics()?;
            for gauge in GAUGES {
                let value = metrics.sum(gauge, &[]);
                if !metrics.has(gauge, &[]) || value != 0.0 {
                    return Err(format!("{gauge} is {value}"));
                }
            }
            let opened = metrics.sum("evenkeel_sessions_total", &[]);
            let closed = metrics.sum("evenkeel_sessions_closed_total", &[]);
            if (opened - closed).abs() > 0.5 {
                return Err(format!("{opened} sessions opened, {closed} closed"));
            }
            let (base, now) = (self.balancer.base, Descriptors::of(self.balancer.pid()));
            let kept = now.pipes.saturating_sub(base.pipes);
            if (now.sockets, now.others) != (base.sockets, base.others) || kept > PIPES_MAX {
                return Err(format!("descriptors: {base:?} at the start, now {now:?}"));
            }
            Ok(metrics)
        })
    }

    /// `evenkeel drain|maint|ready` for the server of this group.
    pub(crate) fn order(&self, order: &str, group: &Group) -> Result<(), String> {
        let output = self.balancer.control(&[order, &format!("{}/a", group.name)]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    }
}

/// Pipes that two workers keep at most: 64 each, with two descriptors each.
const PIPES_MAX: usize = 2 * 2 * 64;

/// What is zero if no session is open.
const GAUGES: [&str; 5] = [
    "evenkeel_sessions_active",
    "evenkeel_server_sessions_active",
    "evenkeel_queue_sessions",
    "evenkeel_buffers_in_use",
    "evenkeel_pipes_in_use",
];

/// A server that hands each connection over to the scenario.
fn handing_over(address: SocketAddr, late: bool) -> (Server, Receiver<TcpStream>) {
    let listener = TcpListener::bind(address).unwrap();
    if late {
        // Before the handshake, so that the peer limits its segments to a part of the window.
        SockRef::from(&listener).set_recv_buffer_size(SMALL).unwrap();
    }
    let (sender, connections) = mpsc::channel();
    (Server::with(listener, move |stream| drop(sender.send(stream))), connections)
}

fn config(env: &TestEnv, weight: u32) -> String {
    let mut text = format!(
        "[global]\nworkers = 2\ndrain_timeout = \"60s\"\n[observe]\nbind = \"{}\"\n\
         control = \"{}\"\n",
        env.observe(),
        env.file("control.sock").display()
    );
    for group in GROUPS {
        let Group { name, frontend, backend, server, .. } = group;
        let (bind, address) = (env.port(8000 + group.index()), env.port(9000 + group.index()));
        // Writing to a String cannot fail.
        write!(
            text,
            "[frontend.{name}]\nbind = [\"{bind}\"]\nbackend = \"{name}\"\n{}{}{frontend}\n\
             [backend.{name}]\nretries = 0\n{}{}{backend}\n\
             [backend.{name}.health]\ncheck = \"off\"\n\
             [[backend.{name}.server]]\nname = \"a\"\naddress = \"{address}\"\n\
             weight = {weight}\n{server}\n",
            unless(frontend, "idle_timeout", "60s"),
            unless(frontend, "half_closed_timeout", "60s"),
            unless(backend, "connect_timeout", "60s"),
            unless(backend, "queue_timeout", "60s"),
        )
        .unwrap();
    }
    text
}

/// A long timeout, unless the group sets another one.
fn unless(lines: &str, key: &str, value: &str) -> String {
    if lines.contains(key) { String::new() } else { format!("{key} = \"{value}\"\n") }
}
