//! Health checks: the options of the backend, and the parameters of its servers.

use std::rc::Rc;

use super::agreed::{agreed_number, agreed_time};
use super::arguments;
use super::check_tls;
use super::exchange::{self, Dialogue};
use super::lexer::Line;
use super::sections::Proxy;
use super::servers::Input;
use super::status;
use super::timeouts;
use crate::convert::draft::{Address, Entry};
use crate::convert::literal;
use crate::convert::majority::most_common;
use crate::convert::report::{Place, Report};

/// Options that choose the kind of a check: the last one acts.
const KINDS: &[&str] = &[
    "tcp-check",
    "httpchk",
    "smtpchk",
    "redis-check",
    "ssl-hello-chk",
    "mysql-check",
    "pgsql-check",
    "ldap-check",
    "spop-check",
    "external-check",
];

/// HAProxy's default of `inter`, in ms.
const INTER: u64 = 2000;

/// The keys of `health`, in a backend that sends a PROXY header (`has_version`) or none.
pub(super) fn health(
    proxy: &Proxy,
    servers: &[Input],
    has_version: bool,
    report: &Report,
) -> Vec<Entry> {
    let checked: Vec<&Input> = servers.iter().filter(|server| server.has("check")).collect();
    if checked.is_empty() {
        return vec![("check", literal::quoted("off"))];
    }
    for server in servers.iter().filter(|server| !server.has("check")) {
        let reason = "no check for this server: evenkeel checks all servers of a backend or none";
        report.report(server.place, reason);
    }
    let mut entries = Vec::new();
    let dialogue = kind(proxy, &mut entries, report);
    times(proxy, &checked, &mut entries, report);
    for (name, default) in [("rise", 2), ("fall", 3)] {
        if let Some(number) = agreed_number(&checked, name, default, report) {
            if number > 100 {
                let asked = checked.iter().filter(|server| server.has(name));
                let reason = format!("{name} = 100, the most that evenkeel accepts");
                asked.for_each(|server| report.near(server.place_of(name), reason.as_str()));
            }
            entries.push((name, number.clamp(1, 100).to_string()));
        }
    }
    let only_connects = !entries.iter().any(|(key, _)| matches!(*key, "http" | "exchange"));
    port(&checked, (&dialogue, only_connects), &mut entries, report);
    let implied = |server: &&&Input| !server.has("port") && !server.has("addr");
    let proxied = checked.iter().filter(|server| {
        let sends = server.has("send-proxy") || sends_v2(server);
        server.has("check-send-proxy") || (sends && implied(server))
    });
    if proxied.count() == checked.len() || dialogue.sends_proxy {
        if has_version {
            entries.push(("send_proxy", "true".to_owned()));
        } else {
            let reason = "a probe begins with a PROXY header only where sessions do";
            report.urgent(checked[0].place, reason);
        }
    }
    check_tls::tls(servers, (&dialogue, only_connects), &mut entries, report);
    entries
}

/// Whether a server gets a PROXY header of version 2.
pub(super) fn sends_v2(server: &Input) -> bool {
    ["send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"].iter().any(|it| server.has(it))
}

/// The kind of the check, and its request or dialogue.
fn kind(proxy: &Proxy, entries: &mut Vec<Entry>, report: &Report) -> Dialogue {
    let is_kind = |line: &&Rc<Line>| line.word(0) == "option" && KINDS.contains(&line.word(1));
    let option = proxy.lines.iter().rfind(is_kind).filter(|line| !line.is_no);
    let name = option.map_or("", |line| line.word(1));
    let mut dialogue = Dialogue::default();
    let place = option.map(|line| line.place).unwrap_or_default();
    let mut check = "tcp";
    let mut steps = Vec::new();
    match (name, option) {
        ("tcp-check", _) => {
            dialogue = exchange::tcp_check(proxy, report);
            steps = std::mem::take(&mut dialogue.steps);
        }
        ("smtpchk", Some(line)) => steps = exchange::smtp(line, report),
        ("redis-check", _) => steps = exchange::redis(place, report),
        ("httpchk", Some(line)) => {
            check = "http";
            let http = http(proxy, line, &mut dialogue, report);
            entries.push(("check", literal::quoted("http")));
            entries.push(("http", http));
        }
        ("ssl-hello-chk", _) => {
            report.near(place, "health.tls: a whole handshake of today's TLS");
            dialogue.has_tls = true;
        }
        ("", _) => {}
        _ => report.report(place, "falls back to check = \"tcp\": the probe only connects"),
    }
    if !steps.is_empty() {
        entries.push(("check", literal::quoted("exchange")));
        entries.push(("exchange", exchange::literal(&steps)));
    } else if check == "tcp" {
        entries.push(("check", literal::quoted(check)));
    }
    dialogue
}

/// The request of a check, and the answer that it expects.
#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    host: Option<String>,
    status: Option<String>,
}

/// The value of `health.http`.
fn http(proxy: &Proxy, option: &Line, dialogue: &mut Dialogue, report: &Report) -> String {
    let words = option.from(2);
    let (method, path) = match words {
        [] => ("OPTIONS", "/"),
        // One word is the path.
        [path] => ("OPTIONS", path.as_str()),
        [method, path, ..] => (method.as_str(), path.as_str()),
    };
    let mut request =
        Request { method: method.to_owned(), path: path.to_owned(), host: None, status: None };
    // A host after the version, since HAProxy 2.9; `HTTP/1.1\r\nHost: www`, before 2.2.
    if let [_, _, version, host, ..] = words
        && !version.contains("\r\n")
    {
        request.host = Some(host.clone());
    }
    let version = words.get(2..).unwrap_or_default().join(" ");
    for header in version.split("\r\n").skip(1).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        request.header(name, value, option.place, report);
    }
    for line in exchange::of_first(proxy, "http-check", report) {
        match line.word(1) {
            "send" => request.send(line, report),
            "expect" => request.expect(line, report),
            "connect" => exchange::connect(line, dialogue, report),
            "comment" => {}
            "send-state" => report.near(line.place, "the probe does not tell the server its state"),
            "disable-on-404" => {
                report.report(line.place, "404 does not drain a server: `evenkeel drain` does");
            }
            other => report.report(line.place, format!("{other}: a probe sends one request")),
        }
    }
    request.literal(report, option.place)
}

impl Request {
    fn header(&mut self, name: &str, value: &str, place: Place, report: &Report) {
        if name.trim().eq_ignore_ascii_case("host") && self.host.is_none() {
            self.host = Some(value.trim().to_owned());
        } else if !name.trim().eq_ignore_ascii_case("connection") {
            report.report(
                place,
                format!("header {}: a probe sends the Host header only", name.trim()),
            );
        }
    }

    fn send(&mut self, line: &Line, report: &Report) {
        let mut words = line.from(2).iter().map(String::as_str);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_default();
            match word {
                "meth" => value().clone_into(&mut self.method),
                "uri" => value().clone_into(&mut self.path),
                "ver" | "comment" => drop(value()),
                "hdr" => {
                    let name = value();
                    let text = words.next().unwrap_or_default();
                    self.header(name, text, line.place, report);
                }
                other => {
                    let _value = value();
                    report.report(line.place, format!("{other}: a probe sends no body"));
                }
            }
        }
    }

    fn expect(&mut self, line: &Line, report: &Report) {
        let (is_negated, kind, value) = exchange::expected(line, report);
        let range = match kind {
            "status" => status::range_of_list(value, is_negated),
            "rstatus" => status::range_of_pattern(value, is_negated),
            _ => None,
        };
        let status = range.map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        match status {
            Some(status) if self.status.as_ref().is_none_or(|before| *before == status) => {
                self.status = Some(status);
            }
            Some(_) => report.urgent(line.place, "a probe expects one range of status codes"),
            None => {
                let reason = "a probe expects one range of status codes: without this rule, a \
                              server that answers with 200 to 399 is up and any other is down";
                report.urgent(line.place, reason);
            }
        }
    }

    /// As TOML; values that evenkeel does not accept are reported.
    fn literal(&self, report: &Report, place: Place) -> String {
        let mut parts = vec![format!("method = {}", literal::quoted(&self.method))];
        let is_path = self.path.starts_with('/') && self.path.chars().all(|c| c.is_ascii_graphic());
        if is_path {
            parts.push(format!("path = {}", literal::quoted(&self.path)));
        } else {
            report.urgent(place, "a path begins with / and is ASCII: the probe asks for /");
            parts.push("path = \"/\"".to_owned());
        }
        let is_host =
            |host: &&String| !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic());
        if let Some(host) = self.host.as_ref().filter(is_host) {
            parts.push(format!("host = {}", literal::quoted(host)));
        }
        if let Some(status) = &self.status {
            parts.push(format!("status = {}", literal::quoted(status)));
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

/// Intervals and the timeout.
fn times(proxy: &Proxy, checked: &[&Input], entries: &mut Vec<Entry>, report: &Report) {
    let inter = agreed_time(checked, "inter", INTER, report);
    let down = agreed_time(checked, "downinter", inter.unwrap_or(INTER), report);
    if let Some(inter) = inter {
        entries.push(("interval", literal::duration(inter.max(10))));
    }
    // HAProxy probes a server that is down as often as one that is up, unless downinter says more.
    if let Some(down) = down.or(inter) {
        entries.push(("interval_down", literal::duration(down.max(10))));
    }
    let timeout = timeouts::timeout(proxy, &["check"]);
    let millis = timeout.map_or_else(|| inter.unwrap_or(INTER), |(millis, _)| millis);
    if millis > 60_000
        && let Some((_, place)) = timeout
    {
        report.near(place, "60s, the longest timeout of a probe that evenkeel has");
    }
    entries.push(("timeout", literal::duration(millis.clamp(1, 60_000))));
}

/// The port that is probed, unless it is each server's own.
fn port(
    checked: &[&Input],
    (dialogue, only_connects): (&Dialogue, bool),
    entries: &mut Vec<Entry>,
    report: &Report,
) {
    if let Some(port) = dialogue.port.filter(|port| *port > 0) {
        entries.push(("port", port.to_string()));
        return;
    }
    let own = |server: &Input| match &server.address {
        Address::Port(_, port) => Some(u64::from(*port)),
        _ => None,
    };
    let asked = |server: &Input| {
        let port = server.value("port").and_then(arguments::integer);
        port.filter(|port| (1..=65_535).contains(port)).map(i64::unsigned_abs)
    };
    for server in checked.iter().filter(|one| one.has("port") && asked(one).is_none()) {
        let reason = "port: not 1 to 65535, so that the port of the server is probed";
        report.near(server.place_of("port"), reason);
    }
    let explicit: Vec<(u64, Place)> = checked
        .iter()
        .filter_map(|server| Some((asked(server)?, server.place_of("port"))))
        .collect();
    // A port of the check that is each server's own needs no key.
    let is_own =
        checked.iter().all(|server| asked(server).is_none_or(|port| own(server) == Some(port)));
    let is_one = explicit.windows(2).all(|pair| pair[0].0 == pair[1].0);
    if explicit.is_empty() || (is_own && !(is_one && explicit.len() == checked.len())) {
        return;
    }
    // A probe that only connects may as well go to the port of the server.
    let is_common = explicit.len() * 2 > checked.len() && (is_one || !only_connects);
    let common = most_common(&explicit).filter(|_| is_common);
    for server in checked {
        let probed = asked(server).or_else(|| own(server));
        if probed != common.or_else(|| own(server)) {
            let reason =
                "port: evenkeel probes every server of a backend on one port, or on its own";
            report.urgent(server.place, reason);
        }
    }
    entries.extend(common.map(|port| ("port", port.to_string())));
}
