//! Layouts with network namespaces: the generator, the balancer and the servers are hosts of their
//! own, connected by veth pairs.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::configuration::Setup;
use crate::cpu;
use crate::output::log;
use crate::process::{Host, tethered};
use crate::rounds::{Bench, Comparison, Layout, Responders};
use crate::work::{Kind, Load, connections, load, small};

/// The generator is 10.77.1.1, in the namespace of the bench.
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVERS: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

/// Segments as a simple network card sends them: none is larger than the MTU.
const NO_OFFLOAD: &str = "mtu 1500 gso_max_segs 1";

/// The balancer's share of its core, in thousandths: the rest is enough for all others.
const QUOTA: u32 = 250;

impl Bench {
    /// Throughput on one core over a network like a board's, with a balancer that may use a quarter
    /// of the core, so that it is the limit.
    pub(crate) fn pi(&self, kind: &Kind) -> io::Result<()> {
        let Some(hosts) = self.hosts(kind, NO_OFFLOAD) else { return Ok(()) };
        let quota = Quota::create();
        if let Err(error) = &quota {
            self.leave_out(format!("{}: its CPU quota: {error}", kind.name));
        }
        let group = quota.as_ref().ok().map(|quota| quota.folder.clone());
        let responders = hosts.responders(self.core)?;
        for (name, load) in [
            ("keepalive", small(64)),
            ("connection", connections(64)),
            ("bulk", load(16, 116, 1 << 20, false)),
        ] {
            let mut layout = hosts.layout(self, &responders, self.core);
            layout.setup.group.clone_from(&group);
            let (name, title) =
                (format!("{}-{name}", kind.name), format!("{}, {name}", kind.title));
            self.compare(&Comparison::throughput(name, title, load, layout))?;
        }
        Ok(())
    }

    /// A balancer with a core of its own, with the generator and the servers on another one;
    /// then with the servers on the balancer's core, as on a Pi that runs both. Throughput, and
    /// latencies of an open loop.
    pub(crate) fn veth(&self, kind: &Kind, work: Load) -> io::Result<()> {
        let [.., other, own] = self.cores[..] else {
            self.leave_out(format!("{}: this machine has one core", kind.name));
            return Ok(());
        };
        let Some(hosts) = self.hosts(kind, "") else { return Ok(()) };
        cpu::pin(&[other])?;
        let outcome = [("veth", "a core of its own", other), ("veth-shared", "servers' core", own)]
            .into_iter()
            .try_for_each(|(name, title, core)| {
                let title = format!("{}, {title}", kind.title);
                let responders = hosts.responders(core)?;
                let layout = || {
                    let mut layout = hosts.layout(self, &responders, own);
                    layout.cores = vec![other, own];
                    layout
                };
                let (closed, closed_title) =
                    (format!("{name}-keepalive"), format!("{title}, keep-alive"));
                self.compare(&Comparison::throughput(closed, closed_title, work, layout()))?;
                self.open_loop((name, &title), work, &layout)
            });
        cpu::pin(&[self.core])?;
        outcome
    }

    fn hosts(&self, kind: &Kind, link: &str) -> Option<Hosts> {
        let hosts = if self.own_network {
            Hosts::create(link)
        } else {
            Err(io::Error::other("it needs network namespaces"))
        };
        hosts.map_err(|error| self.leave_out(format!("{}: {error}", kind.name))).ok()
    }
}

/// Two network namespaces besides this one, each kept by a process.
struct Hosts {
    balancer: Child,
    servers: Child,
}

impl Hosts {
    /// Connects the three namespaces in a row, by links with these properties. The balancer's host
    /// forwards: without a balancer that is what the network itself costs.
    fn create(link: &str) -> io::Result<Self> {
        let hosts = Self { balancer: namespace()?, servers: namespace()? };
        let (balancer, servers) = (hosts.balancer.id(), hosts.servers.id());
        let own = std::process::id();
        let settings = "sysctl -qw net.ipv4.tcp_congestion_control=reno \
                        net.ipv4.ip_local_port_range='10000 65535'";
        for (host, line) in [
            (own, format!("ip link add bench0 {link} type veth peer name bench1 netns {balancer}")),
            (own, format!("ip addr add 10.77.1.1/24 dev bench0; ip link set bench0 up {link}")),
            (
                balancer,
                format!("ip addr add 10.77.1.2/24 dev bench1; ip link set bench1 up {link}"),
            ),
            (
                balancer,
                format!("ip link add bench2 {link} type veth peer name bench3 netns {servers}"),
            ),
            (
                balancer,
                format!("ip addr add 10.77.2.1/24 dev bench2; ip link set bench2 up {link}"),
            ),
            (servers, format!("ip addr add 10.77.2.2/24 dev bench3; ip link set bench3 up {link}")),
            (balancer, format!("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1; {settings}")),
            (servers, format!("ip link set lo up; {settings}")),
            (own, "ip route add 10.77.2.0/24 via 10.77.1.2".to_owned()),
            (servers, "ip route add 10.77.1.0/24 via 10.77.2.1".to_owned()),
        ] {
            let mut command = Command::new("nsenter");
            command.args(["--net", "--target", &host.to_string(), "sh", "-ec", &line]);
            let output = command.output()?;
            if !output.status.success() {
                let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(format!("{line}: {message}")));
            }
        }
        Ok(hosts)
    }

    fn responders(&self, core: usize) -> io::Result<Responders> {
        let host = Host { namespace: Some(self.servers.id()), core: Some(core) };
        Responders::start(IpAddr::V4(SERVERS), [host; 2])
    }

    /// One worker, on this core of the balancer's host.
    fn layout<'a>(&self, bench: &Bench, responders: &'a Responders, core: usize) -> Layout<'a> {
        let plain = Setup::plain(&responders.addresses(), bench.sessions_max());
        let host = Host { namespace: Some(self.balancer.id()), core: Some(core) };
        let setup = Setup { listen: Some(IpAddr::V4(BALANCER)), host, ..plain };
        Layout { setup, responders, cores: vec![core] }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // A namespace is removed some time after its last process has ended: not so the link.
        drop(Command::new("ip").args(["link", "del", "bench0"]).output());
        for child in [&mut self.balancer, &mut self.servers] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A network namespace that exists as long as its process.
fn namespace() -> io::Result<Child> {
    let mut command = tethered();
    command.args(["unshare", "--net", "sh", "-c", "echo up && exec cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = [0; 3];
    if let Some(output) = &mut child.stdout {
        io::Read::read_exact(output, &mut line)?;
    }
    Ok(child)
}

/// A control group whose processes get a part of a core.
struct Quota {
    folder: PathBuf,
}

impl Quota {
    fn create() -> io::Result<Self> {
        let name = format!("evenkeel-bench-{}", std::process::id());
        let (period, quota) = (10_000, 10 * QUOTA);
        let first = PathBuf::from("/sys/fs/cgroup/cpu");
        let (root, limits) = if first.join("cpu.cfs_quota_us").exists() {
            let period = ("cpu.cfs_period_us", period.to_string());
            (first, vec![period, ("cpu.cfs_quota_us", quota.to_string())])
        } else {
            (PathBuf::from("/sys/fs/cgroup"), vec![("cpu.max", format!("{quota} {period}"))])
        };
        let made = Self { folder: root.join(name) };
        fs::create_dir(&made.folder)?;
        for (file, value) in limits {
            fs::write(made.folder.join(file), value)?;
        }
        Ok(made)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            log(&format!("{} cannot be removed: {error}", self.folder.display()));
        }
    }
}
