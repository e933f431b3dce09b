//! The keys of a backend and of its servers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::ServerAddress;
use super::declare::{Setting, section};
use super::enums::{AdminState, AllDown, Backups, Balance, OnDown, SendProxy};
use super::health_settings::Health;
use super::kinds::{Key, Kind, NAME, Presence, SERVER, SRV, Section, Table, Value};
use super::problems::Span;
use super::ranges::{KEEPALIVE, SESSIONS, TIMEOUT};
use super::sources::Sources;

/// As many as sessions.
const QUEUE: Kind = Kind::Number(0, 10_000_000);
/// Each attempt may take `connect_timeout`: 100 of them take five minutes.
const RETRIES: Kind = Kind::Number(0, 100);
/// A server that needs more than an hour to warm up is not up.
const SLOW_START: Kind = Kind::Time(Duration::from_secs(1), Duration::from_secs(60 * 60));

section! {
    /// A backend: a group of servers. There may be several.
    "backend.NAME" => BackendSettings {
        /// How a server is chosen. "roundrobin": in turn, by weight; "leastconn": the one with the
        /// fewest sessions in proportion to its weight; "random": the one with fewer sessions of
        /// two that are drawn by weight; "source": by the client's address: if a server comes or
        /// goes, nearly all clients of the others keep theirs (consistent hashing, similar to
        /// Maglev; clients of a unix socket have no address, and are distributed in turn); "first":
        /// the first one in the file that is below its `sessions_max`.
        balance: Balance = Default(Kind::Words(Balance::WORDS), r#""roundrobin""#);
        /// Timeout of one attempt to connect to a server.
        connect_timeout: Duration = Default(TIMEOUT, r#""3s""#);
        /// Attempts to connect after a failed one, each to another server if there is one. If a
        /// server resets a connection while the first bytes of the client wait to be sent to it,
        /// that is a failed attempt too; any other reset ends the session (`server_reset`).
        retries: u32 = Default(RETRIES, "2");
        /// How long a session waits while every server is at its `sessions_max`.
        queue_timeout: Duration = Default(TIMEOUT, r#""3s""#);
        /// Sessions that may wait, first come first served over all workers. Further ones are reset
        /// at once; 0: none waits.
        queue_max: u32 = Default(QUEUE, "1024");
        /// What happens if all servers are down: "refuse" resets client connections, "try" uses all
        /// servers as if they were up.
        all_down: AllDown = Default(Kind::Words(AllDown::WORDS), r#""refuse""#);
        /// What happens to the sessions of a server that goes down: "keep", or "close", which
        /// resets both sides.
        on_down: OnDown = Default(Kind::Words(OnDown::WORDS), r#""keep""#);
        /// The weight of a server grows from a twentieth to its full value over this time after it
        /// came up. Not set: it has its full weight at once.
        slow_start: Option<Duration> = Optional(SLOW_START, r#""30s""#);
        /// Which backup servers are used if all others are down: "all", or the "first" one that is
        /// up.
        backups: Backups = Default(Kind::Words(Backups::WORDS), r#""all""#);
        /// Addresses of this machine that connections to servers come from, in turn; each one has
        /// the ports of `net.ipv4.ip_local_port_range` for each server address. Probes use them
        /// too. "client": the address of the client, and its port if that is free; this needs
        /// `CAP_NET_ADMIN`, and routes as in docs/transparent.md (`IP_TRANSPARENT`). Probes then
        /// use an address of this machine. An empty array: the kernel chooses.
        source: Sources = Default(Kind::Sources, "[]");
        /// Send TCP keep-alive probes to a server that has been silent for this long, as
        /// `frontend.NAME.keepalive` does to a client; the session ends with `server_reset`. Not
        /// set: no probes.
        keepalive: Option<Duration> = Optional(KEEPALIVE, r#""60s""#);
        /// TCP Fast Open: if the first bytes of the client are there when a connect begins, send
        /// them with the SYN. (They are with `frontend.NAME.defer_accept` or `fast_open`.) A server
        /// may get these bytes twice (RFC 7413, 2.1), and after a failed connect another server
        /// gets them, too. Needs bit 1 of the sysctl `net.ipv4.tcp_fastopen`, which is set by
        /// default.
        fast_open: bool = Default(Kind::Flag, "false");
        /// Send servers a PROXY header of version "v1" or "v2" before the first byte of the client:
        /// it has the client's address and the address that the client connected to. Servers must
        /// expect it (nginx: `listen 80 proxy_protocol`). Set `health.send_proxy` too, unless
        /// probes go to a port that does not expect it.
        send_proxy: SendProxy = Default(Kind::Words(SendProxy::WORDS), r#""off""#);
        /// Health checks.
        health: Health = Default(Kind::Table(Health::SECTION), "");
        /// DNS SRV name whose records supply servers, in addition to those listed: target, port and
        /// weight. Records of the lowest priority are used; those of a higher one are backups, in
        /// the order of their priorities. A server is named after its record ("web-0.example:80").
        /// The name is asked again when its TTL ends; without an answer, the last one stays in use.
        srv: Option<String> = Optional(Kind::Text(&SRV), r#""_http._tcp.web.example""#);
        /// In the order of the file; empty only with `srv`.
        servers as "server": Vec<Server> = Required(Kind::Tables(Server::SECTION), "");
    }
    with |table| {
        /// NAME
        name: Arc<str> = table.name();
        /// Where it is in the file.
        span: Span = table.span();
    }
}

section! {
    /// A server. There may be several, each with a header line of its own.
    "backend.NAME.server" => Server {
        /// Its name, unique in its backend.
        name: String = Required(Kind::Text(&NAME), r#""web1""#);
        /// IP:PORT, HOST:PORT or "unix:PATH" (a unix socket). evenkeel resolves a host name again
        /// when the TTL of the answer ends, and soon after a failed connect or probe. It uses all
        /// of its addresses, up to 1,024. HOST.local is asked by multicast DNS. Without :PORT, a
        /// session connects to the port that its client connected to; then health checks need
        /// `health.port`, unless the frontends of the backend have only one port.
        address: ServerAddress = Required(Kind::Text(&SERVER), r#""192.0.2.1:80""#);
        /// Share of new sessions, relative to the weights of the other servers; 0: none.
        weight: u32 = Default(Kind::Number(0, 1000), "100");
        /// Maximum number of sessions of this server; at the limit, other servers get new sessions.
        /// If all are at their limit, new sessions wait in the queue. Not set: no limit.
        sessions_max: Option<NonZeroU32> = Optional(SESSIONS, "500");
        /// Use this server only if every server that is not a backup is down, in drain or maint.
        backup: bool = Default(Kind::Flag, "false");
        /// "ready", "drain" (no new sessions, existing ones continue) or "maint" (as drain, and not
        /// probed). `evenkeel ready`, `drain` and `maint` change it in a running balancer.
        state: AdminState = Default(Kind::Words(AdminState::WORDS), r#""ready""#);
    }
    with |table| {
        /// Where it is in the file.
        span: Span = table.span();
        /// For a server that an SRV record supplies: the place of its priority among those of the
        /// answer, 0 for the lowest. None: it is in the file.
        srv_rank: Option<u16> = None;
    }
}
