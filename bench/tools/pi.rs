//! A board's shape: three hosts on one core, segments of 1500 bytes between them, and a balancer
//! that may have a part of the core only.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::complain;
use crate::configuration::Setup;
use crate::report::Report;
use crate::rounds::{Bench, Comparison, Responders};
use crate::subject::Subject;
use crate::work::{Kind, connections, load, small};

/// A network like that of a cluster: generator, balancer, servers. The first is this namespace.
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVERS: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const PORT: u16 = 8000;

/// Of its core, in thousandths: so little that the rest is enough for all the others.
const QUOTA: u32 = 250;

impl Bench {
    /// Throughput of small exchanges, connections and bulk in that shape.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn shape(
        &self,
        kind: &Kind,
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        if !self.own_network {
            report.leave_out(format!("{}: needs network namespaces", kind.name));
            return Ok(());
        }
        let hosts = match Hosts::build() {
            Ok(hosts) => hosts,
            Err(error) => {
                report.leave_out(format!("{}: {error}", kind.name));
                return Ok(());
            }
        };
        let quota = match Quota::create() {
            Ok(quota) => Some(quota),
            Err(error) => {
                report.leave_out(format!("{}: its CPU quota: {error}", kind.name));
                None
            }
        };
        let responders = Responders::start_in(IpAddr::V4(SERVERS), Some(hosts.servers.id()))?;
        for (name, load) in [
            ("keepalive", small(64)),
            ("connection", connections(64)),
            ("bulk", load(16, 116, 1 << 20, false)),
        ] {
            let mut setup = Setup::plain(&responders.addresses(), self.place.sessions_max);
            setup.listen = Some(SocketAddr::from((BALANCER, PORT)));
            setup.enter = Some(hosts.balancer.id());
            setup.group = quota.as_ref().map(|quota| quota.folder.clone());
            let work = format!("{}-{name}", kind.name);
            let comparison = Comparison {
                work: work.clone(),
                title: format!("{}, {name}", kind.title),
                load,
                idle: 0,
                setup,
                responders: &responders,
                target: None,
            };
            // One at a time listens at an address: each is started for its turn.
            self.compare_apart(&work, &[comparison], subjects, report)?;
        }
        Ok(())
    }
}

/// Two further namespaces, kept by a process each, with this one in a row.
struct Hosts {
    balancer: Child,
    servers: Child,
}

impl Hosts {
    fn build() -> io::Result<Self> {
        let hosts = Self { balancer: namespace()?, servers: namespace()? };
        let (balancer, servers) = (hosts.balancer.id(), hosts.servers.id());
        // Segments as a real card sends them: none is larger than the MTU.
        let small = "mtu 1500 gso_max_segs 1";
        let plan = [
            (None, format!("ip link add pi0 {small} type veth peer name pi1 netns {balancer}")),
            (None, "ip addr add 10.77.1.1/24 dev pi0".to_owned()),
            (None, format!("ip link set pi0 up {small}")),
            (Some(balancer), "ip addr add 10.77.1.2/24 dev pi1".to_owned()),
            (Some(balancer), format!("ip link set pi1 up {small}")),
            (
                Some(balancer),
                format!("ip link add pi2 {small} type veth peer name pi3 netns {servers}"),
            ),
            (Some(balancer), "ip addr add 10.77.2.1/24 dev pi2".to_owned()),
            (Some(balancer), format!("ip link set pi2 up {small}")),
            (Some(servers), "ip addr add 10.77.2.2/24 dev pi3".to_owned()),
            (Some(servers), format!("ip link set pi3 up {small}")),
            // Without a balancer its host is a router: what the network itself costs.
            (Some(balancer), "sysctl -qw net.ipv4.ip_forward=1".to_owned()),
            (None, "ip route add 10.77.2.0/24 via 10.77.1.2".to_owned()),
            (Some(servers), "ip route add 10.77.1.0/24 via 10.77.2.1".to_owned()),
        ];
        let alike = "sysctl -qw net.ipv4.tcp_congestion_control=reno \
                     net.ipv4.ip_local_port_range=1024\\ 65535";
        let alike = [balancer, servers].map(|host| (Some(host), alike.to_owned()));
        let up = [balancer, servers].map(|host| (Some(host), "ip link set lo up".to_owned()));
        for (host, line) in plan.into_iter().chain(alike).chain(up) {
            let line = match host {
                Some(host) => format!("exec nsenter --net --target {host} {line}"),
                None => line,
            };
            let output = Command::new("sh").arg("-c").arg(&line).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(format!("{line}: {said}")));
            }
        }
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for child in [&mut self.balancer, &mut self.servers] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A network namespace that lasts as long as its process.
fn namespace() -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["tether", "--", "unshare", "--net", "sh", "-c", "echo up && exec cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut said = [0; 3];
    if let Some(output) = &mut child.stdout {
        io::Read::read_exact(output, &mut said)?;
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
        let second = PathBuf::from("/sys/fs/cgroup");
        let (root, limits) = if first.join("cpu.cfs_quota_us").exists() {
            let limits = vec![
                ("cpu.cfs_period_us", period.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ];
            (first, limits)
        } else {
            (second, vec![("cpu.max", format!("{quota} {period}"))])
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
            complain(&format!("{} stays: {error}", self.folder.display()));
        }
    }
}
