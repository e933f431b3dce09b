//! Whether this machine allows TCP Fast Open, where a configuration uses it.

use std::fs;

use crate::config::Config;
use crate::doctor::finding::Finding;

/// Bits of `net.ipv4.tcp_fastopen` (the kernel's Documentation/networking/ip-sysctl.rst).
const TO_SERVERS: u32 = 1;
const FROM_CLIENTS: u32 = 2;

/// None: the configuration does not use it.
pub(super) fn examine(config: &Config) -> Option<Finding> {
    let to_servers = config.backends.iter().any(|backend| backend.fast_open);
    let from_clients = config.frontends.iter().any(|frontend| frontend.fast_open);
    let wanted = u32::from(to_servers) * TO_SERVERS + u32::from(from_clients) * FROM_CLIENTS;
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap_or_default();
    (wanted > 0).then(|| finding(wanted, text.trim()))
}

fn finding(wanted: u32, value: &str) -> Finding {
    let subject = "net.ipv4.tcp_fastopen";
    let number = value
        .strip_prefix("0x")
        .map_or_else(|| value.parse::<u32>(), |hexadecimal| u32::from_str_radix(hexadecimal, 16));
    let Ok(number) = number else { return Finding::unknown(subject, "cannot be read here") };
    if number & wanted == wanted {
        return Finding::ok(subject, format!("{value}, as the configuration needs it"));
    }
    Finding::warning(
        subject,
        format!("{value}: fast_open of the configuration has no effect"),
        format!("sysctl -w {subject}={}", number | wanted),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_missing_bit_is_a_warning_with_its_remedy() {
        assert_eq!(finding(TO_SERVERS, "1").verdict, Verdict::Ok);
        assert_eq!(finding(TO_SERVERS | FROM_CLIENTS, "0x603").verdict, Verdict::Ok);
        let finding = finding(TO_SERVERS | FROM_CLIENTS, "1");
        assert_eq!(finding.remedy.as_deref(), Some("sysctl -w net.ipv4.tcp_fastopen=3"));
    }
}
