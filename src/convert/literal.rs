//! Values as TOML writes them, and names that evenkeel accepts.

use std::net::Ipv4Addr;

use crate::config;

/// A basic string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Bytes of a health check: text with the escapes of `health.exchange`, which are beyond TOML's.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'\\' => "\\\\".to_owned(),
        b'\r' | b'\n' | b'\t' | b' '..=b'~' => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    };
    quoted(&bytes.iter().map(one).collect::<String>())
}

/// An array of strings.
pub(super) fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A key: in quotes unless it is bare.
pub(super) fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// Why a unix socket is left out (unix(7), `sun_path`).
pub(super) const UNIX_PATH: &str = "evenkeel takes an absolute path of at most 107 bytes: write it";

/// Whether a text can be a host name (RFC 1123; Docker has names with underscores) or is an IPv4
/// address. Short forms of one (`10.1`) are neither.
pub(super) fn is_host(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_known = |text: &str| {
        text.parse::<Ipv4Addr>().is_ok() || config::server_address(&format!("{text}:1")).is_ok()
    };
    !text.is_empty() && text.chars().all(fits) && is_known(text)
}

/// Timers of evenkeel and of HAProxy end below 2^31 ms.
const TIME_MAX: u64 = 24 * 86_400_000;

/// A duration with its unit, at most the longest one of evenkeel.
pub(super) fn duration(millis: u64) -> String {
    let millis = millis.clamp(1, TIME_MAX);
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis.is_multiple_of(length) {
            return format!("\"{}{unit}\"", millis / length);
        }
    }
    format!("\"{millis}ms\"")
}

/// The milliseconds of "500ms", "2s", "1h30m"; a number alone counts units of `unit` ms.
pub(super) fn millis(text: &str, unit: u64) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let length = match &rest[..letters] {
            "" => unit,
            "us" => {
                total = total.checked_add(number.div_ceil(1000))?;
                rest = &rest[letters..];
                continue;
            }
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(length)?)?;
        rest = &rest[letters..];
    }
    Some(total)
}

/// The name of a section or a server: `_` replaces characters that evenkeel does not accept.
pub(super) fn name(text: &str) -> String {
    const NAME_MAX: usize = 64;
    let fits = |c: char| c.is_alphanumeric() || (c.is_ascii_punctuation() && !"/#".contains(c));
    let all: String = text.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if all.is_empty() {
        return "unnamed".to_owned();
    }
    if all.chars().count() <= NAME_MAX {
        return all;
    }
    // The sum keeps long names apart that begin with the same letters.
    let sum = text.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    let begin: String = all.chars().take(NAME_MAX - 9).collect();
    format!("{begin}_{sum:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_largest_unit_that_divides_them() {
        let text = |it: &str| duration(millis(it, 1).unwrap());
        for (from, to) in [("5000", "5s"), ("100s", "100s"), ("3600s", "1h"), ("1500", "1500ms")] {
            assert_eq!(text(from), format!("\"{to}\""));
        }
        assert_eq!(duration(millis("1h30m", 1000).unwrap()), "\"90m\"");
        assert_eq!(duration(millis("75", 1000).unwrap()), "\"75s\"");
        assert_eq!(duration(millis("400d", 1).unwrap()), "\"24d\"");
        for bad in ["", "5x", "s", "-5", "1.5s"] {
            assert_eq!(millis(bad, 1), None, "{bad}");
        }
    }

    #[test]
    fn every_byte_of_a_health_check_can_be_written() {
        assert_eq!(bytes(b"PING\r\n\"\\\x00\xff"), r#""PING\r\n\"\\\\\\x00\\xff""#);
    }

    #[test]
    fn strings_and_names_are_what_toml_and_evenkeel_accept() {
        assert_eq!(quoted("QUIT\r\n\"\\\u{1}"), r#""QUIT\r\n\"\\\u0001""#);
        assert_eq!(key("a.b"), "\"a.b\"");
        assert_eq!(name("a/b c"), "a_b_c");
        assert_eq!(name(&"x".repeat(70)).chars().count(), 64);
    }
}
