//! Segments of TCP: where a packet costs more than a system call, their count explains a figure.

use std::fs;
use std::io;

/// All that this network namespace has sent so far, acknowledgements without data among them
/// (`OutSegs`, RFC 4022), also those of a whole large send that leaves in one piece.
///
/// # Errors
/// There is no /proc, or it does not say.
pub(crate) fn sent() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    parse(&text).ok_or_else(|| io::Error::other("/proc/net/snmp: no OutSegs of Tcp"))
}

/// A line of names, then one of values.
fn parse(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    pairs.find(|(name, _)| *name == "OutSegs")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_count_is_found_by_its_name_among_those_of_tcp() {
        let text = "Ip: OutSegs\nIp: 7\nTcp: RtoMin MaxConn OutSegs\nTcp: 200 -1 42\n";
        assert_eq!(parse(text), Some(42));
        assert_eq!(parse("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}
