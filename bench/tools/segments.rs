//! Segments of TCP: where a packet costs more than a system call, their count explains a figure.

use std::fs;
use std::io;

use evenkeel::observe::netstat;

/// All that this network namespace has sent so far, acknowledgements without data among them
/// (`OutSegs`, RFC 4022), also those of a whole large send that leaves in one piece.
///
/// # Errors
/// There is no /proc, or it does not say.
pub(crate) fn sent() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    netstat::count(&text, "Tcp: ", "OutSegs")
        .ok_or_else(|| io::Error::other("/proc/net/snmp: no OutSegs of Tcp"))
}
