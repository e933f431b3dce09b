//! A place for one test: a loopback address and a folder that no other test has.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};

/// Addresses that tests of this process have taken.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// An address in 127.64.0.0/10, on which every port is free, and an empty folder.
#[derive(Debug)]
pub(crate) struct Place {
    ip: IpAddr,
    folder: PathBuf,
    /// Held so that a process whose id leads to the same address takes another.
    _claim: Socket,
}

impl Place {
    pub(crate) fn new() -> Self {
        let pid = std::process::id();
        for _ in 0..1000 {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed);
            let place = pid.wrapping_mul(97).wrapping_add(number) % (1 << 22);
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + place);
            if let Some(claim) = claim(ip) {
                let folder = std::env::temp_dir().join(format!("evenkeel-{pid}-{number}"));
                fs::create_dir_all(&folder).unwrap();
                return Self { ip: ip.into(), folder, _claim: claim };
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
