//! Capabilities of the calling thread, and of the threads that it starts (capabilities(7)).

use std::io;

use nix::libc;
use nix::sys::prctl;

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: two words for each set.
const VERSION_3: u32 = 0x2008_0522;

/// `CAP_NET_ADMIN` of linux/capability.h.
const NET_ADMIN: u32 = 1 << 12;

/// `struct __user_cap_header_struct`; the process 0 is the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    process: libc::c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Programs that this thread starts have `CAP_NET_ADMIN`, if this thread has it: otherwise a
/// program of a user that is not root starts without.
///
/// # Errors
/// The kernel does not permit it.
pub fn pass_net_admin_on() -> io::Result<()> {
    let mut header = Header { version: VERSION_3, process: 0 };
    let none = Sets { effective: 0, permitted: 0, inheritable: 0 };
    let mut sets = [none, none];
    // SAFETY: the kernel reads and writes a header and, with this version, writes two sets; both
    // are as its header file declares them, and live until the call returns.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    if sets[0].permitted & NET_ADMIN == 0 {
        return Ok(());
    }
    sets[0].inheritable |= NET_ADMIN;
    // SAFETY: as in `keep_net_admin`.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let (raise, capability) = (libc::PR_CAP_AMBIENT_RAISE, NET_ADMIN.trailing_zeros());
    // SAFETY: it changes a set of capabilities of this thread, and reads no memory.
    let answer = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs `change`, which changes the user from root to another one, and keeps `CAP_NET_ADMIN` and
/// no other capability.
///
/// # Errors
/// That of `change`; EPERM: this process does not have the capability.
pub fn keep_net_admin(change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    prctl::set_keepcaps(true)?;
    change()?;
    let header = Header { version: VERSION_3, process: 0 };
    let low = Sets { effective: NET_ADMIN, permitted: NET_ADMIN, inheritable: 0 };
    let high = Sets { effective: 0, permitted: 0, inheritable: 0 };
    let sets = [low, high];
    // SAFETY: the kernel reads a header and, with this version, two sets; both are as its header
    // file declares them, and live until the call returns.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(prctl::set_keepcaps(false)?)
}
