//! What the kernel says of listening sockets: connections that it dropped before any program could
//! see them.

use std::fs;
use std::io;

/// Of all listening sockets of the network namespace, other programs' too: the kernel counts them
/// together.
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
    /// There is no /proc, or the kernel does not count these.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/net/netstat")?)
            .ok_or_else(|| io::Error::other("/proc/net/netstat has no ListenOverflows"))
    }

    /// A line of names, then one of values; the order of names differs between kernels.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, values) = (lines.next()?, lines.next()?);
        let pairs = || names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        let value = |wanted| pairs().find(|(name, _)| *name == wanted)?.1.parse().ok();
        Some(Self { overflows: value("ListenOverflows")?, drops: value("ListenDrops")? })
    }
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
    fn this_kernel_counts_them() {
        let listening = Listening::read().unwrap();
        assert!(listening.overflows <= listening.drops);
    }
}
