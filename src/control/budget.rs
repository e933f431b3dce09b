//! The limit of sessions: how many the descriptors of this process can hold beside those that the
//! configuration takes, at the start and at each reload; and the memory for bytes in flight.

use crate::config::{self, BackendSettings, Check, Config, Observe};
use crate::control::resolve::{MULTICAST_SOCKETS_MAX, is_local};
use crate::sys::buffer::BUFFER_SIZE;
use crate::sys::pipe::PipeLimits;
use crate::terms::counted;

/// Standard streams, the log, DNS, timers: about 20 at once, and as many for what a reload adds
/// before the old is closed.
const RESERVE: u64 = 48;

/// For each worker: its ring, its waker, and one spare.
const RESERVE_PER_WORKER: u64 = 3;

/// A session has two sockets.
const PER_SESSION: u64 = 2;

/// The most that "auto" allows: container runtimes set the limit of descriptors to 10^9, and memory
/// ends long before.
const SESSIONS_AUTO_MAX: u64 = 1 << 20;

/// Buffers and pipes of all workers together get one part in so many of the memory. The rest is for
/// the kernel's socket buffers, which are charged to the same cgroup, and for sessions and rings.
const SHARE: u64 = 4;

/// Where memory is scarce, pipes get one part in so many of it.
const PIPES_SHARE: u64 = 8;

/// Buffers that "auto" gives to a worker with few sessions, so that each has several.
const BUFFERS_AUTO_MIN: u64 = 512;

/// Memory of one worker for bytes in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of buffers, at most.
    pub buffers: u64,
    /// Pipes, at most.
    pub pipes: PipeLimits,
}

/// The memory of each of `workers`: `global.buffers`; or, within a quarter of `memory` for all of
/// them together, one buffer for each session beside the `pipes` that a worker can use. Where that
/// is scarce, pipes get an eighth of it: without a pipe bulk is copied, but without a buffer no
/// session moves.
pub fn memory(
    config: &Config,
    workers: usize,
    sessions_max: u32,
    memory: u64,
    pipes: PipeLimits,
) -> Memory {
    let wanted = u64::from(sessions_max).max(BUFFERS_AUTO_MIN) * BUFFER_SIZE as u64;
    let auto = || (wanted + pipes.bytes()).min(memory / SHARE / (workers as u64).max(1));
    let ceiling = config.global.buffers.unwrap_or_else(auto);
    let pipes = pipes.within(ceiling - wanted.min(ceiling - ceiling / PIPES_SHARE));
    Memory { buffers: ceiling - pipes.bytes(), pipes }
}

/// The descriptors of this process, and what they are for.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// The limit of this process (`RLIMIT_NOFILE`).
    pub descriptors: u64,
    /// Worker threads.
    pub workers: usize,
    /// Descriptors that were open when the process started, beside the standard streams.
    pub inherited: u64,
    /// Pipes that each of them makes at most.
    pub pipes_per_worker: u16,
    /// Connections at most, to `observe.bind` and to the control socket.
    pub observe_connections: [usize; 2],
}

impl Budget {
    /// `global.sessions_max`, or what the descriptors allow. `addresses` gives the number of
    /// addresses of a host name, or of all servers of an SRV name.
    ///
    /// # Errors
    /// The descriptors cannot hold as many as are configured, or not even one. For the operator.
    pub fn sessions_max(
        &self,
        config: &Config,
        addresses: impl Fn(&str) -> usize,
    ) -> Result<u32, String> {
        let Self { descriptors, workers, .. } = *self;
        let reserve = self.reserve(config, &addresses);
        let most = descriptors.saturating_sub(reserve) / PER_SESSION;
        let remedy = "raise the limit (systemd: LimitNOFILE=, else ulimit -Hn)";
        if let Some((wanted, place)) = config.global.sessions_max {
            let needed = self.needed(config, addresses, wanted.get());
            if u64::from(wanted.get()) > most {
                let lower =
                    if most > 0 { format!("lower it to {most}, or ") } else { String::new() };
                return Err(format!(
                    "{}sessions_max = {wanted} needs {needed} file descriptors{}, and the limit of \
                     this process is {descriptors}; {lower}{remedy}",
                    config.locate(place),
                    self.inherited_text()
                ));
            }
            return Ok(wanted.get());
        }
        if most == 0 {
            return Err(format!(
                "evenkeel: the limit of {descriptors} file descriptors leaves none for sessions: \
                 {}, listening sockets, probes and the rest of the program need \
                 {reserve}{}; {remedy}, or lower global.workers",
                counted(workers, "worker"),
                self.inherited_text()
            ));
        }
        Ok(u32::try_from(most.min(SESSIONS_AUTO_MAX)).unwrap_or(u32::MAX))
    }

    /// What those who started the process left open, if they did.
    fn inherited_text(&self) -> String {
        match self.inherited {
            0 => String::new(),
            count => format!(" ({count} of them were open before it started)"),
        }
    }

    /// Descriptors for so many sessions beside what `config` takes.
    pub fn needed(&self, config: &Config, addresses: impl Fn(&str) -> usize, sessions: u32) -> u64 {
        self.reserve(config, addresses) + PER_SESSION * u64::from(sessions)
    }

    /// The limit of sessions with which `config` fits into a process that was started with `max`:
    /// at a reload, or when host names have more addresses. Only an `auto` limit is lowered; it
    /// rises again up to `max`, for which workers have room.
    ///
    /// # Errors
    /// It does not fit under the limit as written, or not with a single session. For the operator.
    pub fn refit(
        &self,
        config: &Config,
        addresses: impl Fn(&str) -> usize,
        max: u32,
        auto: bool,
    ) -> Result<u32, String> {
        let reserve = self.reserve(config, addresses);
        let most = self.descriptors.saturating_sub(reserve) / PER_SESSION;
        if most >= u64::from(max) {
            return Ok(max);
        }
        if auto && most > 0 {
            return Ok(u32::try_from(most).unwrap_or(max));
        }
        let needed = reserve + PER_SESSION * if auto { 1 } else { u64::from(max) };
        let lower = if auto || most == 0 {
            String::new()
        } else {
            format!(" with sessions_max = {most} or")
        };
        let descriptors = self.descriptors;
        Err(format!(
            "{needed} file descriptors are needed, {reserve} of them for workers, listening \
             sockets and probes, and the limit of this process is {descriptors}; listen on or \
             probe fewer addresses, or restart{lower} with a higher limit (systemd: LimitNOFILE=, \
             else ulimit -Hn)"
        ))
    }

    /// Descriptors that `config` takes for everything but sessions.
    pub fn reserve(&self, config: &Config, addresses: impl Fn(&str) -> usize) -> u64 {
        let binds = config.frontends.iter().flat_map(|frontend| &frontend.bind);
        let listened: usize = binds.map(|(bind, _)| bind.count()).sum();
        let probed = config.backends.iter().filter(|backend| backend.health.check != Check::Off);
        // Each address has one probe at a time.
        let probes = probed.map(|backend| {
            let listed = backend.servers.iter();
            let listed =
                listed.map(|server| server.address.host().map_or(1, |host| addresses(host).max(1)));
            listed.sum::<usize>() + backend.srv.as_deref().map_or(0, &addresses)
        });
        let pipes = 2 * u64::from(self.pipes_per_worker);
        let each = RESERVE_PER_WORKER + pipes + listened as u64;
        let Observe { bind, control, .. } = &config.observe;
        let [http, orders] = self.observe_connections;
        let observe = usize::from(bind.is_some()) * http + usize::from(control.is_some()) * orders;
        // The targets of an SRV name may be in .local as well.
        let is_local = |server: &config::Server| server.address.host().is_some_and(is_local);
        let asks = |backend: &BackendSettings| {
            backend.srv.is_some() || backend.servers.iter().any(is_local)
        };
        let asks = config.backends.iter().any(|backend| asks(backend));
        let multicast = if asks { MULTICAST_SOCKETS_MAX } else { 0 };
        let others = probes.sum::<usize>() + observe + multicast;
        RESERVE + self.inherited + others as u64 + self.workers as u64 * each
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ServerAddress};

    const PIPES: PipeLimits = PipeLimits { count: 64, size: 512 << 10 };

    fn config(sessions_max: &str) -> Config {
        let text = format!(
            "[global]\nsessions_max = {sessions_max}\n[frontend.f]\nbind = [\"127.0.0.1:80\"]\n\
             backend = \"b\"\n[[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1:81\"\n"
        );
        let mut config = config::parse(&text, "x.toml").unwrap();
        config.file = Some("x.toml".into());
        config
    }

    fn budget(workers: usize, descriptors: u64) -> Budget {
        let observe_connections = [100, 10];
        Budget { descriptors, workers, inherited: 0, pipes_per_worker: 64, observe_connections }
    }

    fn reserve(config: &Config, workers: usize) -> u64 {
        budget(workers, 0).reserve(config, |_| 1)
    }

    fn sessions_max(config: &Config, workers: usize, descriptors: u64) -> Result<u32, String> {
        budget(workers, descriptors).sessions_max(config, |_| 1)
    }

    #[test]
    fn automatic_memory_is_a_buffer_for_each_session_and_pipes_within_a_quarter_of_all() {
        let config = config("\"auto\"");
        let auto = |workers, sessions, bytes| memory(&config, workers, sessions, bytes, PIPES);
        let size = BUFFER_SIZE as u64;
        let plenty = |buffers| Memory { buffers, pipes: PIPES };
        assert_eq!(auto(4, 10_000, u64::MAX), plenty(10_000 * size));
        assert_eq!(auto(4, 10, u64::MAX), plenty(512 * size), "several for each of a few");
        let pipes = |count, size| PipeLimits { count, size };
        let scarce = auto(4, 10_000, 64 << 20);
        let most = Memory { buffers: 7 << 19, pipes: pipes(8, 64 << 10) };
        assert_eq!(scarce, most, "a quarter for four workers, most of it for buffers");
        let most = Memory { buffers: 14 << 20, pipes: pipes(8, 256 << 10) };
        assert_eq!(auto(1, 10_000, 64 << 20), most);
    }

    #[test]
    fn written_memory_is_what_is_written() {
        let mut config = config("\"auto\"");
        for ceiling in [64 << 10, 4 << 20, 1 << 30] {
            config.global.buffers = Some(ceiling);
            for sessions in [10, 1 << 20] {
                let Memory { buffers, pipes } = memory(&config, 4, sessions, 64 << 20, PIPES);
                assert_eq!(buffers + pipes.bytes(), ceiling);
                assert!(buffers >= ceiling / 8 * 7, "{buffers} of {ceiling}");
            }
        }
        config.global.buffers = Some(64 << 10);
        let pipes = memory(&config, 4, 10, 64 << 20, PIPES).pipes;
        assert_eq!(pipes.count, 0, "not even one of 64 KiB");
    }

    #[test]
    fn connections_to_observe_take_no_descriptor_from_sessions() {
        let mut config = config("\"auto\"");
        assert!(config.observe.bind.is_some() && config.observe.control.is_some());
        let both = reserve(&config, 1);
        config.observe.control = None;
        assert_eq!(reserve(&config, 1), both - 10);
        config.observe.bind = None;
        assert_eq!(
            reserve(&config, 1),
            both - 110,
            "nobody connects to a socket that is turned off"
        );
    }

    #[test]
    fn each_address_of_a_probed_name_takes_a_descriptor() {
        let mut config = config("\"auto\"");
        let host = "pi".to_owned();
        std::sync::Arc::make_mut(&mut config.backends[0]).servers[0].address =
            ServerAddress::Name { host, port: 81 };
        let of = |addresses| budget(1, 0).reserve(&config, |_| addresses);
        assert_eq!((of(0), of(64)), (of(1), of(1) + 63));
    }

    #[test]
    fn names_in_local_and_srv_names_reserve_the_sockets_of_multicast_dns() {
        let mut config = config("\"auto\"");
        let of = |config: &Config| budget(1, 0).reserve(config, |_| 1);
        let without = of(&config);
        let backend = std::sync::Arc::make_mut(&mut config.backends[0]);
        backend.srv = Some("_web._tcp.example".to_owned());
        let multicast = MULTICAST_SOCKETS_MAX as u64;
        assert_eq!(of(&config), without + multicast + 1, "and a probe of its target");
        let backend = std::sync::Arc::make_mut(&mut config.backends[0]);
        backend.srv = None;
        let host = "pi.local".to_owned();
        backend.servers[0].address = ServerAddress::Name { host, port: 81 };
        assert_eq!(of(&config), without + multicast);
    }

    #[test]
    fn each_port_of_a_range_takes_a_descriptor_of_each_worker() {
        let config = |bind: &str| {
            let binds = [bind.to_owned()];
            config::from_arguments(&binds, &["127.0.0.1:81".to_owned()]).unwrap()
        };
        let (one, range) = (config("127.0.0.1:7000"), config("127.0.0.1:7000-7010"));
        assert_eq!(reserve(&range, 3), reserve(&one, 3) + 3 * 10);
        assert_eq!(reserve(&config("unix:/run/x.sock"), 3), reserve(&one, 3));
    }

    #[test]
    fn a_configured_limit_that_no_longer_fits_is_refused_and_auto_is_lowered() {
        let config = config("5000");
        let reserve = reserve(&config, 1);
        let refit = |descriptors, auto| budget(1, descriptors).refit(&config, |_| 1, 5000, auto);
        assert_eq!(refit(reserve + 10_000, false), Ok(5000));
        assert_eq!(refit(reserve + 20_000, true), Ok(5000), "workers have room for no more");
        assert_eq!(refit(reserve + 9000, true), Ok(4500));
        let message = refit(reserve + 9000, false).unwrap_err();
        for part in [reserve + 10_000, reserve, reserve + 9000, 4500] {
            assert!(message.contains(&part.to_string()), "{part}: {message}");
        }
        assert!(refit(reserve, true).unwrap_err().contains("LimitNOFILE"));
    }

    #[test]
    fn auto_is_what_descriptors_allow() {
        let config = config("\"auto\"");
        let reserve = reserve(&config, 2);
        assert_eq!(sessions_max(&config, 2, reserve + 2 * 1000), Ok(1000));
        assert_eq!(sessions_max(&config, 2, reserve + 2 * 31), Ok(31), "few are worth more");
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
    fn descriptors_that_are_open_at_the_start_are_reserved_and_named() {
        let config = config("\"auto\"");
        let with = |inherited| Budget { inherited, ..budget(1, 1024) };
        let of = |inherited: u64| with(inherited).sessions_max(&config, |_| 1);
        assert_eq!(of(600), of(0).map(|sessions| sessions - 300));
        assert!(of(1000).unwrap_err().contains("1000 of them were open before it started"));
    }

    #[test]
    fn no_descriptor_for_a_single_session_is_an_error() {
        let message = sessions_max(&config("\"auto\""), 4, 256).unwrap_err();
        assert!(message.contains("256") && message.contains("LimitNOFILE"), "{message}");
    }
}
