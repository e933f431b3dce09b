//! The keys of health checks.

use std::sync::Arc;
use std::time::Duration;

use super::declare::{Setting, section};
use super::enums::Check;
use super::kinds::{
    BYTES, HTTP_HOST, HTTP_METHOD, HTTP_PATH, Key, Kind, Presence, STATUS, Section, TLS_NAME,
    Table, Value,
};
use super::problems::Span;
use super::ranges::{MS, TIME_MAX, TIMEOUT};

/// More than 100 probes a second would be a load on the server.
const PROBE_INTERVAL: Kind = Kind::Time(Duration::from_millis(10), TIME_MAX);
/// A server that needs more than a minute for a probe is of no use to clients.
const PROBE_TIMEOUT: Kind = Kind::Time(MS, Duration::from_secs(60));
/// Consecutive probes: 100 of them take minutes.
const PROBES: Kind = Kind::Number(1, 100);
/// Each failed connect that counts is remembered, for each endpoint.
const FAILURES: Kind = Kind::Number(1, 1000);

section! {
    /// Health checks of the servers of a backend.
    "backend.NAME.health" => Health {
        /// "tcp": connect, and close with a reset before the handshake is complete, as HAProxy
        /// does: most server programs never see the connection (a server at a unix socket sees an
        /// empty one). "http": send a request and check the status. "exchange": send bytes and
        /// expect bytes. "off": no checks; every server counts as up.
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
        /// Port to probe. Not set: the port of the server. A unix socket has none, and is probed
        /// itself.
        port: Option<u16> = Optional(Kind::Number(1, 65_535), "8080");
        /// Begin each probe with the PROXY header of `send_proxy` of the backend. That of "v1" has
        /// the addresses of the probe's own connection, that of "v2" is LOCAL, as HAProxy sends it.
        send_proxy: bool = Default(Kind::Flag, "false");
        /// The request, with check = "http".
        http: HttpCheck = Default(Kind::Table(HttpCheck::SECTION), "");
        /// The dialogue, with check = "exchange".
        exchange: (Arc<Vec<Step>>, Span) = Optional(Kind::OneOrMore(Step::SECTION), "");
        /// Use TLS.
        tls: Option<(TlsCheck, Span)> = Optional(Kind::Table(TlsCheck::SECTION), "");
        /// Failed connects of sessions take a server down as well.
        errors: Option<ConnectErrors> = Optional(Kind::Table(ConnectErrors::SECTION), "");
    }
}

impl Health {
    /// Whether probes of both ask the same of a server, so that the results of one say something
    /// about the other.
    #[must_use]
    pub fn probes_as(&self, other: &Self) -> bool {
        let of = |health: &Self| {
            let tls = health.tls.as_ref().map(|(tls, _)| tls.clone());
            (health.check, health.port, health.send_proxy, tls)
        };
        of(self) == of(other) && self.exchange.0 == other.exchange.0
    }
}

section! {
    /// The request of a health check; only with check = "http".
    "backend.NAME.health.http" => HttpCheck {
        /// Method of the request.
        method: String = Default(Kind::Text(&HTTP_METHOD), r#""GET""#);
        /// Path of the request, with its query.
        path: String = Default(Kind::Text(&HTTP_PATH), r#""/""#);
        /// Host header. Not set: `address` of the server, as it is written; of a unix socket,
        /// "localhost".
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
    /// A step of the dialogue; only with check = "exchange". An array of such tables is a dialogue
    /// of several steps. Each step sends its bytes, then waits until the response is as expected;
    /// all steps together may take `timeout`. A step that sends drops the rest of the response
    /// before it, as HAProxy does; a step that does not send continues with that. Therefore expect
    /// whole lines if another step follows. A response may have up to 16 KiB.
    "backend.NAME.health.exchange" => Step {
        /// Bytes to send: text with the escapes \r, \n, \t, \0, \xNN and \\. Not set: the server
        /// speaks first, or continues.
        send: Option<Box<[u8]>> = Optional(Kind::Text(&BYTES), r#""PING\r\n""#);
        /// Bytes that the response begins with. They are removed from it: if the next step does not
        /// send, its response begins after them.
        expect: Option<Box<[u8]>> = Optional(Kind::Text(&BYTES), r#""+PONG\r\n""#);
        /// Bytes anywhere in the response, after those of `expect`. Nothing is removed.
        contains: Option<Box<[u8]>> = Optional(Kind::Text(&BYTES), r#""role:master""#);
    }
    with |table| {
        /// Nothing is written.
        blank: bool = table.is_empty();
    }
}

section! {
    /// TLS of health checks, around check = "http" and check = "exchange". With check = "tcp", the
    /// TLS handshake is the check.
    "backend.NAME.health.tls" => TlsCheck {
        /// Verify the certificate of the server, by the root certificates of this machine (or those
        /// of the file that the environment variable `SSL_CERT_FILE` names). They are read at start
        /// and at each reload.
        verify: bool = Default(Kind::Flag, "false");
        /// Server name to send (SNI), and the name that the certificate must have. Not set: the
        /// host name in `address` of the server. If that is an IP address, no name is sent, and the
        /// certificate must have the IP address.
        name: Option<String> = Optional(Kind::Text(&TLS_NAME), r#""www.example.org""#);
    }
}

section! {
    /// Failed connects of sessions take a server down, as failed probes do. With probes, it comes
    /// up again after `rise` successful ones.
    "backend.NAME.health.errors" => ConnectErrors {
        /// Number of failed connects of one address of a server.
        count: u32 = Required(FAILURES, "3");
        /// The time in which they count.
        within: Duration = Required(TIMEOUT, r#""10s""#);
        /// How long the server stays down, with check = "off". evenkeel looks every half second.
        down: Duration = Default(TIMEOUT, r#""10s""#);
    }
}
