//! Which process listens on an address: an address that is in use may be used by the balancer
//! whose file is examined.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::overlap;
use crate::sys::address::Address;

/// The state of a listening socket in /proc/net/tcp (`TCP_LISTEN`, proc(5)).
const LISTEN: &str = "0A";

/// The flags of a listening socket in /proc/net/unix (`__SO_ACCEPTCON`).
const ACCEPTS: &str = "00010000";

/// A listening socket.
#[derive(Debug, PartialEq, Eq)]
struct Listening {
    inode: String,
    /// The user that made it; of a unix socket, the owner of its file.
    user: u32,
}

/// The process id of an evenkeel that listens on `address`, or on a wildcard address that takes its
/// place. None: another program does, or it is not known to this user.
pub(super) fn evenkeel_at(address: &Address) -> Option<u32> {
    let sockets = match address {
        Address::Ip(address) => listening_at(*address),
        Address::Unix(path) => listening_at_path(path),
    };
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut evenkeels = numbers.filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim_end() == env!("CARGO_PKG_NAME"))
    });
    evenkeels.find(|pid| has_one_of(*pid, &sockets))
}

/// The sockets that listen there, in this network namespace.
fn listening_at(address: SocketAddr) -> Vec<Listening> {
    let file = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = parse(fields.get(1)?)?;
        let listens = *fields.get(3)? == LISTEN && overlap(local, address);
        let (user, inode) = (fields.get(7)?.parse().ok()?, (*fields.get(9)?).to_owned());
        listens.then_some(Listening { inode, user })
    });
    found.collect()
}

/// The sockets that listen at a path, in this network namespace.
fn listening_at_path(path: &Path) -> Vec<Listening> {
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

/// Whether a process has one of these sockets. Only root and its user may see its descriptors; for
/// others it has, if it runs as the user that made the socket (but root makes many).
fn has_one_of(pid: u32, sockets: &[Listening]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        let user = fs::metadata(format!("/proc/{pid}")).map_or(0, |process| process.uid());
        return user != 0 && sockets.iter().any(|socket| socket.user == user);
    };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: &Path| {
        let name = link.to_str()?.strip_prefix("socket:[")?;
        Some(name.strip_suffix(']')?.to_owned())
    };
    let is_one = |inode: String| sockets.iter().any(|socket| socket.inode == inode);
    links.into_iter().any(|link| inode(&link).is_some_and(is_one))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

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

    #[test]
    fn a_listening_socket_is_found_and_a_connected_one_is_not() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let address = listener.local_addr().unwrap();
            let [socket] = &listening_at(address)[..] else { panic!("{address}") };
            assert_eq!(socket.user, nix::unistd::geteuid().as_raw());
            assert!(has_one_of(std::process::id(), &listening_at(address)));
            let other = Listening { inode: "1".to_owned(), user: socket.user };
            assert!(!has_one_of(std::process::id(), &[other]));
            assert_eq!(evenkeel_at(&address.into()), None, "this process is a test");
            drop(listener);
            assert!(listening_at(address).is_empty());
        }
    }

    #[test]
    fn a_unix_socket_that_listens_is_found_by_its_whole_path() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("evenkeel listening {}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let sockets = listening_at_path(&path);
        fs::remove_file(&path).unwrap();
        let [socket] = &sockets[..] else { panic!("{sockets:?}") };
        assert_eq!(socket.user, nix::unistd::geteuid().as_raw());
        assert!(has_one_of(std::process::id(), &sockets));
        assert_eq!(evenkeel_at(&Address::Unix(path.as_path().into())), None, "this is a test");
        let end = path.file_name().unwrap();
        for part in [Path::new(end), Path::new("listening"), Path::new("")] {
            assert_eq!(listening_at_path(part), [], "{}", part.display());
        }
        drop(listener);
        assert_eq!(listening_at_path(&path), []);
    }
}
