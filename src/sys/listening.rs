//! Listening sockets of this network namespace, and the processes that have them open, as `/proc`
//! shows them (proc(5)).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// The state of a listening socket in /proc/net/tcp (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// The flags of a listening socket in /proc/net/unix (`__SO_ACCEPTCON`).
const ACCEPTS: &str = "00010000";

/// A listening socket.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listening {
    inode: String,
    /// The user that made it; of a unix socket, the owner of its file.
    user: u32,
}

/// The sockets that listen at `address`, or at a wildcard address that overlaps it. An IPv4 address
/// may also be taken by an IPv6 socket that accepts IPv4, which /proc does not tell apart from one
/// that does not: such sockets count if there is no other.
pub(crate) fn at_address(address: SocketAddr) -> Vec<Listening> {
    let mut found = Vec::new();
    if address.is_ipv4() {
        found = in_table("/proc/net/tcp", address);
    }
    if found.is_empty() { in_table("/proc/net/tcp6", address) } else { found }
}

fn in_table(file: &str, address: SocketAddr) -> Vec<Listening> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = parse(fields.get(1)?)?;
        let listens = *fields.get(3)? == LISTEN && overlap(local, address);
        let (user, inode) = (fields.get(7)?.parse().ok()?, (*fields.get(9)?).to_owned());
        listens.then_some(Listening { inode, user })
    });
    // A socket may be listed twice, if others came or went while the table was read.
    let once: BTreeSet<Listening> = found.collect();
    once.into_iter().collect()
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same = a.ip().to_canonical() == b.ip().to_canonical();
    a.port() == b.port() && (same || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// The sockets that listen at a path.
pub(crate) fn at_path(path: &Path) -> Vec<Listening> {
    let user = fs::symlink_metadata(path).map_or(0, |file| file.uid());
    // Names of other sockets may not be UTF-8.
    let bytes = fs::read("/proc/net/unix").unwrap_or_default();
    let inodes = bytes.split(|byte| *byte == b'\n').filter_map(|line| inode_at(line, path));
    inodes.map(|inode| Listening { inode, user }).collect()
}

/// The inode of a line of /proc/net/unix, if it is of a socket that listens at `path`:
/// `0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/web.sock`.
fn inode_at(line: &[u8], path: &Path) -> Option<String> {
    let fields = line.strip_suffix(path.as_os_str().as_bytes())?.strip_suffix(b" ")?;
    let fields: Vec<&str> = str::from_utf8(fields).ok()?.split_whitespace().collect();
    let [_, _, _, flags, _, _, inode] = fields[..] else { return None };
    (flags == ACCEPTS).then(|| inode.to_owned())
}

/// An address of /proc/net/tcp: `0100007F:1F90`, words of 32 bits in the order of the machine.
fn parse(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    if ip.len() == 8 {
        return Some(SocketAddr::from((word(0)?, port)));
    }
    let mut bytes = [0; 16];
    for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&word(8 * index)?);
    }
    Some(SocketAddr::from((bytes, port)))
}

/// The process ids of this machine.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The name of a process (`comm`); empty: it is gone.
pub(crate) fn name_of(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Whether a process has one of these sockets open. None: its descriptors may not be seen: another
/// user has the process, or this one is confined, so that it may list descriptors of other
/// processes but not read what they are (Landlock, and `ptrace(2)` of a process with more
/// capabilities).
pub(crate) fn has_one_of(process: u32, sockets: &[Listening]) -> Option<bool> {
    let descriptors = match fs::read_dir(format!("/proc/{process}/fd")) {
        Ok(descriptors) => descriptors,
        // The process has ended.
        Err(error) => return (error.kind() == io::ErrorKind::NotFound).then_some(false),
    };
    for descriptor in descriptors.flatten() {
        match fs::read_link(descriptor.path()) {
            Ok(link) if is_one_of(&link, sockets) => return Some(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            // Another file, or it was closed meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    Some(false)
}

/// Whether a link of /proc/PID/fd is one of these sockets: `socket:[12345]`.
fn is_one_of(link: &Path, sockets: &[Listening]) -> bool {
    let inode = link.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
    inode.is_some_and(|inode| sockets.iter().any(|socket| socket.inode == inode))
}

/// Whether a process runs as a user that made one of these sockets; root makes many, and does not
/// count.
pub(crate) fn runs_as_owner_of(process: u32, sockets: &[Listening]) -> bool {
    let user = fs::metadata(format!("/proc/{process}")).map_or(0, |process| process.uid());
    user != 0 && sockets.iter().any(|socket| socket.user == user)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::{Duration, Instant};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn the_addresses_of_proc_are_read() {
        if cfg!(target_endian = "little") {
            assert_eq!(parse("0100007F:1F90"), "127.0.0.1:8080".parse().ok());
            let loopback = "00000000000000000000000001000000:0050";
            assert_eq!(parse(loopback), "[::1]:80".parse().ok());
        }
        for text in ["", ":", "0100007F", "0100:50", "zz00007F:1F90", "0100007F:12345"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// Waits until nothing is found: a process that a test beside this one starts has a copy of
    /// each socket for a moment.
    fn until_gone(find: impl Fn() -> Vec<Listening>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !find().is_empty() {
            assert!(Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_listening_socket_is_found_and_a_connected_one_is_not() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let address = listener.local_addr().unwrap();
            let wildcard: IpAddr = match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            for ip in [address.ip(), wildcard] {
                let sockets = at_address(SocketAddr::new(ip, address.port()));
                let [socket] = &sockets[..] else { panic!("{sockets:?}") };
                assert_eq!(socket.user, nix::unistd::geteuid().as_raw());
                assert_eq!(has_one_of(std::process::id(), &sockets), Some(true));
            }
            let other = Listening { inode: "1".to_owned(), user: 0 };
            assert_eq!(has_one_of(std::process::id(), &[other]), Some(false));
            drop(listener);
            until_gone(|| at_address(address));
        }
    }

    #[test]
    fn a_socket_of_ipv6_that_accepts_ipv4_is_found_at_the_ipv4_address() {
        let Ok(socket) = Socket::new(Domain::IPV6, Type::STREAM, None) else { return };
        socket.set_only_v6(false).unwrap();
        if socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).is_err() {
            return; // no IPv6 here
        }
        socket.listen(1).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let sockets = at_address(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        assert_eq!(has_one_of(std::process::id(), &sockets), Some(true), "{sockets:?}");
    }

    #[test]
    fn a_unix_socket_that_listens_is_found_by_its_whole_path() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("evenkeel listening {}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let sockets = at_path(&path);
        fs::remove_file(&path).unwrap();
        let [socket] = &sockets[..] else { panic!("{sockets:?}") };
        assert_eq!(socket.user, nix::unistd::geteuid().as_raw());
        assert_eq!(has_one_of(std::process::id(), &sockets), Some(true));
        let end = path.file_name().unwrap();
        for part in [Path::new(end), Path::new("listening"), Path::new("")] {
            assert_eq!(at_path(part), [], "{}", part.display());
        }
        drop(listener);
        until_gone(|| at_path(&path));
    }
}
