//! Three machines: a client and a server in network namespaces of their own, and the balancer
//! between them in that of the test.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::common::wait::{TIMEOUT, until};
use crate::network_namespace::{enter, ip};

/// The addresses of the balancer, on the link to the client and on the link to the server.
pub(crate) const TO_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
pub(crate) const TO_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));

/// A network namespace; it ends with the last descriptor, thread or process in it.
#[derive(Debug)]
pub(crate) struct Machine(File);

impl Machine {
    fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        };
        thread::spawn(make).join().unwrap()
    }

    /// Does something there. What it starts stays there.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            there.join().unwrap()
        })
    }

    /// Cuts its link.
    pub(crate) fn cut_off(&self) {
        self.run(|| ip("link set eth0 down"));
    }

    /// Connects it to this namespace by a link, which is `name` here.
    fn link(&self, name: &str) {
        ip(&format!("link add {name} type veth peer name {name}-peer"));
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        ip(&format!("link set {name}-peer netns {path}"));
        ip(&format!("link set {name} up"));
        self.run(|| {
            ip(&format!("link set {name}-peer name eth0"));
            ip("link set eth0 up");
        });
    }
}

/// The machines of a test, whose thread is the balancer.
#[derive(Debug)]
pub(crate) struct Machines {
    pub(crate) client: Machine,
    pub(crate) server: Machine,
}

impl Machines {
    /// The machines and their links: 10.1.0.2 is the client, 10.2.0.2 the server, whose default
    /// route is the balancer; in IPv6 `fd00:1::2` and `fd00:2::2`. None: it is reported as
    /// skipped.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !enter(test) {
            return None;
        }
        let (client, server) = (Machine::new(), Machine::new());
        for (machine, name, net) in [(&client, "to-client", 1), (&server, "to-server", 2)] {
            machine.link(name);
            ip(&format!("addr add 10.{net}.0.1/24 dev {name}"));
            ip(&format!("-6 addr add fd00:{net}::1/64 dev {name} nodad"));
            machine.run(|| {
                ip(&format!("addr add 10.{net}.0.2/24 dev eth0"));
                ip(&format!("-6 addr add fd00:{net}::2/64 dev eth0 nodad"));
            });
        }
        server.run(|| {
            ip("route add default via 10.2.0.1");
            ip("-6 route add default via fd00:2::1");
        });
        for net in [1, 2] {
            until_reached(SocketAddr::from(([10, net, 0, 2], 1)));
            until_reached(SocketAddr::from(([0xfd00, net.into(), 0, 0, 0, 0, 0, 2], 1)));
        }
        Some(Self { client, server })
    }
}

/// The first packet to a neighbour may wait for a second: its address is asked for, and the answer
/// may be lost while the link comes up. Nothing listens at this port.
fn until_reached(address: SocketAddr) {
    until("a neighbour answers", || {
        let connected = TcpStream::connect_timeout(&address, TIMEOUT);
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

/// An address of the server.
pub(crate) fn at_server(port: u16) -> SocketAddr {
    ([10, 2, 0, 2], port).into()
}
