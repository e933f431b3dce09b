//! The resource limits of this process: descriptors, locked memory, cores.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::sys::ring::RingSize;
use crate::sys::thread::allowed_cores;

/// Bytes of the control thread's ring: 256 submissions, the default of tokio-uring.
const CONTROL_RING: u64 = 32 * 1024;

/// Raises the limit of descriptors to the hard limit, and returns the limit that holds then.
///
/// # Errors
/// The limit cannot be read: a line for the operator.
pub(crate) fn raise_descriptors() -> Result<u64, String> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let (soft, hard) = limit.map_err(|error| format!("RLIMIT_NOFILE cannot be read: {error}"))?;
    if soft >= hard {
        return Ok(soft);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(error) => {
            tracing::warn!("RLIMIT_NOFILE stays at {soft}: raising it to {hard} failed: {error}");
            Ok(soft)
        }
    }
}

/// Raises the limit of locked memory, which counts the memory of rings (kernel 5.12 and newer
/// charge it to the control group instead): without limit for root, else to the hard limit.
pub(crate) fn raise_locked_memory() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return };
    let unlimited = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if unlimited.is_err() && soft < hard {
        // A ring for which that is too little makes itself smaller, or reports it.
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).ok();
    }
}

/// Why the ring of `what` cannot be created, with the remedy for `workers` workers and about
/// `sessions` sessions. For the operator.
pub(crate) fn no_ring(what: &str, error: &io::Error, workers: usize, sessions: u32) -> String {
    if error.raw_os_error() == Some(Errno::ENOMEM as i32) {
        let remedy = locked_memory_remedy(workers, sessions);
        return format!("{what}: no memory for a ring within RLIMIT_MEMLOCK; {remedy}");
    }
    format!("{what}: {error}")
}

/// The command that allows as much locked memory as the rings of `workers` workers and of the
/// control thread need.
pub(crate) fn locked_memory_remedy(workers: usize, sessions: u32) -> String {
    let bytes = CONTROL_RING + workers as u64 * RingSize::for_sessions(sessions).locked_memory();
    let kib = bytes.next_multiple_of(1 << 20) / 1024;
    format!("ulimit -l {kib} (or LimitMEMLOCK={kib}K in the service)")
}

/// The cores that this process may use, in ascending order; never empty.
pub(crate) fn cores() -> Vec<usize> {
    let mut cores = allowed_cores().unwrap_or_default();
    if cores.is_empty() {
        cores.push(0);
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_core_is_allowed() {
        assert!(!cores().is_empty());
    }
}
