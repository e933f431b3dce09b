//! Listening sockets that this process has not bound: from the process that it replaces, or from a
//! service manager (`sd_listen_fds(3)`). They are found by their addresses, and never bound again,
//! so that what waits in their backlogs is kept.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use socket2::{SockRef, Socket, Type};

use crate::config::Config;
use crate::control::cluster::Bound;
use crate::control::listen_options::ListenOptions;
use crate::control::upgrade::messages::{Offered, Role};
use crate::control::{ip_listeners, listeners};
use crate::shared::table::Listener;
use crate::sys::address::Address;
use crate::sys::descriptors;
use crate::sys::socket_file::SocketFile;
use crate::terms::WorkerIndex;

/// Sockets that are not used yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
    /// The places in the offer of unix sockets whose files are gone: no client can connect to them.
    unreachable: Vec<usize>,
}

/// A listening socket that another process has bound.
#[derive(Debug)]
struct InheritedSocket {
    /// Its place in the offer; none: it is from a service manager.
    index: Option<usize>,
    /// None: any.
    role: Option<Role>,
    address: Address,
    socket: OwnedFd,
    file: Option<(u64, u64)>,
    /// For the log.
    name: String,
}

/// A socket that was bound beside inherited ones, for a worker that would have none.
#[derive(Debug)]
pub struct UnopenedSocket {
    listener: Arc<Listener>,
    worker: WorkerIndex,
    socket: Socket,
    options: ListenOptions,
}

impl UnopenedSocket {
    /// Listens: from now on the kernel gives it its share of the clients, which wait for its worker
    /// to accept from it. To be called when nothing can fail any more, or they would be lost.
    ///
    /// # Errors
    /// The address is not available any more.
    pub fn listen(self) -> io::Result<()> {
        self.options.listen(&self.socket)?;
        self.listener.open(self.worker, self.socket.into());
        Ok(())
    }
}

impl Inherited {
    /// The sockets that a service manager has passed to this process.
    #[must_use]
    pub fn from_service_manager() -> Self {
        let number = |name| env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
        let count =
            number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id()));
        let passed = descriptors::take_passed(count.map_or(0, |count| count as usize));
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let mut found = Self::default();
        for (socket, name) in passed.into_iter().zip(names) {
            match address_of(&socket) {
                Ok(address) => found.sockets.push(InheritedSocket {
                    index: None,
                    role: None,
                    address,
                    socket,
                    file: None,
                    name,
                }),
                Err(why) => tracing::warn!("a socket of LISTEN_FDS ({name}) is not used: {why}"),
            }
        }
        found
    }

    /// Adds a socket of an old process, with its place in the offer.
    ///
    /// # Errors
    /// It does not listen.
    pub(super) fn add(
        &mut self,
        index: usize,
        offered: Offered,
        socket: OwnedFd,
    ) -> Result<(), String> {
        let address = address_of(&socket)?;
        let Offered { role, file } = offered;
        let (index, role, name) = (Some(index), Some(role), String::new());
        self.sockets.push(InheritedSocket { index, role, address, socket, file, name });
        Ok(())
    }

    /// Takes the sockets of an address.
    fn take(&mut self, role: Role, address: &Address) -> Vec<InheritedSocket> {
        let is_it = |one: &mut InheritedSocket| {
            one.address == *address && one.role.is_none_or(|of| of == role)
        };
        self.sockets.extract_if(.., is_it).collect()
    }

    /// How many sockets there are, without those beyond one for each of `workers` and address.
    #[must_use]
    pub fn listening(&self, workers: usize) -> u64 {
        let mut counts: BTreeMap<&Address, usize> = BTreeMap::new();
        for one in &self.sockets {
            *counts.entry(&one.address).or_default() += 1;
        }
        counts.into_values().map(|count| count.min(workers) as u64).sum()
    }

    /// The socket of `observe.bind`.
    #[must_use]
    pub fn observe(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let found = self.take(Role::Observe, &Address::Ip(address)).into_iter().next()?;
        Some(Socket::from(found.socket).into())
    }

    /// The control socket at `path`, with its file unless a service manager has it.
    #[must_use]
    pub fn control(&mut self, path: &Path) -> Option<(OwnedFd, Option<SocketFile>)> {
        let address = Address::Unix(path.into());
        self.unix(Role::Control, &address, path)
    }

    fn unix(
        &mut self,
        role: Role,
        address: &Address,
        path: &Path,
    ) -> Option<(OwnedFd, Option<SocketFile>)> {
        let one = self.take(role, address).into_iter().next()?;
        let Some(identity) = one.file else { return Some((one.socket, None)) };
        match SocketFile::adopt(path, identity) {
            Ok(file) => Some((one.socket, Some(file))),
            Err(_) => {
                self.unreachable.extend(one.index);
                None
            }
        }
    }

    /// The listeners of `config` whose addresses have sockets here, for any number of workers: one
    /// may have several sockets, and those that would have none get new ones. If these cannot be
    /// bound (another user has bound the others, or a port below 1024 needs a privilege), workers
    /// share sockets.
    ///
    /// # Errors
    /// No descriptor is left: for the operator.
    pub fn listeners(
        &mut self,
        config: &Config,
        workers: usize,
    ) -> Result<(Bound, Vec<UnopenedSocket>), String> {
        let (mut bound, mut unopened) = (Bound::new(), Vec::new());
        for frontend in &config.frontends {
            let options = ListenOptions::of(frontend);
            for address in frontend.bind.iter().flat_map(|(bind, _)| bind.addresses()) {
                let found = match &address {
                    Address::Unix(path) => self.unix_listener(&address, path, workers),
                    Address::Ip(ip) => self.ip_listener(*ip, workers, options, &mut unopened),
                };
                let found = found.map_err(|error| listeners::explain(&address, &error))?;
                bound.extend(found.map(|listener| (address, listener)));
            }
        }
        Ok((bound, unopened))
    }

    fn unix_listener(
        &mut self,
        address: &Address,
        path: &Path,
        workers: usize,
    ) -> io::Result<Option<Arc<Listener>>> {
        let Some((socket, file)) = self.unix(Role::Frontend, address, path) else {
            return Ok(None);
        };
        blocking(&socket)?;
        let listener = Listener::new(address.clone(), copies(vec![socket], workers)?);
        Ok(Some(Arc::new(match file {
            Some(file) => listener.with_file(file),
            None => listener,
        })))
    }

    fn ip_listener(
        &mut self,
        ip: SocketAddr,
        workers: usize,
        options: ListenOptions,
        unopened: &mut Vec<UnopenedSocket>,
    ) -> io::Result<Option<Arc<Listener>>> {
        let found = self.take(Role::Frontend, &Address::Ip(ip));
        let found: Vec<OwnedFd> = found.into_iter().map(|one| one.socket).collect();
        if found.is_empty() {
            return Ok(None);
        }
        for socket in &found {
            blocking(socket)?;
            SockRef::from(socket).set_tcp_nodelay(true)?;
        }
        let missing = found.len()..workers;
        let new: io::Result<Vec<Socket>> =
            missing.clone().map(|_| ip_listeners::bind_shared(ip)).collect();
        let Ok(new) = new else {
            let sockets = copies(found, workers)?;
            return Ok(Some(Arc::new(Listener::new(ip, sockets).over(workers).shared())));
        };
        let listener = Arc::new(Listener::new(ip, found).over(workers));
        unopened.extend(missing.zip(new).map(|(worker, socket)| UnopenedSocket {
            listener: Arc::clone(&listener),
            worker: WorkerIndex(worker),
            socket,
            options,
        }));
        Ok(Some(listener))
    }

    /// The places in the offer of what was not used; what a service manager has passed is reported.
    /// All of it is closed here.
    #[must_use]
    pub fn unused(self) -> Vec<usize> {
        let mut unused = self.unreachable;
        for InheritedSocket { index, address, name, .. } in self.sockets {
            match index {
                Some(index) => unused.push(index),
                None => tracing::warn!(
                    "the inherited socket {address} ({name}) is not used: no bind, observe.bind \
                     or observe.control has its address"
                ),
            }
        }
        unused
    }
}

/// The address of a listening stream socket.
fn address_of(socket: &OwnedFd) -> Result<Address, String> {
    let socket = SockRef::from(socket);
    let failed = |error: io::Error| format!("it is no listening socket ({error})");
    if socket.r#type().map_err(failed)? != Type::STREAM || !socket.is_listener().map_err(failed)? {
        return Err("it is no listening stream socket".to_owned());
    }
    let address = socket.local_addr().map_err(failed)?;
    match (address.as_socket(), address.as_pathname()) {
        (Some(ip), _) => Ok(Address::Ip(ip)),
        (None, Some(path)) => Ok(Address::Unix(path.into())),
        (None, None) => Err("its address is neither IP nor a path".to_owned()),
    }
}

/// An accept of a ring fails at once on a socket in non-blocking mode.
fn blocking(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_nonblocking(false)
}

/// At least one descriptor for each worker.
fn copies(mut sockets: Vec<OwnedFd>, workers: usize) -> io::Result<Vec<OwnedFd>> {
    let found = sockets.len();
    for worker in found..workers {
        sockets.push(sockets[worker % found].try_clone()?);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn inherited(addresses: &[SocketAddr], each: usize) -> Inherited {
        let mut inherited = Inherited::default();
        for address in addresses {
            for _ in 0..each {
                let socket = ip_listeners::bind_shared(*address).unwrap();
                socket.listen(16).unwrap();
                let offered = Offered { role: Role::Frontend, file: None };
                let index = inherited.sockets.len();
                inherited.add(index, offered, socket.into()).unwrap();
            }
        }
        inherited
    }

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn config(address: SocketAddr) -> Config {
        config::from_arguments(&[address.to_string()], &["127.0.0.1:1".to_owned()]).unwrap()
    }

    fn counts(listener: &Listener, workers: usize) -> Vec<usize> {
        (0..workers).map(|worker| listener.sockets_of(WorkerIndex(worker)).count()).collect()
    }

    #[test]
    fn sockets_are_used_for_any_number_of_workers_and_the_rest_is_named() {
        let (stays, goes) = (free(), free());
        let mut more = inherited(&[goes, stays], 5);
        let (bound, unopened) = more.listeners(&config(stays), 2).unwrap();
        assert_eq!(counts(&bound[&Address::Ip(stays)], 2), [3, 2]);
        assert!(unopened.is_empty());
        assert_eq!(more.unused(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_worker_without_a_socket_gets_a_new_one_that_listens_when_the_start_is_certain() {
        let address = free();
        let mut fewer = inherited(&[address], 1);
        let (bound, unopened) = fewer.listeners(&config(address), 3).unwrap();
        let listener = &bound[&Address::Ip(address)];
        assert_eq!(counts(listener, 3), [1, 0, 0]);
        unopened.into_iter().for_each(|extra| extra.listen().unwrap());
        assert_eq!(counts(listener, 3), [1, 1, 1]);
        assert!(!listener.is_shared());
    }

    #[test]
    fn workers_share_a_socket_that_allows_no_other_beside_it() {
        let address = free();
        let socket = TcpListener::bind(address).unwrap();
        let mut one = Inherited::default();
        one.add(0, Offered { role: Role::Frontend, file: None }, socket.into()).unwrap();
        let (bound, unopened) = one.listeners(&config(address), 3).unwrap();
        let listener = &bound[&Address::Ip(address)];
        assert_eq!(counts(listener, 3), [1, 1, 1]);
        assert!(listener.is_shared() && unopened.is_empty());
    }

    #[test]
    fn a_socket_of_another_role_is_not_taken_and_a_file_is_no_socket() {
        let address = free();
        let mut sockets = inherited(&[address], 1);
        assert!(sockets.observe(address).is_none());
        let file = std::fs::File::open("/dev/null").unwrap();
        let offered = Offered { role: Role::Frontend, file: None };
        assert!(sockets.add(1, offered, file.into()).is_err());
    }
}
