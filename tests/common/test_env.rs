//! The directory and the loopback address of one test.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// The number of addresses that tests of this process have taken.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Read-locked by each test; write-locked by a test that must run alone.
static RUNNING: RwLock<()> = RwLock::new(());

thread_local! {
    /// Whether the test of this thread holds [`RUNNING`]. If it locked it again while another test
    /// waits to write it, both would wait for ever.
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// An empty directory, and an address in 127.64.0.0/10 on which every port is free.
#[derive(Debug)]
pub(crate) struct TestEnv {
    ip: IpAddr,
    folder: PathBuf,
    /// Reserves the address: another test process may compute the same one from its process id.
    _reservation: Socket,
    /// None if another environment of the test holds it.
    lock: Option<Lock>,
}

/// The lock of [`RUNNING`] that a test holds.
#[derive(Debug)]
enum Lock {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Exclusive(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

impl TestEnv {
    /// # Panics
    /// If the test has one already: see [`TestEnv::another`].
    #[track_caller]
    pub(crate) fn new() -> Self {
        note_running();
        let lock = Lock::Shared(RUNNING.read().unwrap_or_else(PoisonError::into_inner));
        Self::with(Some(lock))
    }

    /// For a test that needs most of the machine, or measures time or memory: no other test of this
    /// process runs meanwhile.
    ///
    /// # Panics
    /// If the test has one already.
    #[track_caller]
    pub(crate) fn exclusive() -> Self {
        note_running();
        let lock = Lock::Exclusive(RUNNING.write().unwrap_or_else(PoisonError::into_inner));
        Self::with(Some(lock))
    }

    /// A further directory and address for the same test, to be dropped before this one.
    pub(crate) fn another(&self) -> Self {
        Self::with(None)
    }

    fn with(lock: Option<Lock>) -> Self {
        raise_descriptors();
        let pid = std::process::id();
        for _ in 0..1000 {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed);
            let offset = pid.wrapping_mul(97).wrapping_add(number) % (1 << 22);
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + offset);
            if let Some(reservation) = reserve(ip) {
                let folder = std::env::temp_dir().join(format!("evenkeel-{pid}-{number}"));
                fs::create_dir_all(&folder).unwrap();
                return Self { ip: ip.into(), folder, _reservation: reservation, lock };
            }
        }
        panic!("no loopback address is free");
    }

    /// A port of the address of this test. Ports below the ephemeral ports are free.
    pub(crate) fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    /// The address of the first frontend.
    pub(crate) fn frontend(&self) -> SocketAddr {
        self.port(8000)
    }

    /// The address of /metrics and the status page.
    pub(crate) fn observe(&self) -> SocketAddr {
        self.port(8404)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[track_caller]
fn note_running() {
    let is_second = IS_RUNNING.replace(true);
    assert!(!is_second, "the test has an environment: take TestEnv::another() of it");
}

/// Raises the limit of descriptors: each client and each server of a test is a descriptor of this
/// process, and 1,024, the usual soft limit, are too few for tests that run in parallel.
fn raise_descriptors() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    });
}

/// Binds a socket that never listens: no other test process can bind the same port.
fn reserve(ip: Ipv4Addr) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 7007)).into()).ok()?;
    Some(socket)
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        if self.lock.is_some() {
            IS_RUNNING.set(false);
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}
