//! The declaration of every configuration key, and the checked configuration, with every default
//! filled in.
//!
//! This is the one place that lists keys: the parser, the suggestion for a misspelled key, the
//! example file, the reference and the JSON schema come from it (`declare::section!`). To implement
//! a key of `planned`, move it up and declare its type.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::ServerAddress;
use super::declare::{Setting, section};
use super::enums::{AdminState, AllDown, Backups, Balance, Check, LogFormat, OnDown};
use super::kinds::{
    ACCOUNT, Alternative, BIND, HTTP_HOST, HTTP_METHOD, HTTP_PATH, Key, Kind, NAME, Planned,
    Presence, RATE, REFERENCE, SERVER, SOCKET_PATH, STATUS, Section, Table, Value,
};
use super::networks::Networks;
use super::problems::Span;
use super::values::Rate;

const MS: Duration = Duration::from_millis(1);
/// Timers count milliseconds, and those of HAProxy end at 2^31 ms (24.8 days).
const TIME_MAX: Duration = Duration::from_secs(24 * 24 * 60 * 60);
/// A timeout of 0 would end every session at once.
const TIMEOUT: Kind = Kind::Time(MS, TIME_MAX);
/// More than 100 probes a second would be a load on the server.
const PROBE_INTERVAL: Kind = Kind::Time(Duration::from_millis(10), TIME_MAX);
/// A server that needs more than a minute for a probe is of no use to clients.
const PROBE_TIMEOUT: Kind = Kind::Time(MS, Duration::from_secs(60));
/// More than the cores of any machine that evenkeel is meant for.
const WORKERS: Kind = Kind::Number(1, 256);
/// A session takes two descriptors; ten million sessions are far above the limit of one process
/// (`fs.nr_open`).
const SESSIONS: Kind = Kind::Number(1, 10_000_000);
/// From four buffers of 16 KiB to the largest number of buffers: a buffer id has 16 bits.
const BUFFERS: Kind = Kind::Size(64 << 10, 1 << 30);
/// As many as sessions.
const QUEUE: Kind = Kind::Number(0, 10_000_000);
/// Each attempt may take `connect_timeout`: 100 of them take five minutes.
const RETRIES: Kind = Kind::Number(0, 100);
/// `net.core.somaxconn`, which limits the backlog anyway, is rarely higher.
const BACKLOG: Kind = Kind::Number(1, 65_535);
/// A server that needs more than an hour to warm up is not up.
const SLOW_START: Kind = Kind::Time(Duration::from_secs(1), Duration::from_secs(60 * 60));
/// Consecutive probes: 100 of them take minutes.
const PROBES: Kind = Kind::Number(1, 100);

section! {
    /// The configuration of evenkeel. Durations have a unit: "500ms", "30s", "5m", "1h", "1d".
    /// Sizes have one too: "64KiB", "16MiB", "1GiB". `evenkeel check -c FILE` reports every problem
    /// of a file, and `evenkeel reload` applies a changed file to a running balancer.
    "" => Config {
        /// The process.
        global: Global = Default(Kind::Table(Global::SECTION), "");
        /// Metrics, status page, control socket and logs.
        observe: Observe = Default(Kind::Table(Observe::SECTION), "");
        /// In the order of the file; never empty.
        frontends as "frontend": Vec<Arc<FrontendSettings>> =
            Required(Kind::Named(FrontendSettings::SECTION), "");
        /// In the order of the file; the backend of each frontend is one of them.
        backends as "backend": Vec<Arc<BackendSettings>> =
            Default(Kind::Named(BackendSettings::SECTION), "");
    }
    with |_table| {
        /// The file; none: the configuration comes from `run --bind --server`.
        file: Option<PathBuf> = None;
    }
}

section! {
    /// The process. A reload applies only `drain_delay` and `drain_timeout`; the other keys need a
    /// restart.
    "global" => Global {
        /// Worker threads. "auto": one for each core that this process may use.
        workers: Option<NonZeroU32> = Default(Kind::Or(&WORKERS, Alternative::Auto), r#""auto""#);
        /// Pin each worker thread to one core: worker n to the nth core that this process may use.
        pin: bool = Default(Kind::Flag, "false");
        /// Maximum number of sessions of all frontends together. "auto": as many as the limit of
        /// file descriptors allows. At the limit, new connections wait in the kernel's backlog.
        sessions_max: Option<(NonZeroU32, Span)> =
            Default(Kind::Or(&SESSIONS, Alternative::Auto), r#""auto""#);
        /// Memory of each worker for bytes that it has received and not yet sent, beside at most 32
        /// MiB of pipes: a hard limit. "auto": 16 KiB for each session of `sessions_max`, and at
        /// least 8 MiB; buffers and pipes of all workers together take at most a quarter of the
        /// memory of the machine or cgroup.
        buffers: Option<u64> = Default(Kind::Or(&BUFFERS, Alternative::Auto), r#""auto""#);
        /// How long SIGTERM keeps accepting clients while /readyz already answers 503, so that a
        /// balancer in front takes this one out. Then the drain begins.
        drain_delay: Duration = Default(Kind::Time(Duration::ZERO, TIME_MAX), r#""0s""#);
        /// How long sessions may continue after SIGTERM. At its end, evenkeel closes those that are
        /// still open.
        drain_timeout: Duration = Default(Kind::Time(Duration::ZERO, TIME_MAX), r#""30s""#);
        /// User to switch to after binding, if started as root.
        user: Option<(String, Span)> = Optional(Kind::Text(&ACCOUNT), r#""evenkeel""#);
        /// Group to switch to. Not set: the group of `user`.
        group: Option<(String, Span)> = Optional(Kind::Text(&ACCOUNT), r#""evenkeel""#);
    }
    planned {
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
        /// Absolute path of the control socket (mode 0600), which `evenkeel status`, `evenkeel
        /// drain` and similar commands connect to; false turns it off.
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
        /// Also log sessions without a byte that no server or limit ended, such as the probes of a
        /// balancer in front.
        empty: bool = Default(Kind::Flag, "true");
    }
}

section! {
    /// A frontend: the addresses that clients connect to. There may be several.
    "frontend.NAME" => FrontendSettings {
        /// Addresses to listen on.
        bind: Vec<(SocketAddr, Span)> =
            Required(Kind::List(&Kind::Text(&BIND)), r#"["0.0.0.0:80", "[::]:80"]"#);
        /// The backend whose servers get the sessions of this frontend.
        backend: (String, Span) = Required(Kind::Text(&REFERENCE), r#""web""#);
        /// Maximum number of sessions of this frontend; at the limit, new connections wait in the
        /// kernel's backlog. Not set: `global.sessions_max` is the only limit.
        sessions_max: Option<NonZeroU32> = Optional(SESSIONS, "1000");
        /// Close a session after this long without a byte in either direction.
        idle_timeout: Option<Duration> = Default(Kind::Or(&TIMEOUT, Alternative::Off), r#""5m""#);
        /// Close a session if one side has ended its direction (FIN) and the other is silent for
        /// this long.
        half_closed_timeout: Duration = Default(TIMEOUT, r#""30s""#);
        /// Networks that may connect: an array, or `{ file = "PATH" }` with one on each line and
        /// comments after `#`. The path is relative to the configuration file, and the file is read
        /// again at each reload. An empty array: all.
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
        /// Timeout for receiving the PROXY header and the TLS ClientHello.
        preface_timeout = r#""3s""#;
        /// Send TCP keep-alive probes to a client that has been silent for this long.
        keepalive = "-";
        /// Whether each connection must begin with a PROXY header.
        proxy_protocol = r#""off""#;
        /// Networks from which a PROXY header is accepted.
        proxy_protocol_from = "[]";
        /// TCP Fast Open for clients.
        fast_open = "false";
        /// Accept a connection when its first byte has arrived (TCP_DEFER_ACCEPT).
        defer_accept = "false";
    }
}

section! {
    /// Rates of new sessions, such as "1000/s", "60/m" or "100/h". The number is also the burst: so
    /// many may come at once. A client beyond the rate is reset.
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
        /// Attempts to connect after a failed one, each to another server if there is one. If a
        /// server resets a connection before any byte was delivered, that is a failed attempt too.
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
        /// PROXY header that is sent to servers: "v1" or "v2".
        send_proxy = r#""off""#;
        /// Local addresses of the connections to servers.
        source = "[]";
        /// TCP Fast Open towards servers.
        fast_open = "false";
        /// DNS SRV name whose records are the servers.
        srv = "-";
        /// Send TCP keep-alive probes to a server that has been silent for this long.
        keepalive = "-";
    }
}

section! {
    /// Health checks of the servers of a backend.
    "backend.NAME.health" => Health {
        /// "tcp": connect, and close with a reset, as HAProxy does (some servers log that). "http":
        /// send a request and check the status. "off": no checks; every server counts as up.
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
        /// Begin each probe with a PROXY header, as set by `send_proxy` of the backend.
        send_proxy = "false";
        /// Use TLS for check = "http" and check = "exchange".
        tls = "-";
        /// Number of failed connects of sessions that take a server down, as failed probes do.
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
        /// Host header. Not set: `address` of the server, as it is written.
        host: Option<String> = Optional(Kind::Text(&HTTP_HOST), r#""www.example.org""#);
        /// Status codes of a successful check: the first and the last, or a single one.
        status: (u16, u16) = Default(Kind::Text(&STATUS), r#""200-399""#);
    }
    with |table| {
        /// Where it is in the file.
        span: Span = table.span();
    }
}

section! {
    /// A server. There may be several, each with a header line of its own.
    "backend.NAME.server" => Server {
        /// Its name, unique in its backend.
        name: String = Required(Kind::Text(&NAME), r#""web1""#);
        /// IP:PORT or HOST:PORT. evenkeel resolves a host name again when the TTL of the answer
        /// ends, and uses all of its addresses.
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
