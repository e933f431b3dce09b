//! Binding, all or none: one SO_REUSEPORT socket for each worker and address, or one unix socket
//! for all workers.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::geteuid;
use socket2::{SockRef, Socket};

use crate::config::{Config, Span};
use crate::control::cluster::Bound;
use crate::control::listen_options::ListenOptions;
use crate::control::{ip_listeners, port_owner, unix_listeners};
use crate::shared::table::Listener;
use crate::sys::address::Address;
use crate::sys::socket_file::SocketFile;
use crate::sys::zone::{self, Shown};

/// The rings of a process that was killed are closed by the kernel in the background, and they hold
/// its listening sockets: within some 100 ms, longer on a machine that is busy. A supervisor starts
/// the next process at once.
const RELEASE_TIME: Duration = Duration::from_secs(2);

/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Addresses that cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbound {
    /// For the operator, one for each address: where it is configured, the error, the remedy.
    pub lines: Vec<String>,
    /// The addresses that are in use.
    pub in_use: BTreeSet<Address>,
}

/// Listeners for every address of `config`; those in `bound` that clients reach are used again,
/// with the options of `config`. The new ones listen when this returns.
///
/// # Errors
/// Every address that cannot be bound; then nothing has changed.
pub fn bind(config: &Config, workers: usize, bound: &Bound) -> Result<Bound, Unbound> {
    let listeners = bind_new(config, workers, bound)?;
    change_options(config, &listeners, bound);
    Ok(listeners)
}

/// As [`bind`], without a change of those that are in `bound`: another process uses them as well.
///
/// # Errors
/// As [`bind`].
fn bind_new(config: &Config, workers: usize, bound: &Bound) -> Result<Bound, Unbound> {
    let mut wanted = Vec::new();
    for frontend in &config.frontends {
        let options = ListenOptions::of(frontend);
        for (bind, place) in &frontend.bind {
            wanted.extend(bind.addresses().map(|address| (address, *place, options)));
        }
    }
    let (known, new): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(address, ..)| is_kept(address, bound));
    let mut failed = Unbound { lines: Vec::new(), in_use: BTreeSet::new() };
    // First a trial of every address, so that none is bound if one fails.
    for (address, place, _) in &new {
        failed.try_address(config, address, *place, bound);
    }
    let mut made = Vec::new();
    for (address, place, options) in new {
        if failed.lines.is_empty() {
            let overlaps = bound.keys().any(|ours| overlap(ours, &address));
            let one = Bindable::new(&address, workers, options, overlaps);
            let one = failed.note(config, &address, place, one);
            made.extend(one.map(|one| (address, place, options, one)));
        }
    }
    let mut listeners = Bound::new();
    for (address, place, options, one) in made {
        if failed.lines.is_empty() {
            let listener = failed.note(config, &address, place, one.listen(&address, options));
            listeners.extend(listener.map(|listener| (address, Arc::new(listener))));
        }
    }
    if !failed.lines.is_empty() {
        return Err(failed);
    }
    for (address, ..) in known {
        if let Some(listener) = bound.get(&address) {
            listeners.insert(address, Arc::clone(listener));
        }
    }
    Ok(listeners)
}

/// Gives those of `listeners` that are in `bound` the options of `config`.
pub fn change_options(config: &Config, listeners: &Bound, bound: &Bound) {
    for frontend in &config.frontends {
        let options = ListenOptions::of(frontend);
        for address in frontend.bind.iter().flat_map(|(bind, _)| bind.addresses()) {
            let listener = listeners.get(&address).filter(|_| bound.contains_key(&address));
            listener.into_iter().for_each(|listener| change(listener, options));
        }
    }
}

/// Whether every address of `config` could be bound; nothing is bound afterwards.
///
/// # Errors
/// Every address that cannot be bound, a line each.
pub fn try_all(config: &Config, bound: &Bound) -> Result<(), Vec<String>> {
    let mut failed = Unbound { lines: Vec::new(), in_use: BTreeSet::new() };
    for (bind, place) in config.frontends.iter().flat_map(|frontend| &frontend.bind) {
        for address in bind.addresses().filter(|address| !is_kept(address, bound)) {
            failed.try_address(config, &address, *place, bound);
        }
    }
    if failed.lines.is_empty() { Ok(()) } else { Err(failed.lines) }
}

/// Whether clients still reach the listener of `bound` for an address: the file of a unix socket
/// may have been removed or replaced.
fn is_kept(address: &Address, bound: &Bound) -> bool {
    bound.get(address).is_some_and(|listener| listener.is_reached())
}

/// As [`bind_new`], for a process that starts and was given the listeners `taken`: while nothing is
/// wrong but that addresses are in use, it tries again for [`RELEASE_TIME`]. Then it says who has
/// them.
///
/// # Errors
/// As of [`bind`].
pub fn bind_at_start(config: &Config, workers: usize, taken: &Bound) -> Result<Bound, Unbound> {
    let outcome = retry(
        || bind_new(config, workers, taken),
        |unbound| !unbound.in_use.is_empty() && unbound.in_use.len() == unbound.lines.len(),
    );
    outcome.map_err(|mut unbound| {
        let owners = unbound.in_use.iter().filter_map(|address| match address {
            Address::Ip(ip) => Some((Shown(*ip).to_string(), port_owner::owner(*ip)?)),
            Address::Unix(_) => None,
        });
        let owners: Vec<(String, String)> = owners.collect();
        for (address, owner) in owners {
            let in_use = format!("{address} is in use;");
            for line in unbound.lines.iter_mut().filter(|line| line.contains(&in_use)) {
                line.push_str("; ");
                line.push_str(&owner);
            }
        }
        unbound
    })
}

/// Listens for HTTP.
///
/// # Errors
/// The address cannot be bound, for the operator.
pub fn bind_observe(address: SocketAddr) -> Result<TcpListener, String> {
    ip_listeners::bind_observe(address).map_err(|error| {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        let owner = if in_use { port_owner::owner(address) } else { None };
        let owner = owner.map(|owner| format!("; {owner}")).unwrap_or_default();
        explain(&address.into(), &error) + &owner
    })
}

/// Tries again while an error may pass. Jitter lets one of two processes that hinder each other
/// win.
fn retry<T, E>(attempt: impl Fn() -> Result<T, E>, may_pass: impl Fn(&E) -> bool) -> Result<T, E> {
    let deadline = Instant::now() + RELEASE_TIME;
    loop {
        match attempt() {
            Err(error) if may_pass(&error) && Instant::now() < deadline => {
                let jitter = RandomState::new().hash_one(std::process::id()) % 10;
                #[expect(clippy::disallowed_methods, reason = "no thread and no ring exists yet")]
                std::thread::sleep(RETRY_PAUSE + Duration::from_millis(jitter));
            }
            outcome => return outcome,
        }
    }
}

/// The sockets of one address.
enum Bindable {
    /// They are bound; not all of them listen yet.
    Ip(Vec<Socket>),
    /// It listens from the moment at which its file exists.
    Unix(Vec<OwnedFd>, SocketFile),
}

impl Bindable {
    fn new(
        address: &Address,
        workers: usize,
        options: ListenOptions,
        overlaps: bool,
    ) -> io::Result<Self> {
        match address {
            Address::Ip(ip) => ip_listeners::bind(*ip, workers, options, overlaps).map(Self::Ip),
            Address::Unix(path) => unix_listeners::bind(path, workers, options.backlog)
                .map(|(sockets, file)| Self::Unix(sockets, file)),
        }
    }

    fn listen(self, address: &Address, options: ListenOptions) -> io::Result<Listener> {
        match self {
            Self::Ip(sockets) => {
                sockets.iter().try_for_each(|socket| options.listen(socket))?;
                let sockets = sockets.into_iter().map(OwnedFd::from).collect();
                Ok(Listener::new(address.clone(), sockets))
            }
            Self::Unix(sockets, file) => {
                Ok(Listener::new(address.clone(), sockets).with_file(file))
            }
        }
    }
}

fn trial(address: &Address) -> io::Result<()> {
    match address {
        Address::Ip(ip) => ip_listeners::trial(*ip),
        Address::Unix(path) => unix_listeners::trial(path),
    }
}

/// Whether our own socket on `ours` prevents a trial of `address`.
fn overlap(ours: &Address, address: &Address) -> bool {
    let (Address::Ip(ours), Address::Ip(address)) = (ours, address) else { return false };
    ours.port() == address.port()
        && ours.is_ipv4() == address.is_ipv4()
        && (ours.ip().is_unspecified() || address.ip().is_unspecified())
}

/// Changes the options of sockets that listen.
fn change(listener: &Listener, options: ListenOptions) {
    for socket in listener.sockets() {
        let changed = match listener.address {
            Address::Ip(_) => options.change(&socket),
            Address::Unix(_) => SockRef::from(&socket).listen(options.backlog),
        };
        if let Err(error) = changed {
            let address = &listener.address;
            tracing::warn!("{address}: the options could not be changed: {error}");
        }
    }
}

/// Whether an address can be bound now.
///
/// # Errors
/// It cannot: what is wrong, and what to do.
pub fn try_bind(address: &Address) -> Result<(), String> {
    trial(address).map_err(|error| explain(address, &error))
}

impl Unbound {
    /// Notes an address that cannot be bound, unless our own socket prevents the trial.
    fn try_address(&mut self, config: &Config, address: &Address, place: Span, bound: &Bound) {
        if !bound.keys().any(|ours| overlap(ours, address)) {
            self.note(config, address, place, trial(address));
        }
    }

    fn note<T>(
        &mut self,
        config: &Config,
        address: &Address,
        place: Span,
        outcome: io::Result<T>,
    ) -> Option<T> {
        match outcome {
            Ok(done) => Some(done),
            Err(error) => {
                if error.kind() == io::ErrorKind::AddrInUse {
                    self.in_use.insert(address.clone());
                }
                let denied = error.kind() == io::ErrorKind::PermissionDenied;
                let again = if denied && config.global.user.is_some() {
                    "; or restart evenkeel as root: it drops privileges after binding"
                } else {
                    ""
                };
                let line = format!("{}{}{again}", config.locate(place), explain(address, &error));
                self.lines.push(line);
                None
            }
        }
    }
}

/// Why an address cannot be bound, and the remedy.
#[must_use]
pub fn explain(address: &Address, error: &io::Error) -> String {
    let Address::Ip(address) = address else { return error.to_string() };
    let port = address.port();
    let interface = zone::missing(*address);
    let address = Shown(*address);
    if let Some(interface) = interface {
        return format!(
            "{address} cannot be bound: this machine has no interface {interface}; `ip link` lists \
             its interfaces"
        );
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => format!(
            "{address} is in use; stop the program that uses it (`ss -ltnp sport = :{port}` shows \
             it), or choose another address"
        ),
        Some(Errno::EACCES) if geteuid().is_root() => {
            format!("{address} is not permitted; grant CAP_NET_BIND_SERVICE to this process")
        }
        Some(Errno::EACCES) => format!(
            "{address} is not permitted: ports below 1024 need a privilege; grant \
             CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; else \
             `setcap cap_net_bind_service+ep` on the program), or run \
             `sysctl -w net.ipv4.ip_unprivileged_port_start={port}`"
        ),
        Some(Errno::EADDRNOTAVAIL) => format!(
            "{address} is not an address of this machine; `ip address` lists its addresses; for an \
             address that is added later (VRRP), run `sysctl -w net.ipv{}.ip_nonlocal_bind=1`",
            if address.0.is_ipv4() { 4 } else { 6 }
        ),
        Some(Errno::EAFNOSUPPORT) => {
            format!("{address} cannot be bound: this kernel has no IPv6; remove the address")
        }
        Some(Errno::EMFILE | Errno::ENFILE) => format!(
            "{address} cannot be bound: no file descriptor is left; raise the limit (systemd: \
             LimitNOFILE=, else `ulimit -n`)"
        ),
        _ => format!("{address} cannot be bound: {error}; choose another address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(binds: &[SocketAddr]) -> Config {
        let binds: Vec<String> = binds.iter().map(ToString::to_string).collect();
        config::from_arguments(&binds, &["127.0.0.1:1".to_owned()]).unwrap()
    }

    fn free(ip: &str) -> SocketAddr {
        TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn each_worker_gets_a_socket_that_listens() {
        let address = free("127.0.0.1");
        let bound = bind(&config(&[address]), 3, &Bound::new()).unwrap();
        let sockets: Vec<_> = bound[&Address::Ip(address)].sockets().collect();
        assert_eq!(sockets.len(), 3);
        for socket in &sockets {
            let socket = SockRef::from(socket);
            assert!(socket.is_listener().unwrap() && socket.reuse_port().unwrap());
            assert!(socket.tcp_nodelay().unwrap() && !socket.nonblocking().unwrap());
        }
    }

    #[test]
    fn a_port_in_use_is_refused_even_where_it_could_be_shared() {
        let address = free("127.0.0.1");
        let first = bind(&config(&[address]), 1, &Bound::new()).unwrap();
        let unbound = bind(&config(&[address]), 1, &Bound::new()).unwrap_err();
        assert!(unbound.lines[0].contains("is in use"), "{unbound:?}");
        assert_eq!(unbound.in_use, BTreeSet::from([Address::Ip(address)]));
        drop(first);
        bind(&config(&[address]), 1, &Bound::new()).unwrap();
    }

    #[test]
    fn one_address_that_fails_leaves_nothing_bound() {
        let (free, taken) = (free("127.0.0.1"), TcpListener::bind("127.0.0.1:0").unwrap());
        let both = config(&[free, taken.local_addr().unwrap()]);
        assert_eq!(bind(&both, 2, &Bound::new()).unwrap_err().lines.len(), 1);
        TcpListener::bind(free).unwrap();
    }

    #[test]
    fn an_address_that_stays_keeps_its_sockets() {
        let (stays, goes, comes) = (free("127.0.0.1"), free("127.0.0.1"), free("127.0.0.1"));
        let before = bind(&config(&[stays, goes]), 1, &Bound::new()).unwrap();
        let after = bind(&config(&[stays, comes]), 1, &before).unwrap();
        assert!(Arc::ptr_eq(&before[&Address::Ip(stays)], &after[&Address::Ip(stays)]));
        assert!(after.contains_key(&Address::Ip(comes)) && !after.contains_key(&Address::Ip(goes)));
    }

    #[test]
    fn an_address_can_follow_the_wildcard_of_its_port() {
        let address = free("127.0.0.1");
        let all = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let before = bind(&config(&[all]), 1, &Bound::new()).unwrap();
        let after = bind(&config(&[address]), 1, &before).unwrap();
        assert!(after.contains_key(&Address::Ip(address)) && after.len() == 1);
    }

    #[test]
    fn an_address_of_another_machine_is_named_as_such() {
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 8080));
        let unbound = bind(&config(&[elsewhere]), 1, &Bound::new()).unwrap_err();
        assert!(unbound.lines[0].contains("not an address of this machine"), "{unbound:?}");
    }

    #[test]
    fn a_privileged_port_names_the_capability() {
        let error = io::Error::from_raw_os_error(Errno::EACCES as i32);
        let line = explain(&SocketAddr::from(([0, 0, 0, 0], 80)).into(), &error);
        assert!(line.contains("CAP_NET_BIND_SERVICE"), "{line}");
    }
}
