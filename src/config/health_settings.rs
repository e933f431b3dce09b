//! The keys of health checks.

use std::time::Duration;

use super::declare::{Setting, section};
use super::enums::Check;
use super::kinds::{
    HTTP_HOST, HTTP_METHOD, HTTP_PATH, Key, Kind, Planned, Presence, STATUS, Section, Table, Value,
};
use super::problems::Span;
use super::ranges::{MS, TIME_MAX};

/// More than 100 probes a second would be a load on the server.
const PROBE_INTERVAL: Kind = Kind::Time(Duration::from_millis(10), TIME_MAX);
/// A server that needs more than a minute for a probe is of no use to clients.
const PROBE_TIMEOUT: Kind = Kind::Time(MS, Duration::from_secs(60));
/// Consecutive probes: 100 of them take minutes.
const PROBES: Kind = Kind::Number(1, 100);

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
