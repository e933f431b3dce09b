//! Which process listens at a TCP address that is in use, by /proc (proc(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a listening socket in /proc/net/tcp (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// Who listens at `address` or at a wildcard of its port, for the operator; none: nobody does, or
/// it is not known.
pub(super) fn owner(address: SocketAddr) -> Option<String> {
    let file = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let inode = listener(&fs::read_to_string(file).ok()?, address)?;
    match process_with(inode) {
        Some(process) => {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            Some(format!("it belongs to process {process} ({})", name.trim()))
        }
        None => Some(
            "no process is seen to have it open: it is one of another user, or the kernel still \
             closes the sockets of a process that was killed"
                .to_owned(),
        ),
    }
}

/// The inode of the socket that listens there.
fn listener(table: &str, address: SocketAddr) -> Option<u64> {
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let (ip, port) = (parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
        let inode = fields.get(9)?.parse().ok()?;
        (*fields.get(3)? == LISTEN && port == address.port()).then_some((ip, inode))
    });
    let overlaps =
        |ip: IpAddr| ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    sockets.filter(|(ip, _)| overlaps(*ip)).map(|(_, inode)| inode).next()
}

/// An address as the kernel writes it: words of 32 bits in the order of the machine.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(8 * at..8 * at + 8)?, 16).ok();
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// A process that has the socket open, of those that this user may look at.
fn process_with(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.find(|process| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
        let mut targets =
            descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| target.to_str() == Some(&*wanted))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_named() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let process = format!("it belongs to process {} (", std::process::id());
            let wildcard = match ip {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            for ip in [ip, wildcard] {
                let said = owner(SocketAddr::new(ip, address.port())).unwrap();
                assert!(said.starts_with(&process), "{said}");
            }
            drop(listener);
            assert_eq!(owner(address), None);
        }
    }
}
