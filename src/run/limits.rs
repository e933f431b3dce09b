//! What this process may have: descriptors, locked memory, cores; and how many sessions that is.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::control::config::{Check, Config};
use crate::proxy::PIPES_PER_WORKER;

/// Standard streams, the log, HTTP, the control socket, DNS, timers: about 30 at most at once, and
/// as many for what a reload adds before the old is gone.
const RESERVE: u64 = 64;

/// Of a worker: its ring, its waker, and room for two.
const RESERVE_PER_WORKER: u64 = 4;

/// A session has two sockets.
const PER_SESSION: u64 = 2;

/// What "auto" gives at most, however high the limit is: container runtimes set it to a thousand
/// million, and memory ends long before.
const SESSIONS_AUTO_MAX: u64 = 1 << 20;

/// Raises the limit of descriptors as far as this process may, and says what it is then.
///
/// # Errors
/// The limit cannot be read. For the operator.
pub(crate) fn raise_descriptors() -> Result<u64, String> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let (soft, hard) = limit.map_err(|error| format!("RLIMIT_NOFILE cannot be read: {error}"))?;
    if soft >= hard {
        return Ok(soft);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(error) => {
            tracing::warn!("RLIMIT_NOFILE stays at {soft}, {hard} is not given: {error}");
            Ok(soft)
        }
    }
}

/// Raises the limit of locked memory, which rings count against (kernel 5.12 and newer charge it to
/// the control group instead). Root may have as much as there is; others what they are allowed.
pub(crate) fn raise_locked_memory() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return };
    let unlimited = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if unlimited.is_err() && soft < hard {
        // A ring that then finds too little makes itself smaller, or says so.
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).ok();
    }
}

/// The cores that this process may use, in ascending order; never empty.
pub(crate) fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let mut cores: Vec<usize> =
        (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
    if cores.is_empty() {
        cores.push(0);
    }
    cores
}

/// `global.sessions_max`, or what `descriptors` allow.
///
/// # Errors
/// `descriptors` cannot hold as many as are configured, or not even one. For the operator.
pub(crate) fn sessions_max(
    config: &Config,
    workers: usize,
    descriptors: u64,
) -> Result<u32, String> {
    let reserve = reserve(config, workers as u64);
    let most = descriptors.saturating_sub(reserve) / PER_SESSION;
    let remedy = "raise the limit (systemd: LimitNOFILE=, else ulimit -Hn)";
    if let Some((wanted, place)) = config.global.sessions_max {
        let needed = reserve + PER_SESSION * u64::from(wanted.get());
        if u64::from(wanted.get()) > most {
            return Err(format!(
                "{}sessions_max = {wanted} takes {needed} file descriptors, and this process may \
                 have {descriptors}; lower it to {most}, or {remedy}",
                config.locate(place)
            ));
        }
        return Ok(wanted.get());
    }
    if most == 0 {
        return Err(format!(
            "evenkeel: {descriptors} file descriptors leave none for sessions, {reserve} are taken \
             by {workers} workers and the rest of the program; {remedy}, or lower global.workers"
        ));
    }
    Ok(u32::try_from(most.min(SESSIONS_AUTO_MAX)).unwrap_or(u32::MAX))
}

/// Descriptors that are no session's.
fn reserve(config: &Config, workers: u64) -> u64 {
    let addresses: usize = config.frontends.iter().map(|frontend| frontend.bind.len()).sum();
    let probed = config.backends.iter().filter(|backend| backend.health.check != Check::Off);
    // One probe at a time a server.
    let probes: usize = probed.map(|backend| backend.servers.len()).sum();
    let pipes = 2 * u64::from(PIPES_PER_WORKER);
    let each = RESERVE_PER_WORKER + pipes + addresses as u64;
    RESERVE + probes as u64 + workers * each
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::file;

    fn config(sessions_max: &str) -> Config {
        let text = format!(
            "[global]\nsessions_max = {sessions_max}\n[frontend.f]\nbind = [\"127.0.0.1:80\"]\n\
             backend = \"b\"\n[[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1:81\"\n"
        );
        let mut config = file::parse(&text, "x.toml").unwrap();
        config.file = Some("x.toml".into());
        config
    }

    #[test]
    fn auto_is_what_descriptors_allow() {
        let config = config("\"auto\"");
        let reserve = reserve(&config, 2);
        assert_eq!(sessions_max(&config, 2, reserve + 2001), Ok(1000));
        assert_eq!(sessions_max(&config, 2, u64::MAX), Ok(1 << 20));
    }

    #[test]
    fn a_number_that_descriptors_cannot_hold_is_refused_with_the_numbers_and_the_line() {
        let config = config("5000");
        let reserve = reserve(&config, 1);
        assert_eq!(sessions_max(&config, 1, reserve + 10_000), Ok(5000));
        let message = sessions_max(&config, 1, 1024).unwrap_err();
        assert!(message.starts_with("x.toml:2:"), "{message}");
        for part in ["5000", "1024", &(reserve + 10_000).to_string()] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn no_room_for_a_single_session_is_said() {
        let message = sessions_max(&config("\"auto\""), 4, 256).unwrap_err();
        assert!(message.contains("256") && message.contains("LimitNOFILE"), "{message}");
    }

    #[test]
    fn there_is_a_core() {
        assert!(!cores().is_empty());
    }
}
