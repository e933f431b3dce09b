//! Connections that the kernel dropped at listening sockets, before accept(2).

use std::fs;
use std::io;

/// For all listening sockets of the network namespace, of other programs too: the kernel counts
/// them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Handshakes that found the accept queue full.
    pub overflows: u64,
    /// Handshakes that were dropped for whatever reason, a full queue among them.
    pub drops: u64,
}

impl Listening {
    /// Reads /proc/net/netstat (proc(5)) of this network namespace.
    ///
    /// # Errors
    /// /proc is not mounted, or the kernel does not count these.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/net/netstat")?)
            .ok_or_else(|| io::Error::other("/proc/net/netstat has no ListenOverflows"))
    }

    fn parse(text: &str) -> Option<Self> {
        let count = |name| count(text, "TcpExt: ", name);
        Some(Self { overflows: count("ListenOverflows")?, drops: count("ListenDrops")? })
    }
}

/// One count of /proc/net/netstat or /proc/net/snmp (proc(5)): of the two lines that begin with
/// `group` (as "Tcp: "), the first has names, the second values; the order of names differs between
/// kernels. None if it is not there.
#[must_use]
pub fn count(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    pairs.find(|(found, _)| *found == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenDrops ListenOverflows Last\n\
                    TcpExt: 1 22 33 4\nIpExt: InNoRoutes\nIpExt: 0\n";
        let expected = Listening { overflows: 33, drops: 22 };
        assert_eq!(Listening::parse(text), Some(expected));
        assert_eq!(Listening::parse("TcpExt: ListenDrops ListenOverflows\nTcpExt: 1\n"), None);
        assert_eq!(Listening::parse("IpExt: InNoRoutes\nIpExt: 0\n"), None);
    }

    #[test]
    fn a_count_is_of_its_own_group() {
        let text = "Ip: OutSegs\nIp: 7\nTcp: RtoMin MaxConn OutSegs\nTcp: 200 -1 42\n";
        assert_eq!(count(text, "Tcp: ", "OutSegs"), Some(42));
        assert_eq!(count("Tcp: RtoMin\nTcp: 200\n", "Tcp: ", "OutSegs"), None);
    }

    #[test]
    fn this_kernel_counts_them() {
        let listening = Listening::read().unwrap();
        assert!(listening.overflows <= listening.drops);
    }
}
