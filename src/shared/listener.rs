//! The listening sockets of one address.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::address::Address;
use crate::sys::socket_file::SocketFile;
use crate::terms::WorkerIndex;

/// One address that a frontend listens on: one SO_REUSEPORT socket for each worker; or one socket
/// that several workers share, of which each has a descriptor.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub address: Address,
    /// Slot n is of worker n modulo `workers`; none before the socket listens, and once the worker
    /// has closed it.
    slots: Vec<Mutex<Option<Arc<OwnedFd>>>>,
    workers: usize,
    /// Another process has bound the sockets, and may still have them: a service manager, or a
    /// process that was replaced.
    inherited: bool,
    /// Several workers accept from one socket.
    shared: bool,
    /// A new process accepts from these sockets.
    handed_over: AtomicBool,
    /// Of a unix socket that is not removed yet.
    file: Mutex<Option<SocketFile>>,
}

impl Listener {
    /// Listening sockets in blocking mode, one for each worker.
    #[must_use]
    pub fn new(address: impl Into<Address>, sockets: Vec<OwnedFd>) -> Self {
        let workers = sockets.len().max(1);
        let address = address.into();
        let shared = address.is_unix();
        let slots = sockets.into_iter().map(|socket| Mutex::new(Some(Arc::new(socket)))).collect();
        Self {
            address,
            slots,
            workers,
            inherited: false,
            shared,
            handed_over: AtomicBool::new(false),
            file: Mutex::default(),
        }
    }

    /// Another process has bound its sockets. They are those of `workers` workers, in turn: one may
    /// have several, or none yet.
    #[must_use]
    pub fn over(mut self, workers: usize) -> Self {
        self.inherited = true;
        self.workers = workers.max(1);
        let missing = self.workers.saturating_sub(self.slots.len());
        self.slots.extend((0..missing).map(|_| Mutex::default()));
        self
    }

    /// Several workers accept from one socket.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// With the file of a unix socket.
    #[must_use]
    pub fn with_file(self, file: SocketFile) -> Self {
        Self { file: Mutex::new(Some(file)), ..self }
    }

    /// Whether several workers accept from one socket.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether each socket is that of one worker alone, so that shutdown(2) stops it for no other
    /// worker and no other process.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        !self.shared && !self.inherited
    }

    /// Removes the file of a unix socket: no further client can connect. Clients that wait in the
    /// backlog are still accepted.
    pub fn remove_file(&self) {
        lock(&self.file).take();
    }

    /// Whether its address leads to it: the file of a unix socket is still its own.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        lock(&self.file).as_ref().is_none_or(SocketFile::is_in_place)
    }

    /// A new process accepts from these sockets, and owns the file of a unix socket.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
        if let Some(file) = lock(&self.file).take() {
            file.keep();
        }
    }

    /// The process that has bound a unix socket has given its file up.
    pub fn own_file(&self) {
        lock(&self.file).iter_mut().for_each(SocketFile::own);
    }

    /// Whether a new process accepts from these sockets.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// Device and inode of the file of a unix socket.
    #[must_use]
    pub fn file_identity(&self) -> Option<(u64, u64)> {
        lock(&self.file).as_ref().map(SocketFile::identity)
    }

    /// Gives the file of a unix socket to the user that the process becomes, so that this user can
    /// remove it.
    ///
    /// # Errors
    /// Not permitted.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        lock(&self.file).as_ref().map_or(Ok(()), |file| file.give_to(user, group))
    }

    /// The sockets of a worker that are not closed, each with its slot.
    pub fn sockets_of(&self, worker: WorkerIndex) -> impl Iterator<Item = (usize, Arc<OwnedFd>)> {
        let slots = self.slots.iter().enumerate().skip(worker.0).step_by(self.workers);
        slots.filter_map(|(slot, socket)| Some((slot, lock(socket).clone()?)))
    }

    /// The slots of all workers but these.
    pub fn slots_without(&self, workers: &[WorkerIndex]) -> impl Iterator<Item = u32> {
        let slots = (0..self.slots.len()).filter(|slot| lock(&self.slots[*slot]).is_some());
        let others = slots.filter(|slot| !workers.contains(&WorkerIndex(slot % self.workers)));
        others.filter_map(|slot| u32::try_from(slot).ok())
    }

    /// All sockets that are not closed.
    pub fn sockets(&self) -> impl Iterator<Item = Arc<OwnedFd>> {
        self.slots.iter().filter_map(|slot| lock(slot).clone())
    }

    /// Gives a worker that has no socket yet one that listens; it accepts from the next table on.
    ///
    /// # Panics
    /// The worker has a socket.
    pub fn open(&self, worker: WorkerIndex, socket: OwnedFd) {
        let before = lock(&self.slots[worker.0]).replace(Arc::new(socket));
        assert!(before.is_none(), "worker {} has a socket of {}", worker.0, self.address);
    }

    /// Gives up the socket in a slot: it is closed once the worker has dropped its own reference.
    pub fn close(&self, slot: usize) {
        if let Some(slot) = self.slots.get(slot) {
            lock(slot).take();
        }
    }
}

fn lock<T>(slot: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    // Nothing panics while it is held, and a panic would end the process.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn sockets(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect()
    }

    fn slots_of(listener: &Listener, worker: usize) -> Vec<usize> {
        listener.sockets_of(WorkerIndex(worker)).map(|(slot, _)| slot).collect()
    }

    fn listener(count: usize) -> Listener {
        Listener::new(std::net::SocketAddr::from(([127, 0, 0, 1], 80)), sockets(count))
    }

    #[test]
    fn each_socket_belongs_to_one_worker_whatever_their_numbers_are() {
        let more = listener(5).over(2);
        assert_eq!((slots_of(&more, 0), slots_of(&more, 1)), (vec![0, 2, 4], vec![1, 3]));
        let fewer = listener(1).over(3);
        assert!(listener(1).is_exclusive() && !fewer.is_exclusive());
        assert_eq!((slots_of(&fewer, 0), slots_of(&fewer, 2)), (vec![0], vec![]));
        fewer.open(WorkerIndex(2), sockets(1).remove(0));
        assert_eq!(slots_of(&fewer, 2), [2]);
        fewer.close(2);
        assert!(slots_of(&fewer, 2).is_empty() && fewer.sockets().count() == 1);
    }
}
