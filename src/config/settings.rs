//! The declaration of every configuration key, and the configuration as meant: checked, with every
//! default filled in.
//!
//! This is the one place that lists keys: the parser, the suggestion for a misspelled key, the
//! example file, the reference and the JSON schema come from it (`declare::section!`). A key of
//! `planned` becomes a key of this version when it moves up and gets its type.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::declare::{Setting, section};
use super::enums::{AdminState, AllDown, Backups, Balance, Check, LogFormat};
use super::kinds::{
    ACCOUNT, Alternative, BIND, HTTP_HOST, HTTP_METHOD, HTTP_PATH, Key, Kind, NAME, Planned,
    Presence, RATE, REFERENCE, SERVER, SOCKET_PATH, STATUS, Section, Table, Value,
};
use super::networks::Networks;
use super::problems::Span;
use super::values::{Rate, ServerAddress};

const MS: Duration = Duration::from_millis(1);
/// Timers count milliseconds, and those of HAProxy end at 2^31 ms (24.8 days).
const TIME_MAX: Duration = Duration::from_secs(24 * 24 * 60 * 60);
/// A timeout of 0 would end every session at once.
const TIMEOUT: Kind = Kind::Time(MS, TIME_MAX);
/// More than 100 probes a second are load, not a check.
const PROBE_INTERVAL: Kind = Kind::Time(Duration::from_millis(10), TIME_MAX);
/// A server that needs more than a minute for a probe is of no use to clients.
const PROBE_TIMEOUT: Kind = Kind::Time(MS, Duration::from_secs(60));
/// More threads than any machine for this has cores.
const WORKERS: Kind = Kind::Number(1, 256);
/// Two descriptors each; ten million are far beyond what one process can hold (`fs.nr_open`).
const SESSIONS: Kind = Kind::Number(1, 10_000_000);
/// Less holds hardly one buffer; more does not fit the number of a buffer.
const BUFFERS: Kind = Kind::Size(64 << 10, 1 << 30);
/// As many as sessions.
const QUEUE: Kind = Kind::Number(0, 10_000_000);
/// Each attempt may take `connect_timeout`: 100 of them take five minutes.
const RETRIES: Kind = Kind::Number(0, 100);
/// net.core.somaxconn, which limits it anyway, is hardly ever higher.
const BACKLOG: Kind = Kind::Number(1, 65_535);
/// A server that needs more than an hour to warm up is not up.
const SLOW_START: Kind = Kind::Time(Duration::from_secs(1), Duration::from_secs(60 * 60));
/// Consecutive probes: 100 of them take minutes.
const PROBES: Kind = Kind::Number(1, 100);

section! {
    /// The configuration of evenkeel. Durations carry a unit: "500ms", "30s", "5m", "1h", "1d"; so
    /// do sizes: "64KiB", "16MiB", "1GiB". `evenkeel check -c FILE` reports every problem of a
    /// file, and `evenkeel reload` applies a changed file to a running balancer.
    "" => Config {
        /// Of the process.
        global: Global = Default(Kind::Table(Global::SECTION), "");
        /// What operators see.
        observe: Observe = Default(Kind::Table(Observe::SECTION), "");
        /// In the order of the file; never empty.
        frontends as "frontend": Vec<Arc<FrontendSettings>> =
            Required(Kind::Named(FrontendSettings::SECTION), "");
        /// In the order of the file; the backend of each frontend is one of them.
        backends as "backend": Vec<Arc<BackendSettings>> =
            Default(Kind::Named(BackendSettings::SECTION), "");
    }
    with |_table| {
        /// The file; none: `run --bind --server`.
        file: Option<PathBuf> = None;
    }
}

section! {
    /// The process. A change needs a restart, except of `drain_timeout`.
    "global" => Global {
        /// Worker threads. "auto": one for each core that this process may use.
        workers: Option<NonZeroU32> = Default(Kind::Or(&WORKERS, Alternative::Auto), r#""auto""#);
        /// Pin worker n to the nth of those cores. If all cores receive packets (a network card
        /// with several queues, or RPS), each worker takes the connections that its core receives
        /// (kernel 6.2; no more workers than cores).
        pin: bool = Default(Kind::Flag, "false");
        /// Sessions over all frontends. "auto": what the limit of file descriptors allows. Beyond
        /// it, connections wait in the kernel's backlog.
        sessions_max: Option<(NonZeroU32, Span)> =
            Default(Kind::Or(&SESSIONS, Alternative::Auto), r#""auto""#);
        /// Memory of each worker for bytes in flight, in buffers and pipes: a hard limit. "auto":
        /// derived from `sessions_max`; all workers together take at most a quarter of the memory
        /// of the machine or of the cgroup.
        buffers: Option<u64> = Default(Kind::Or(&BUFFERS, Alternative::Auto), r#""auto""#);
        /// How long sessions may continue after SIGTERM; the rest is closed.
        drain_timeout: Duration = Default(Kind::Time(Duration::ZERO, TIME_MAX), r#""30s""#);
        /// User to switch to after binding, if started as root.
        user: Option<(String, Span)> = Optional(Kind::Text(&ACCOUNT), r#""evenkeel""#);
        /// Group to switch to. Not set: the group of `user`.
        group: Option<(String, Span)> = Optional(Kind::Text(&ACCOUNT), r#""evenkeel""#);
    }
    planned {
        /// How long SIGTERM accepts new clients while /readyz already answers 503.
        drain_delay = r#""0s""#;
        /// DNS servers to use instead of those of /etc/resolv.conf.
        resolver = "-";
    }
}

section! {
    /// Metrics, status page and control socket. A change needs a restart.
    "observe" => Observe {
        /// Address of /metrics, /healthz, /readyz and the status page; false turns them off.
        bind: Option<(SocketAddr, Span)> =
            Default(Kind::Or(&Kind::Text(&BIND), Alternative::False), r#""127.0.0.1:8404""#);
        /// Control socket of `evenkeel status`, `evenkeel drain` and so on, mode 0600; false turns
        /// it off. An absolute path: a relative one would depend on where each command is started.
        control: Option<(PathBuf, Span)> =
            Default(
                Kind::Or(&Kind::Text(&SOCKET_PATH), Alternative::False),
                r#""/run/evenkeel/control.sock""#
            );
        /// The logs.
        log: Log = Default(Kind::Table(Log::SECTION), "");
    }
}

section! {
    /// The application log (standard error) and the session log (standard output).
    "observe.log" => Log {
        /// Format of both logs.
        format: LogFormat = Default(Kind::Words(LogFormat::WORDS), r#""text""#);
        /// Write one record for each session.
        sessions: bool = Default(Kind::Flag, "true");
    }
    planned {
        /// Also log sessions without a byte, such as health checks of a balancer in front.
        empty = "true";
    }
}

section! {
    /// A frontend: where clients connect. There may be several.
    "frontend.NAME" => FrontendSettings {
        /// Addresses to listen on.
        bind: Vec<(SocketAddr, Span)> =
            Required(Kind::List(&Kind::Text(&BIND)), r#"["0.0.0.0:80", "[::]:80"]"#);
        /// The backend whose servers get its sessions.
        backend: (String, Span) = Required(Kind::Text(&REFERENCE), r#""web""#);
        /// Sessions of this frontend. Not set: `global.sessions_max` is the only limit.
        sessions_max: Option<NonZeroU32> = Optional(SESSIONS, "1000");
        /// Close a session after this long without a byte in either direction.
        idle_timeout: Duration = Default(TIMEOUT, r#""5m""#);
        /// Close a session if one direction has ended and the other is silent for this long.
        half_closed_timeout: Duration = Default(TIMEOUT, r#""30s""#);
        /// Networks that may connect: an array, or `{ file = "PATH" }` with one on each line, which
        /// is read again at each reload. Empty: all.
        allow: Networks = Default(Kind::Networks, "[]");
        /// Networks that may not connect; checked before `allow`.
        deny: Networks = Default(Kind::Networks, "[]");
        /// Rates of new sessions.
        rate: Rates = Default(Kind::Table(Rates::SECTION), "");
        /// Concurrent sessions of one client address (IPv6: of a network of 64 bits).
        clients_max: Option<NonZeroU32> = Optional(SESSIONS, "10");
        /// Backlog of listen(2), for each worker; net.core.somaxconn limits it.
        backlog: u32 = Default(BACKLOG, "4096");
    }
    with |table| {
        /// NAME
        name: Arc<str> = table.name();
        /// Where it is in the file.
        span: Span = table.span();
    }
    planned {
        /// Choose the backend by TLS server name (SNI), without decryption.
        sni = "{}";
        /// Choose the backend by ALPN protocol, after `sni`.
        alpn = "{}";
        /// Time for the PROXY header and the TLS ClientHello to be complete.
        preface_timeout = r#""3s""#;
        /// TCP keep-alive towards clients after this much silence.
        keepalive = "-";
        /// Whether each connection must begin with a PROXY header.
        proxy_protocol = r#""off""#;
        /// Peers whose PROXY header is believed.
        proxy_protocol_from = "[]";
        /// TCP Fast Open for clients.
        fast_open = "false";
        /// Accept a connection when its first byte has arrived (TCP_DEFER_ACCEPT).
        defer_accept = "false";
    }
}

section! {
    /// Rates of new sessions: as many as the number may come at once, and then at the rate. A
    /// client beyond it is reset.
    "frontend.NAME.rate" => Rates {
        /// New sessions of all clients.
        sessions: Option<Rate> = Optional(Kind::Text(&RATE), r#""1000/s""#);
        /// New sessions of each client address (IPv6: of a network of 64 bits).
        per_client: Option<Rate> = Optional(Kind::Text(&RATE), r#""10/s""#);
    }
}

section! {
    /// A backend: a group of servers. There may be several.
    "backend.NAME" => BackendSettings {
        /// How a server is chosen. "roundrobin": in turn, by weight; "leastconn": the one with the
        /// fewest sessions in proportion to its weight; "random": the one with fewer sessions of
        /// two that are drawn by weight; "source": by the client's address, so that a client keeps
        /// its server as long as that is up (Maglev); "first": the first one in the file that is
        /// below its `sessions_max`.
        balance: Balance = Default(Kind::Words(Balance::WORDS), r#""roundrobin""#);
        /// Timeout of one attempt to connect to a server.
        connect_timeout: Duration = Default(TIMEOUT, r#""3s""#);
        /// Further attempts, each on another server if there is one; also if a server resets before
        /// it has taken a byte that waits for it.
        retries: u32 = Default(RETRIES, "2");
        /// How long a session waits while every server is at its `sessions_max`.
        queue_timeout: Duration = Default(TIMEOUT, r#""3s""#);
        /// Sessions that may wait, first come first served over all workers. Further ones are reset
        /// at once; 0: none waits.
        queue_max: u32 = Default(QUEUE, "1024");
        /// If all servers are down: "refuse" resets clients, "try" uses all servers as if they were
        /// up.
        all_down: AllDown = Default(Kind::Words(AllDown::WORDS), r#""refuse""#);
        /// The weight of a server grows from a twentieth to its full value over this time after it
        /// came up. Not set: it has its full weight at once.
        slow_start: Option<Duration> = Optional(SLOW_START, r#""30s""#);
        /// Which backup servers are used if all others are down: "all", or the "first" one that is
        /// up.
        backups: Backups = Default(Kind::Words(Backups::WORDS), r#""all""#);
        /// Health checks.
        health: Health = Default(Kind::Table(Health::SECTION), "");
        /// In the order of the file; never empty.
        servers as "server": Vec<Server> = Required(Kind::Tables(Server::SECTION), "");
    }
    with |table| {
        /// NAME
        name: Arc<str> = table.name();
        /// Where it is in the file.
        span: Span = table.span();
    }
    planned {
        /// What happens to the sessions of a server that goes down: "keep" or "close".
        on_down = r#""keep""#;
        /// PROXY header that is sent to servers: "v1" or "v2".
        send_proxy = r#""off""#;
        /// Addresses to connect from.
        source = "[]";
        /// TCP Fast Open towards servers.
        fast_open = "false";
        /// DNS SRV name that supplies servers.
        srv = "-";
        /// TCP keep-alive towards servers after this much silence.
        keepalive = "-";
    }
}

section! {
    /// Health checks of the servers of a backend.
    "backend.NAME.health" => Health {
        /// "tcp" connects and closes with a reset, as HAProxy does (some servers log that); "http"
        /// sends a request; "off" takes every server for up.
        check: Check = Default(Kind::Words(Check::WORDS), r#""tcp""#);
        /// Time between two probes of a server that is up.
        interval: Duration = Default(PROBE_INTERVAL, r#""2s""#);
        /// Time between two probes of a server that is down.
        interval_down: Duration = Default(PROBE_INTERVAL, r#""2s""#);
        /// Timeout of one probe: connect and response together.
        timeout: Duration = Default(PROBE_TIMEOUT, r#""1s""#);
        /// Consecutive successful probes for a server to come up.
        rise: u32 = Default(PROBES, "2");
        /// Consecutive failed probes for a server to go down.
        fall: u32 = Default(PROBES, "3");
        /// Port to probe. Not set: the port of the server.
        port: Option<u16> = Optional(Kind::Number(1, 65_535), "8080");
        /// The request, with check = "http".
        http: HttpCheck = Default(Kind::Table(HttpCheck::SECTION), "");
    }
    planned {
        /// Bytes to send and to expect, with check = "exchange".
        exchange = "-";
        /// Probes begin with the PROXY header that `send_proxy` of the backend names.
        send_proxy = "false";
        /// TLS around "http" and "exchange".
        tls = "-";
        /// Failed connects of sessions that take a server down as well.
        errors = "-";
    }
}

section! {
    /// The request of a health check; only with check = "http".
    "backend.NAME.health.http" => HttpCheck {
        /// Method of the request.
        method: String = Default(Kind::Text(&HTTP_METHOD), r#""GET""#);
        /// Path of the request, with its query.
        path: String = Default(Kind::Text(&HTTP_PATH), r#""/""#);
        /// Host header. Not set: the address of the server as it is configured.
        host: Option<String> = Optional(Kind::Text(&HTTP_HOST), r#""www.example.org""#);
        /// Status codes that count as healthy: first and last.
        status: (u16, u16) = Default(Kind::Text(&STATUS), r#""200-399""#);
    }
    with |table| {
        /// Where it is in the file.
        span: Span = table.span();
    }
}

section! {
    /// A server. There may be several: each begins with this line.
    "backend.NAME.server" => Server {
        /// Its name, unique in its backend.
        name: String = Required(Kind::Text(&NAME), r#""web1""#);
        /// IP:PORT or HOST:PORT. evenkeel follows the addresses of a host name in DNS.
        address: ServerAddress = Required(Kind::Text(&SERVER), r#""192.0.2.1:80""#);
        /// Its share of new sessions, 0 to 1000; 0: none.
        weight: u32 = Default(Kind::Number(0, 1000), "100");
        /// Sessions of this server. Beyond it, another server gets them.
        sessions_max: Option<NonZeroU32> = Optional(SESSIONS, "500");
        /// Use this server only if all others are down.
        backup: bool = Default(Kind::Flag, "false");
        /// "ready"; "drain": no new sessions, existing ones continue; "maint": as drain, and not
        /// probed.
        state: AdminState = Default(Kind::Words(AdminState::WORDS), r#""ready""#);
    }
    with |table| {
        /// Where it is in the file.
        span: Span = table.span();
    }
}

impl Config {
    /// `FILE:LINE:COLUMN: `, the beginning of a message; `evenkeel: ` for what comes from the
    /// command line.
    #[must_use]
    pub fn locate(&self, span: Span) -> String {
        match (&self.file, span) {
            (None, _) => "evenkeel: ".to_owned(),
            (Some(file), Span { line: 0, .. }) => format!("{}: ", file.display()),
            (Some(file), Span { line, column }) => format!("{}:{line}:{column}: ", file.display()),
        }
    }
}
