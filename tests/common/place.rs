//! A place for one test: a loopback address and a folder that no other test has.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Addresses that tests of this process have taken.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Held shared by each test with a place, and exclusively by one that is to run alone.
static RUNNING: RwLock<()> = RwLock::new(());

/// An address in 127.64.0.0/10, on which every port is free, and an empty folder.
#[derive(Debug)]
pub(crate) struct Place {
    ip: IpAddr,
    folder: PathBuf,
    /// Held so that a process whose id leads to the same address takes another.
    _claim: Socket,
    _turn: Turn,
}

/// A test's share of the machine.
#[derive(Debug)]
enum Turn {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(Turn::Shared(RUNNING.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// For a test that needs most of the machine, or measures it: no other test of this process
    /// has a place meanwhile.
    pub(crate) fn alone() -> Self {
        Self::with(Turn::Alone(RUNNING.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn with(turn: Turn) -> Self {
        raise_descriptors();
        let pid = std::process::id();
        for _ in 0..1000 {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed);
            let place = pid.wrapping_mul(97).wrapping_add(number) % (1 << 22);
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + place);
            if let Some(claim) = claim(ip) {
                let folder = std::env::temp_dir().join(format!("evenkeel-{pid}-{number}"));
                fs::create_dir_all(&folder).unwrap();
                return Self { ip: ip.into(), folder, _claim: claim, _turn: turn };
            }
        }
        panic!("no loopback address is free");
    }

    /// A port of this place. Ports below the ephemeral ones are free for sure.
    pub(crate) fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    /// Where the first frontend is.
    pub(crate) fn frontend(&self) -> SocketAddr {
        self.port(8000)
    }

    /// /metrics and the like.
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

/// Each client and each server of a test is a descriptor of this process: 1,024, the usual soft
/// limit, are too few for tests that run at a time.
fn raise_descriptors() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    });
}

/// A bound socket that never listens takes the port from other claims, and nothing else.
fn claim(ip: Ipv4Addr) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 7007)).into()).ok()?;
    Some(socket)
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}
