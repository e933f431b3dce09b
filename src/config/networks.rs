//! Lists of networks: `allow`, `deny` and the like, written in the configuration or in a file.

use std::net::IpAddr;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::problems::{Sink, Span};
use super::values::Parsed;

/// Networks in a list, at most: 32 bytes each, twice while a reload is under way.
const NETWORKS_MAX: usize = 1_000_000;

/// A set of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    /// First and last address of each range, sorted, without overlap. An IPv4 address is written as
    /// its mapped IPv6 address.
    ranges: Vec<(u128, u128)>,
    /// The file that the networks are read from.
    pub file: Option<(PathBuf, Span)>,
}

impl Networks {
    /// Of these ranges.
    pub(super) fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self { ranges: merged, file: None }
    }

    /// To be read from a file.
    pub(super) const fn of_file(path: PathBuf, span: Span) -> Self {
        Self { ranges: Vec::new(), file: Some((path, span)) }
    }

    /// Reads the text of the file: a network on each line, and comments from `#` on.
    ///
    /// # Errors
    /// The lines that are not networks: the number of each, and what is wrong with it. Of many, the
    /// first ones, and how many more there are.
    pub(super) fn read(&mut self, text: &str) -> Result<(), BadLines> {
        let (mut ranges, mut bad) = (Vec::new(), BadLines::default());
        // Some editors write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if ranges.len() == NETWORKS_MAX {
                bad.note(number, format!("more than {NETWORKS_MAX} networks; join some"));
                break;
            }
            match network(line) {
                Ok(range) => ranges.push(range),
                Err(problem) => bad.note(number, problem),
            }
        }
        if !bad.shown.is_empty() {
            return Err(bad);
        }
        *self = Self { file: self.file.take(), ..Self::new(ranges) };
        Ok(())
    }

    /// Whether the list is used: it has networks, or is a file (which may be empty).
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        !self.ranges.is_empty() || self.file.is_some()
    }

    /// Whether both have the same networks.
    #[must_use]
    pub fn has_same(&self, other: &Self) -> bool {
        self.ranges == other.ranges
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = number(address);
        let before = self.ranges.partition_point(|(first, _)| *first <= address);
        before > 0 && address <= self.ranges[before - 1].1
    }
}

/// Bad lines of one file that are reported; the rest is counted.
const BAD_LINES_SHOWN: usize = 20;

/// Lines of a file that are not networks.
#[derive(Debug, Default)]
pub(super) struct BadLines {
    /// The number of each line, and what is wrong with it.
    pub(super) shown: Vec<(usize, String)>,
    /// How many more there are.
    pub(super) more: usize,
}

impl BadLines {
    fn note(&mut self, line: usize, problem: String) {
        if self.shown.len() < BAD_LINES_SHOWN {
            self.shown.push((line, problem));
        } else {
            self.more += 1;
        }
    }
}

/// An address as its (mapped) IPv6 address.
const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Reads the value of a key: an array of networks, or a table with the file of one. `hint` is what
/// to write; `wrong` takes a problem with its offset and its value.
pub(super) fn of_value(
    (offset, value): (usize, &DeValue<'_>),
    hint: &str,
    sink: &Sink<'_>,
    wrong: &dyn Fn(usize, &DeValue<'_>, &str),
) -> Option<Networks> {
    let text = format!("not a list of networks; write {hint}");
    let one = |item: &Spanned<DeValue<'_>>| match (item.span().start, item.get_ref()) {
        (offset, value @ DeValue::String(text)) => {
            network(text).map_err(|text| wrong(offset, value, &text)).ok()
        }
        (offset, value) => {
            wrong(offset, value, &text);
            None
        }
    };
    if let DeValue::Array(items) = value {
        return Some(Networks::new(items.iter().filter_map(one).collect()));
    }
    let DeValue::Table(table) = value else { return None };
    let path = table.get("file").filter(|_| table.len() == 1);
    if let Some(DeValue::String(path)) = path.map(Spanned::get_ref) {
        return Some(Networks::of_file(path.as_ref().into(), sink.span(offset)));
    }
    wrong(offset, value, &text);
    None
}

/// The first and the last address of `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.1`.
pub(super) fn network(text: &str) -> Parsed<(u128, u128)> {
    const REMEDY: &str = "write an address, or a network such as \"192.0.2.0/24\"";
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| format!("not a network; {REMEDY}"))?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let length = match length {
        None => bits,
        Some(text) => match text.parse::<u32>() {
            Ok(length) if length <= bits && is_plain(text) => length,
            _ => return Err(format!("/{text} is not a prefix length; write /0 to /{bits}")),
        },
    };
    let hosts = 1_u128.checked_shl(bits - length).map_or(u128::MAX, |size| size - 1);
    let first = number(address);
    if first & hosts != 0 {
        let bits = first & !hosts;
        let network = match address {
            IpAddr::V4(_) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the lower half is the address"
                )]
                let bits = bits as u32;
                IpAddr::V4(bits.into())
            }
            IpAddr::V6(_) => IpAddr::V6(bits.into()),
        };
        return Err(format!("bits are set behind the prefix; write \"{network}/{length}\""));
    }
    Ok((first, first | hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|text| network(text).unwrap()).collect())
    }

    fn has(networks: &Networks, address: &str) -> bool {
        networks.contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_found_in_their_networks() {
        let list = networks(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7", "10.0.0.0/9"]);
        for address in
            ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8:ffff::1", "10.127.9.9"]
        {
            assert!(has(&list, address), "{address}");
        }
        for address in
            ["192.0.1.255", "192.0.3.0", "198.51.100.8", "2001:db9::", "10.128.0.0", "::1"]
        {
            assert!(!has(&list, address), "{address}");
        }
        assert!(!has(&networks(&[]), "192.0.2.1"));
        assert!(has(&networks(&["0.0.0.0/0"]), "255.255.255.255"));
        assert!(!has(&networks(&["0.0.0.0/0"]), "2001:db8::1"));
        assert!(has(&networks(&["::/0"]), "2001:db8::1") && has(&networks(&["::/0"]), "10.1.2.3"));
    }

    #[test]
    fn overlapping_and_adjacent_networks_are_one() {
        let list = networks(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.0/16", "10.1.0.0/16"]);
        assert_eq!(list.ranges.len(), 1);
        assert!(has(&list, "10.1.255.255") && !has(&list, "10.2.0.0"));
    }

    #[test]
    fn what_is_not_a_network_says_what_to_write() {
        for (text, part) in [
            ("10.0.0.1/8", "\"10.0.0.0/8\""),
            ("2001:db8::1/32", "\"2001:db8::/32\""),
            ("10.0.0.0/33", "/0 to /32"),
            ("10.0.0.0/+8", "/0 to /32"),
            ("::/129", "/0 to /128"),
            ("example.org", "192.0.2.0/24"),
            ("10.0.0.0/", "prefix length"),
            ("", "not a network"),
        ] {
            let problem = network(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn a_file_has_a_network_on_each_line() {
        let mut list = Networks::of_file("x".into(), Span::default());
        list.read("# ours\n\n192.0.2.0/24   # web\n 10.0.0.1 \r\n").unwrap();
        assert!(has(&list, "192.0.2.9") && has(&list, "10.0.0.1") && !has(&list, "10.0.0.2"));
        assert!(list.file.is_some());
        assert!(list.read("10.0.0.0/8\nnonsense\n").is_err());
        assert!(has(&list, "192.0.2.9"), "a bad file changes nothing");
    }

    #[test]
    fn every_bad_line_of_a_file_is_reported_up_to_a_limit() {
        let mut list = Networks::of_file("x".into(), Span::default());
        let bad = list.read("10.0.0.0/8\nnonsense\n# fine\n10.0.0.1/8\n").unwrap_err();
        let lines = bad.shown.iter().map(|(line, _)| *line);
        assert!(lines.eq([2, 4]) && bad.more == 0, "{bad:?}");
        assert!(bad.shown[0].1.contains("not a network"), "{bad:?}");
        let bad = list.read(&"x\n".repeat(1000)).unwrap_err();
        assert_eq!((bad.shown.len(), bad.more), (BAD_LINES_SHOWN, 1000 - BAD_LINES_SHOWN));
    }
}
