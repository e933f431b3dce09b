//! Host and port of an address, as they are written; ports and ranges of ports.

use std::net::IpAddr;

use super::values::{Parsed, wrong};

/// Ports of one range. Each of them costs a socket for each worker: 16,384 with four workers.
pub const PORTS_MAX: u16 = 4096;

const BRACKETS: &str = "an IPv6 address needs brackets, and the port stands after them; write it \
                        as \"[2001:db8::1]:80\"";

/// What is before and after the last colon; an IPv6 address keeps its brackets, and alone has no
/// port.
pub(super) fn host_and_port<'t>(
    text: &'t str,
    example: &str,
) -> Parsed<(&'t str, Option<&'t str>)> {
    if text.contains(',') {
        return Err(format!("several addresses; write each by itself, such as {example:?}"));
    }
    if text.contains("://") {
        return Err(format!("a URL; write host and port alone, such as {example:?}"));
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return wrong(BRACKETS);
    }
    if text.starts_with('_') && !text.contains(':') {
        return wrong("a DNS SRV name; write srv = NAME in the backend, or host and port here");
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        return Ok((text, None));
    };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        let is_ipv6 = host.chars().all(|c| c.is_ascii_hexdigit() || ".:%[]".contains(c));
        return Err(match is_ipv6 {
            true => BRACKETS.to_owned(),
            false => format!("more than one colon; write host and port, such as {example:?}"),
        });
    }
    Ok((host, Some(port)))
}

/// A port: 1 to 65535.
pub(super) fn port(text: &str) -> Parsed<u16> {
    let all_digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match text.parse() {
        Ok(number) if all_digits && number != 0 => Ok(number),
        _ => Err(format!("{text:?} is not a port; write 1 to 65535")),
    }
}

/// A port, or a range of ports: "7000-7010".
pub(super) fn range(text: &str) -> Parsed<(u16, u16)> {
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok((port, port));
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("a range that ends before it begins; write \"{last}-{first}\""));
    }
    if last - first >= PORTS_MAX {
        return Err(format!(
            "{} ports, more than {PORTS_MAX}: each costs a socket for each worker; write a shorter \
             range",
            u32::from(last - first) + 1
        ));
    }
    Ok((first, last))
}
