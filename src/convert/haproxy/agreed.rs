//! Values that HAProxy has for each server and evenkeel for a backend: the most common one.

use super::arguments;
use super::servers::Input;
use crate::convert::literal;
use crate::convert::majority::most_common;
use crate::convert::report::{Place, Report};

/// A time in ms. Servers that differ are reported; none: no server says one.
pub(super) fn agreed_time(
    servers: &[&Input],
    name: &str,
    default: u64,
    report: &Report,
) -> Option<u64> {
    let read = |text: &str| literal::millis(text, 1);
    agreed(servers, name, default, &read, report)
}

/// The same for a number.
pub(super) fn agreed_number(
    servers: &[&Input],
    name: &str,
    default: u64,
    report: &Report,
) -> Option<u64> {
    let read = |text: &str| u64::try_from(arguments::integer(text)?).ok();
    agreed(servers, name, default, &read, report)
}

/// The value that most servers have; the others are reported. None: no server says one.
fn agreed(
    servers: &[&Input],
    name: &str,
    default: u64,
    read: &dyn Fn(&str) -> Option<u64>,
    report: &Report,
) -> Option<u64> {
    if !servers.iter().any(|server| server.has(name)) {
        return None;
    }
    let value = |server: &Input| server.value(name).and_then(read).unwrap_or(default);
    let values: Vec<(u64, Place)> =
        servers.iter().map(|server| (value(server), server.place_of(name))).collect();
    let common = most_common(&values)?;
    for (other, place) in &values {
        if *other != common {
            let reason = format!("{name}: evenkeel has one value for all servers of a backend");
            report.report(*place, reason);
        }
    }
    Some(common)
}
