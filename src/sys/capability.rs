//! Capabilities of the calling thread, and of the threads and programs that it starts
//! (capabilities(7)).

use std::fmt;
use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What a process that does not change its user may need after its start, if it has it.
const USED: [Capability; 4] = [
    // A reload may add a port below 1024.
    Capability::CAP_NET_BIND_SERVICE,
    // Root may read files and connect to unix sockets of every user.
    Capability::CAP_DAC_OVERRIDE,
    // Rings are not charged to RLIMIT_MEMLOCK.
    Capability::CAP_IPC_LOCK,
    // Pipes are not limited by fs.pipe-user-pages-soft.
    Capability::CAP_SYS_RESOURCE,
];

/// Connects from the addresses of clients (`IP_TRANSPARENT`).
const TRANSPARENT: Capability = Capability::CAP_NET_ADMIN;

/// A set of capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(CapsHashSet);

impl Capabilities {
    /// The permitted capabilities of this thread.
    ///
    /// # Errors
    /// A sandbox forbids capget(2).
    pub fn permitted() -> io::Result<Self> {
        caps::read(None, CapSet::Permitted).map(Self).map_err(other)
    }

    /// Those that a process needs after its start. It stays the same user, or else becomes another
    /// one; it is `transparent` if it connects from the addresses of its clients.
    #[must_use]
    pub fn needed(stays: bool, transparent: bool) -> Self {
        let used = USED.into_iter().filter(|_| stays);
        Self(used.chain(transparent.then_some(TRANSPARENT)).collect())
    }

    /// Those in both sets.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        out.write_str(if names.is_empty() { "none" } else { "" })?;
        out.write_str(&names.join(", "))
    }
}

/// Runs `change`, which may change the user from root to another one. Then this thread has the
/// capabilities `kept`, which it must have now, in each of its sets, and no other. The ambient set
/// keeps them for a program that it executes. The bounding set stays as it is if `CAP_SETPCAP` is
/// missing; then the user is not root, and `no_new_privs` makes it meaningless.
///
/// # Errors
/// That of `change`; a sandbox forbids it.
pub fn keep_only(kept: &Capabilities, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Capabilities(kept) = kept;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(other)? {
        for capability in &caps::read(None, CapSet::Bounding).map_err(other)? - kept {
            caps::drop(None, CapSet::Bounding, capability).map_err(other)?;
        }
    }
    // Beyond a change of user: setuid(2) clears the permitted set of a process that was root.
    if !kept.is_empty() {
        prctl::set_keepcaps(true)?;
    }
    change()?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // A sandbox may forbid capset(2), even where there is nothing to change.
        if caps::read(None, set).map_err(other)? != *kept {
            caps::set(None, set, kept).map_err(other)?;
        }
    }
    if !kept.is_empty() {
        prctl::set_keepcaps(false)?;
    }
    for capability in kept {
        // A program that is executed reports what it is missing; this one has it.
        drop(caps::raise(None, CapSet::Ambient, *capability));
    }
    Ok(())
}

fn other(error: CapsError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_needs_one_capability_at_most() {
        assert_eq!(Capabilities::needed(false, false).to_string(), "none");
        assert_eq!(Capabilities::needed(false, true).to_string(), "CAP_NET_ADMIN");
    }

    #[test]
    fn a_thread_keeps_what_it_needs_of_what_it_has() {
        let kept = std::thread::spawn(|| {
            let held = Capabilities::permitted().unwrap();
            let kept = held.and(&Capabilities::needed(true, false));
            keep_only(&kept, || Ok(())).unwrap();
            for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
                assert_eq!(caps::read(None, set).unwrap(), kept.0, "{set:?}");
            }
            (Capabilities::permitted().unwrap(), kept)
        });
        let (permitted, kept) = kept.join().unwrap();
        assert_eq!(permitted, kept);
    }
}
