//! File descriptors that come from another process: over a unix socket (`SCM_RIGHTS`, unix(7)), or
//! from the process that has started this one (`sd_listen_fds(3)`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::sys::stat::fstat;

use crate::sys::socket::descriptor_limit;

/// Descriptors in one message: the kernel takes 253 at most (`SCM_MAX_FD`).
pub const AT_ONCE: usize = 253;

/// The first of the descriptors that a service manager passes (`SD_LISTEN_FDS_START`).
const LISTEN_FDS_START: RawFd = 3;

/// Sends up to [`AT_ONCE`] descriptors, with one byte.
///
/// # Errors
/// The peer is gone, does not read in time, or may not have so many.
pub fn send(socket: &impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let byte = [IoSlice::new(b"F")];
    loop {
        let number = socket.as_fd().as_raw_fd();
        match sendmsg::<()>(number, &byte, &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends bytes and one descriptor to the address of a datagram socket.
///
/// # Errors
/// Nobody is there, or its queue is full.
pub fn send_to(
    socket: &impl AsFd,
    address: &SocketAddr,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let address = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => UnixAddr::new(path)?,
        (None, Some(name)) => UnixAddr::new_abstract(name)?,
        (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    let raw = [descriptor.as_raw_fd()];
    let (number, rights) = (socket.as_fd().as_raw_fd(), [ControlMessage::ScmRights(&raw)]);
    let slices = [IoSlice::new(bytes)];
    sendmsg(number, &slices, &rights, MsgFlags::MSG_NOSIGNAL, Some(&address))?;
    Ok(())
}

/// Device and inode of a descriptor: the same for all copies of a socket.
///
/// # Errors
/// As fstat(2).
pub fn identity(descriptor: &impl AsFd) -> io::Result<(u64, u64)> {
    let found = fstat(descriptor)?;
    Ok((found.st_dev, found.st_ino))
}

/// Receives the descriptors of one message of [`send`]; they are closed by exec.
///
/// # Errors
/// The peer is gone or does not send in time; or this process may not have so many descriptors.
pub fn receive(socket: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let (mut byte, mut control) = ([0; 1], cmsg_space!([RawFd; AT_ONCE]));
    loop {
        let mut slices = [IoSliceMut::new(&mut byte)];
        let number = socket.as_fd().as_raw_fd();
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(number, &mut slices, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut received = Vec::new();
        // An error: the kernel had no room for all of them.
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has made these descriptors for this call, and nothing else
                // knows their numbers.
                received.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        return Ok(received);
    }
}

/// The `count` descriptors from 3 on that the starter of this process has passed by the protocol of
/// `sd_listen_fds(3)`; they are closed by exec from now on. Those that are not open are left out. A
/// second call returns none.
pub fn take_passed(count: usize) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let most = usize::try_from(descriptor_limit()).unwrap_or(usize::MAX);
    let numbers = (LISTEN_FDS_START..).take(count.min(most));
    let is_open = |number: &RawFd| {
        // SAFETY: it changes a flag of a descriptor, or fails if there is none of that number.
        let answer = unsafe { libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) };
        answer != -1
    };
    // SAFETY: they are open, by the protocol they belong to this process, and they are taken once.
    numbers.filter(is_open).map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn the_most_descriptors_of_a_message_arrive_and_are_closed_by_exec() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&here, &vec![file.as_fd(); AT_ONCE]).unwrap();
        let received = receive(&there).unwrap();
        assert_eq!(received.len(), AT_ONCE);
        let flags = fcntl(&received[AT_ONCE - 1], FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
        assert!(send(&here, &vec![file.as_fd(); AT_ONCE + 1]).is_err());
    }

    #[test]
    fn a_byte_without_descriptors_and_the_end_are_told_apart() {
        let (here, there) = UnixStream::pair().unwrap();
        io::Write::write_all(&mut &here, b"x").unwrap();
        assert!(receive(&there).unwrap().is_empty());
        drop(here);
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
