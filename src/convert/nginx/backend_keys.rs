//! Keys of the backends behind a `server` of `stream`: attempts, the PROXY header, source
//! addresses, and the probes of the commercial version.

use super::keywords;
use super::scope::Scope;
use crate::convert::draft::Entry;
use crate::convert::literal;
use crate::convert::report::Report;

/// Keys of the backends: `entries`, `health`, and the number of attempts.
pub(super) fn of_server(
    scope: &Scope<'_>,
    report: &Report,
) -> (Vec<Entry>, Vec<Entry>, Option<u64>) {
    let connect = scope.time("proxy_connect_timeout", 60_000, report);
    let mut entries = vec![("connect_timeout", literal::duration(connect))];
    if scope.is_on("proxy_protocol") {
        let version = scope.last("proxy_protocol_version").map_or("", |line| line.word(0));
        entries.push(("send_proxy", literal::quoted(if version == "2" { "v2" } else { "v1" })));
    }
    if let Some(line) = scope.last("proxy_bind") {
        let word = line.word(0);
        if word.starts_with("$remote_addr") && line.word(1) == "transparent" {
            entries.push(("source", literal::list(["client"])));
        } else if let Ok(ip) = word.parse::<std::net::IpAddr>() {
            entries.push(("source", literal::list([ip.to_string()])));
        } else if word != "off" {
            report.report(
                line.place,
                "evenkeel connects from its own addresses, or from the client's",
            );
        }
    }
    if scope.is_on("proxy_socket_keepalive") {
        if let Some(line) = scope.last("proxy_socket_keepalive") {
            report.near(
                line.place,
                "keepalive: the file gives no time; evenkeel needs one (the kernel's: 2h)",
            );
        }
        entries.push(("keepalive", "\"2h\"".to_owned()));
    }
    for name in [
        "proxy_upload_rate",
        "proxy_download_rate",
        "proxy_limit_rate",
        "proxy_next_upstream_timeout",
    ] {
        if let Some(line) = scope.last(name).filter(|line| !matches!(line.word(0), "0" | "0s"))
            && let Some(keyword) = keywords::stream(name)
        {
            report.report(line.place, keyword.text);
        }
    }
    let is_off = scope.last("proxy_next_upstream").is_some_and(|line| line.is("off"));
    let tries = scope.last("proxy_next_upstream_tries").and_then(|line| line.word(0).parse().ok());
    let tries = if is_off { Some(1) } else { tries.filter(|tries: &u64| *tries > 0) };
    (entries, health(scope, report), tries)
}

/// `health_check` of the commercial version.
fn health(scope: &Scope<'_>, report: &Report) -> Vec<Entry> {
    let Some(line) = scope.last("health_check") else { return Vec::new() };
    let value =
        |name: &str| line.arguments.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    let interval = value("interval").and_then(|it| literal::millis(it, 1000)).unwrap_or(5000);
    let timeout = scope.time("health_check_timeout", 5000, report).min(60_000);
    let mut entries = vec![
        ("check", literal::quoted("tcp")),
        ("interval", literal::duration(interval)),
        ("interval_down", literal::duration(interval)),
        ("timeout", literal::duration(timeout)),
        ("rise", value("passes").unwrap_or("1").to_owned()),
        ("fall", value("fails").unwrap_or("1").to_owned()),
    ];
    if let Some(port) = value("port") {
        entries.push(("port", port.to_owned()));
    }
    if value("match").is_some() || line.arguments.iter().any(|it| it == "udp") {
        report.urgent(line.place, "the probe only connects: write health.exchange by hand");
    }
    entries
}
