//! The keys of a frontend.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::bind_address::BindAddress;
use super::declare::{Setting, section};
use super::enums::ProxyProtocol;
use super::kinds::{
    Alternative, BIND, Key, Kind, PROTOCOL, Presence, RATE, REFERENCE, SERVER_NAME, Section, Table,
    Value,
};
use super::networks::Networks;
use super::problems::Span;
use super::ranges::{KEEPALIVE, SESSIONS, TIMEOUT};
use super::routes::Route;
use super::values::Rate;

/// `net.core.somaxconn`, which limits the backlog anyway, is rarely higher.
const BACKLOG: Kind = Kind::Number(1, 65_535);

section! {
    /// A frontend: the addresses that clients connect to. There may be several.
    "frontend.NAME" => FrontendSettings {
        /// Addresses to listen on: "IP:PORT", "IP:FIRST-LAST" for a range of at most 4096 ports, or
        /// "unix:PATH" for a unix socket. evenkeel creates its file with mode 0666 (the permissions
        /// of its directory decide who may connect), replaces that of a process that is gone, and
        /// removes it at the end. Clients of a unix socket have no IP address: `allow`, `deny`,
        /// `rate.per_client` and `clients_max` do not apply to them.
        bind: Vec<(BindAddress, Span)> =
            Required(Kind::List(&Kind::Text(&BIND)), r#"["0.0.0.0:80", "[::]:80"]"#);
        /// The backend whose servers get the sessions of this frontend. It may be left out if `sni`
        /// or `alpn` is set: a connection that matches nothing is then reset (`refused`).
        backend: Option<(String, Span)> = RequiredUnlessRouted(Kind::Text(&REFERENCE), r#""web""#);
        /// Choose the backend by TLS server name (SNI): an exact name, or "*.name" for every name
        /// that ends so, of which the longest counts. evenkeel reads the name from the
        /// `ClientHello` without decryption, and forwards the bytes unchanged. A connection that
        /// matches nothing, or is not TLS, goes to `backend`.
        sni: Vec<Route> = Default(Kind::Routes(&SERVER_NAME), "{}");
        /// Choose the backend by ALPN protocol, such as "h2", if `sni` matches nothing: by the
        /// first protocol in the client's list that is here.
        alpn: Vec<Route> = Default(Kind::Routes(&PROTOCOL), "{}");
        /// Timeout for receiving the PROXY header and the TLS `ClientHello`, of at most 16 KiB
        /// each.
        preface_timeout: Duration = Default(TIMEOUT, r#""3s""#);
        /// "required": each connection must begin with a PROXY header of version 1 or 2, which a
        /// balancer in front sends; one without it is closed. The log, `balance = "source"`,
        /// `allow`, `deny`, `rate` and `clients_max` use the client address in it.
        proxy_protocol: ProxyProtocol = Default(Kind::Words(ProxyProtocol::WORDS), r#""off""#);
        /// Networks from which a PROXY header is accepted: the balancers in front. Written as
        /// `allow`, but an empty array means nobody, so that `proxy_protocol = "required"` needs
        /// one. Connections from other addresses are reset. Clients of a unix socket are always
        /// believed.
        proxy_protocol_from: Networks = Default(Kind::Networks, "[]");
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
}

section! {
    /// Rates of new sessions, such as "1000/s", "60/m", "100/h" or "20/10s" (20 in 10 s; a period
    /// is "1s" to "1d"). The number is also the burst: so many may come at once. A client beyond
    /// the rate is reset.
    "frontend.NAME.rate" => Rates {
        /// New sessions of all clients.
        sessions: Option<Rate> = Optional(Kind::Text(&RATE), r#""1000/s""#);
        /// New sessions of each client address (IPv6: of a network of 64 bits).
        per_client: Option<Rate> = Optional(Kind::Text(&RATE), r#""10/s""#);
    }
}

impl FrontendSettings {
    /// Whether the backend depends on the `ClientHello`.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        !self.sni.is_empty() || !self.alpn.is_empty()
    }

    /// Every backend that its sessions may go to: the name, and where it is written.
    pub fn backends(&self) -> impl Iterator<Item = (&str, Span)> {
        let default = self.backend.iter().map(|(name, span)| (name.as_str(), *span));
        let routes = self.sni.iter().chain(&self.alpn);
        default.chain(routes.map(|route| (route.backend.as_str(), route.span)))
    }
}
