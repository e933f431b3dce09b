//! The keys of a frontend.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::declare::{Setting, section};
use super::kinds::{
    Alternative, BIND, Key, Kind, Planned, Presence, RATE, REFERENCE, Section, Table, Value,
};
use super::networks::Networks;
use super::problems::Span;
use super::ranges::{KEEPALIVE, SESSIONS, TIMEOUT};
use super::values::Rate;

/// `net.core.somaxconn`, which limits the backlog anyway, is rarely higher.
const BACKLOG: Kind = Kind::Number(1, 65_535);

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
        /// Send TCP keep-alive probes to a client that has been silent for this long, in whole
        /// seconds: three probes, a third of this time apart (at least 1 s, at most 75 s). A client
        /// that does not answer for all of that time, does not acknowledge bytes for as long, or
        /// keeps its receive window closed for as long counts as dead (`TCP_USER_TIMEOUT`): the
        /// session ends with `client_reset`. With "30s" a dead client is noticed after 60 s; timers
        /// of the kernel may be an eighth late. Not set: no probes.
        keepalive: Option<Duration> = Optional(KEEPALIVE, r#""60s""#);
        /// TCP Fast Open: a client that has a cookie sends its first bytes with the SYN. At most
        /// 1024 such connections may be waiting for the end of their handshake; further ones have a
        /// usual handshake. Needs bit 2 of the sysctl `net.ipv4.tcp_fastopen`. The first bytes of a
        /// client may arrive twice (RFC 7413, 2.1).
        fast_open: bool = Default(Kind::Flag, "false");
        /// Accept a connection when its first byte has arrived, or after 3 seconds without one
        /// (`TCP_DEFER_ACCEPT`). Not for protocols whose server speaks first.
        defer_accept: bool = Default(Kind::Flag, "false");
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
        /// Whether each connection must begin with a PROXY header.
        proxy_protocol = r#""off""#;
        /// Networks from which a PROXY header is accepted.
        proxy_protocol_from = "[]";
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
