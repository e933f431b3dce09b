//! The resource limits of this process: descriptors, locked memory, cores.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::sys::kernel_version::KernelVersion;
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

/// Descriptors that are open beside the three standard streams. To be called before any is opened.
pub(crate) fn inherited_descriptors() -> u64 {
    // One more reads the folder.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    u64::try_from(open.saturating_sub(4)).unwrap_or(u64::MAX)
}

/// Raises the limit of locked memory, to which kernels from 6.14 on charge the memory of rings
/// ([`KernelVersion::charges_rings`]): without limit for root, else to the hard limit.
pub(crate) fn raise_locked_memory() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return };
    let unlimited = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if unlimited.is_err() && soft < hard {
        // A ring for which that is too little makes itself smaller, or reports it.
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).ok();
    }
}

/// For how many sessions a ring is made: as many as `sessions`, or fewer if the rings of all
/// workers then fit into `RLIMIT_MEMLOCK`. Or the first workers would leave nothing to the last
/// ones.
pub(crate) fn ring_sessions(workers: usize, sessions: u32) -> u32 {
    let charged = KernelVersion::of_this_kernel().is_none_or(KernelVersion::charges_rings);
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(soft, _)| soft);
    if charged { sessions_within(limit, workers, sessions) } else { sessions }
}

fn sessions_within(limit: u64, workers: usize, sessions: u32) -> u32 {
    let smaller = std::iter::successors(Some(sessions), |sessions| Some(sessions / 2));
    let mut smaller = smaller.take_while(|sessions| *sessions > 0);
    let fits = |sessions: &u32| locked_memory(workers, *sessions) <= limit;
    smaller.find(fits).unwrap_or(1)
}

/// Why the ring of `what` cannot be created, with the remedy for `workers` workers and about
/// `sessions` sessions; `made` of them have one. For the operator.
pub(crate) fn no_ring(
    what: &str,
    error: &io::Error,
    (workers, made): (usize, usize),
    sessions: u32,
) -> String {
    if error.raw_os_error() == Some(Errno::ENOMEM as i32) {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft / 1024);
        let remedy = locked_memory_remedy(workers, sessions);
        let fewer = match made {
            0 => String::new(),
            made => format!(", or set global.workers = {made}"),
        };
        return format!(
            "{what}: no memory for a ring within RLIMIT_MEMLOCK, which is {limit} KiB and is too \
             little for {workers} workers; {remedy}{fewer}"
        );
    }
    format!("{what}: {error}")
}

/// The command that allows as much locked memory as the rings of `workers` workers and of the
/// control thread need.
pub(crate) fn locked_memory_remedy(workers: usize, sessions: u32) -> String {
    let kib = locked_memory(workers, sessions).next_multiple_of(1 << 20) / 1024;
    format!("ulimit -l {kib} (or LimitMEMLOCK={kib}K in the service)")
}

/// Bytes of all rings.
fn locked_memory(workers: usize, sessions: u32) -> u64 {
    CONTROL_RING + workers as u64 * RingSize::for_sessions(sessions).locked_memory()
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
    fn rings_are_made_smaller_so_that_those_of_all_workers_fit() {
        // 8 MiB is the usual limit of a plain user.
        let fitting = sessions_within(8 << 20, 16, 100_000);
        assert!(fitting < 100_000 && locked_memory(16, fitting) <= 8 << 20, "{fitting}");
        assert!(locked_memory(16, 2 * fitting) > 8 << 20, "{fitting}");
        assert_eq!(sessions_within(RLIM_INFINITY, 16, 100_000), 100_000);
        assert_eq!(sessions_within(0, 16, 100_000), 1);
    }

    #[test]
    fn at_least_one_core_is_allowed() {
        assert!(!cores().is_empty());
    }
}
