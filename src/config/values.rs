//! The syntax of strings: durations, sizes, names (addresses: `addresses`). Pure; each error is
//! "what is wrong; what to do".

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A value, or "what is wrong; what to do".
pub(super) type Parsed<T> = Result<T, String>;

/// A rate: so many in a period, of which all may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// In which so many may come.
    pub period: Duration,
}

/// As the configuration writes it.
impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = duration_text(self.period);
        let period = period.trim_matches('"');
        write!(
            out,
            "{}/{}",
            self.count,
            period.strip_prefix('1').filter(|unit| is_unit(unit)).unwrap_or(period)
        )
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

/// "1000/s", "60/m", "100/h", and with another period "20/10s".
pub(super) fn rate(text: &str) -> Parsed<(u32, Duration)> {
    const REMEDY: &str =
        "write a whole number and /s, /m, /h or a period, such as \"1000/s\" or \"20/10s\"";
    const PERIOD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let (number, rest) = number_and_unit(text);
    let period = match rest.strip_prefix('/') {
        Some(unit) if is_unit(unit) => duration(&format!("1{unit}"), &PERIOD)?,
        Some(period) if period.starts_with(|c: char| c.is_ascii_digit()) => {
            duration(period, &PERIOD).map_err(|problem| format!("its period is {problem}"))?
        }
        _ => return Err(format!("not a rate; {REMEDY}")),
    };
    match number.parse() {
        Ok(count @ 1..=10_000_000) => Ok((count, period)),
        _ => Err(format!("out of range; write \"1{rest}\" to \"10000000{rest}\"")),
    }
}

/// Whether a rate may have this unit without a number.
fn is_unit(text: &str) -> bool {
    matches!(text, "s" | "m" | "h")
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

/// The path of a socket, in a key with that example. The kernel limits it to 107 bytes (unix(7),
/// `sun_path`).
pub(super) fn socket_path(text: &str, example: &str) -> Parsed<()> {
    const PATH_MAX: usize = 107;
    if text.contains('\0') || text.ends_with('/') || text.is_empty() {
        return Err(format!("not the path of a file; write one such as {example:?}"));
    }
    if !text.starts_with('/') {
        return Err(format!(
            "a relative path, which would be relative to the directory that each command is \
             started in; write an absolute path, such as {example:?}"
        ));
    }
    if text.split('/').any(|part| part == "..") {
        return Err("a path with \"..\"; write it without".to_owned());
    }
    if text.len() > PATH_MAX {
        return Err(format!("longer than {PATH_MAX} bytes; write a shorter path"));
    }
    Ok(())
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

/// A server name (RFC 6066, 3), or `*.` and a name, as it is compared: in lower case and without
/// the dot at its end.
pub(crate) fn server_name(text: &str) -> Parsed<String> {
    const REMEDY: &str = "write one such as \"www.example.org\" or \"*.example.org\"";
    if text == "*" {
        return wrong("every name; write this backend as `backend`");
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let host = name.strip_prefix("*.").unwrap_or(&name);
    if !host.is_ascii() {
        return wrong("not ASCII; write the name as clients send it (\"xn--...\")");
    }
    let fits = |label: &str| {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        (1..=63).contains(&label.len()) && label.chars().all(is_known)
    };
    if name.len() > 253 || !host.split('.').all(fits) {
        return Err(format!("not a server name; {REMEDY}"));
    }
    Ok(name)
}

/// A protocol of ALPN (RFC 7301): 1 to 255 bytes.
pub(crate) fn protocol(text: &str) -> Parsed<String> {
    if !(1..=255).contains(&text.len()) {
        return wrong("not a protocol; write one such as \"h2\" or \"http/1.1\"");
    }
    Ok(text.to_owned())
}

pub(super) fn wrong<T>(text: &str) -> Parsed<T> {
    Err(text.to_owned())
}
