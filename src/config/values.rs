//! The syntax of strings: durations, sizes, names, addresses. Pure; each error is "what is wrong;
//! what to do".

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A value, or "what is wrong; what to do".
pub(super) type Parsed<T> = Result<T, String>;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// ip:port
    Ip(SocketAddr),
    /// host:port, resolved at start and whenever its TTL ends.
    Name {
        /// The host, in lower case, without the dot at its end.
        host: String,
        /// 1-65535
        port: u16,
    },
}

/// A rate: so many in a period, of which all may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// In which so many may come.
    pub period: Duration,
}

/// No address: what a server has in a configuration that is refused.
impl Default for ServerAddress {
    fn default() -> Self {
        Self::Name { host: String::new(), port: 0 }
    }
}

/// "500ms", "2s", "5m", "1h", "1d".
pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Parsed<Duration> {
    const REMEDY: &str = "write a whole number and ms, s, m, h or d, such as \"500ms\" or \"5m\"";
    let (number, unit) = number_and_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "" => return Err(format!("a duration without a unit; {REMEDY}")),
        _ => return Err(format!("not a duration; {REMEDY}")),
    };
    if number.is_empty() {
        return Err(format!("not a duration; {REMEDY}"));
    }
    let millis = number.parse().ok().and_then(|number: u64| number.checked_mul(millis));
    match millis.map(Duration::from_millis) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        Some(duration) if duration < *range.start() => {
            Err(format!("too short; write {} or more", duration_text(*range.start())))
        }
        _ => Err(format!("too long; write {} or less", duration_text(*range.end()))),
    }
}

/// A duration as the file would write it.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis > 0 && millis.is_multiple_of(length) {
            return format!("\"{}{unit}\"", millis / length);
        }
    }
    format!("\"{millis}ms\"")
}

/// "64KiB", "16MiB", "1GiB", in bytes.
pub(super) fn size(text: &str, range: &RangeInclusive<u64>) -> Parsed<u64> {
    const REMEDY: &str = "write a whole number and KiB, MiB or GiB, such as \"16MiB\"";
    let (number, unit) = number_and_unit(text);
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "" => return Err(format!("a size without a unit; {REMEDY}")),
        _ => return Err(format!("not a size; {REMEDY}")),
    };
    if number.is_empty() {
        return Err(format!("not a size; {REMEDY}"));
    }
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (least, most) = (range.start() >> 10, range.end() >> 30);
        format!("out of range; write \"{least}KiB\" to \"{most}GiB\"")
    })
}

/// Digits, and what follows them.
fn number_and_unit(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(digits)
}

/// "1000/s", "60/m", "100/h".
pub(super) fn rate(text: &str) -> Parsed<(u32, Duration)> {
    const REMEDY: &str = "write a whole number and /s, /m or /h, such as \"1000/s\"";
    let (number, unit) = number_and_unit(text);
    let seconds = match unit {
        "/s" => 1,
        "/m" => 60,
        "/h" => 60 * 60,
        _ => return Err(format!("not a rate; {REMEDY}")),
    };
    match number.parse() {
        Ok(count @ 1..=10_000_000) => Ok((count, Duration::from_secs(seconds))),
        _ => Err(format!("out of range; write \"1{unit}\" to \"10000000{unit}\"")),
    }
}

/// The name of a frontend, a backend or a server. It is a label of the metrics and a part of
/// BACKEND/SERVER on the control socket; `#` separates the addresses of one server.
pub(super) fn name(text: &str) -> Parsed<()> {
    const NAME_MAX: usize = 64; // so that a label, and a column of the status page, stay readable
    if text.is_empty() {
        return wrong("an empty name; give it a name");
    }
    if text.chars().count() > NAME_MAX {
        return Err(format!("longer than {NAME_MAX} characters; give it a shorter name"));
    }
    let fits = |c: char| c.is_alphanumeric() || (c.is_ascii_punctuation() && !"/#".contains(c));
    if !text.chars().all(fits) {
        return wrong("a name has no space, / or #; use letters, digits, - and _");
    }
    Ok(())
}

/// The name of a user or a group.
pub(super) fn account(text: &str) -> Parsed<()> {
    let fits = |c: char| c.is_ascii_graphic() && !":/,".contains(c);
    if text.is_empty() || text.len() > 256 || !text.chars().all(fits) {
        return wrong("not the name of a user or a group; write one that this system has");
    }
    Ok(())
}

/// The path of a socket. The kernel limits it to 107 bytes (unix(7), `sun_path`).
pub(super) fn socket_path(text: &str) -> Parsed<()> {
    const PATH_MAX: usize = 107;
    if text.contains('\0') || text.ends_with('/') || text.is_empty() {
        return wrong("not the path of a file; write one such as \"/run/evenkeel/control.sock\"");
    }
    if !text.starts_with('/') {
        return wrong(
            "a relative path, which would be relative to the directory that each command is \
             started in; write an absolute path, such as \"/run/evenkeel/control.sock\"",
        );
    }
    if text.len() > PATH_MAX {
        return Err(format!("longer than {PATH_MAX} bytes; write a shorter path"));
    }
    Ok(())
}

/// An address to listen on.
pub(super) fn bind(text: &str) -> Parsed<SocketAddr> {
    let (host, port) = host_and_port(text, "0.0.0.0:80")?;
    let Some(ip) = ip(host)? else {
        let what = if matches!(host, "" | "*") { "no IP address" } else { "not an IP address" };
        return Err(format!(
            "{what} before the port; write \"0.0.0.0:{port}\" for all IPv4 addresses, \
             \"[::]:{port}\" for IPv6"
        ));
    };
    if let IpAddr::V6(ip) = ip
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        return Err(format!("an IPv4-mapped IPv6 address; write \"{ip}:{port}\""));
    }
    unicast(ip)?;
    Ok(with_scope(text, ip, port))
}

/// Where a server is.
pub(super) fn server(text: &str) -> Parsed<ServerAddress> {
    let (host, port) = host_and_port(text, "web1.lan:80")?;
    let Some(ip) = ip(host)? else {
        return Ok(ServerAddress::Name { host: host_name(host)?, port });
    };
    if ip.to_canonical().is_unspecified() {
        return Err(format!(
            "not the address of a server; for this machine write \"127.0.0.1:{port}\""
        ));
    }
    unicast(ip)?;
    Ok(ServerAddress::Ip(with_scope(text, ip, port)))
}

/// TCP has one machine at each end.
fn unicast(ip: IpAddr) -> Parsed<()> {
    let ip = ip.to_canonical();
    let kind = match ip {
        IpAddr::V4(ip) if ip.is_broadcast() => "broadcast",
        _ if ip.is_multicast() => "multicast",
        _ => return Ok(()),
    };
    Err(format!("a {kind} address, which TCP cannot use; write the address of one machine"))
}

/// Keeps the zone of a link-local address (`[fe80::1%2]:80`).
fn with_scope(text: &str, ip: IpAddr, port: u16) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::new(ip, port))
}

const BRACKETS: &str = "an IPv6 address needs brackets, and the port stands after them; write it \
                        as \"[2001:db8::1]:80\"";

/// What is before and after the last colon; an IPv6 address keeps its brackets.
fn host_and_port<'t>(text: &'t str, example: &str) -> Parsed<(&'t str, u16)> {
    if text.starts_with("unix:") || text.starts_with(['/', '@']) {
        return wrong("unix: addresses are not supported yet; write an address and a port");
    }
    if text.contains("://") {
        return Err(format!("a URL; write host and port alone, such as {example:?}"));
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return wrong(BRACKETS);
    }
    if text.starts_with('_') && !text.contains(':') {
        return wrong("a DNS SRV name, which is not supported yet; write host and port");
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        return Err(format!("no port; write one after a colon, such as {example:?}"));
    };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong(BRACKETS);
    }
    let all_digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    match port.parse() {
        Ok(number) if all_digits && number != 0 => Ok((host, number)),
        _ => Err(format!("{port:?} is not a port; write 1 to 65535")),
    }
}

/// An IP address; none: it may be a host name.
fn ip(host: &str) -> Parsed<Option<IpAddr>> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
        return match (address.parse(), zone.parse::<u32>()) {
            (Ok(ip), Ok(_)) => Ok(Some(IpAddr::V6(ip))),
            (Ok(_), Err(_)) => {
                wrong("the zone is not a number; write the interface's index (`ip link`)")
            }
            _ => wrong("not an IPv6 address in brackets; write one such as \"[2001:db8::1]:80\""),
        };
    }
    Ok(host.parse().map(IpAddr::V4).ok())
}

/// A host name of RFC 1123 (2.1): labels of letters, digits and inner hyphens. In lower case,
/// without the dot at its end.
fn host_name(text: &str) -> Parsed<String> {
    let host = text.strip_suffix('.').unwrap_or(text);
    if host.is_empty() {
        return wrong("no host before the port; write \"host:port\"");
    }
    if host.len() > 253 {
        return wrong("a host name longer than 253 characters; write a shorter one");
    }
    for label in host.split('.') {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let edges = label.starts_with('-') || label.ends_with('-');
        if label.is_empty() || label.len() > 63 || edges || !label.chars().all(fits) {
            return wrong(
                "not a host name; a host name has letters, digits, hyphens and dots (RFC 1123)",
            );
        }
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.chars().all(|c| c.is_ascii_digit()) {
        return wrong("not an IPv4 address; it has four numbers, 0 to 255");
    }
    Ok(host.to_ascii_lowercase())
}

/// A method: a token of RFC 9110, 5.6.2.
pub(super) fn http_method(text: &str) -> Parsed<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || text.len() > 32 || !text.chars().all(fits) {
        return wrong("not an HTTP method; write one such as \"GET\" or \"HEAD\"");
    }
    Ok(())
}

/// A path with its query. At most 2000 bytes, so that the request of a probe is one segment or
/// two, and every server accepts it.
pub(super) fn http_path(text: &str) -> Parsed<()> {
    if !text.starts_with('/') {
        return wrong("a path starts with /; write one such as \"/health\"");
    }
    if text.len() > 2000 {
        return wrong("longer than 2000 bytes; write a shorter path");
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return wrong("a space, or not ASCII; write it percent-encoded, a space as %20");
    }
    Ok(())
}

/// The value of a Host header.
pub(super) fn http_host(text: &str) -> Parsed<()> {
    if text.is_empty() || text.len() > 255 || !text.chars().all(|c| c.is_ascii_graphic()) {
        return wrong("not a Host header; write one such as \"www.example.org\"");
    }
    Ok(())
}

/// "200-399", or "204" alone.
pub(super) fn status_range(text: &str) -> Parsed<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |word: &str| {
        let digits = word.len() == 3 && word.chars().all(|c| c.is_ascii_digit());
        word.parse::<u16>().ok().filter(|status| digits && (100..=599).contains(status))
    };
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => wrong("not a range of HTTP status codes; write one such as \"200-399\" (100 to 599)"),
    }
}

fn wrong<T>(text: &str) -> Parsed<T> {
    Err(text.to_owned())
}
