//! Memory: the buffers of all workers in a cgroup with a limit.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{connect, exchange, fill};
use crate::common::process::resident_kib;
use crate::common::server::echo;
use crate::common::wait::{holds_for, until, until_some};
use crate::common::{Balancer, Config, Server, TestEnv, skip};

/// A memory cgroup below that of this process. Dropping it removes the cgroup.
struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    /// Creates a cgroup with this limit.
    ///
    /// # Errors
    /// Why it cannot be created.
    fn new(name: &str, bytes: u64) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        // `ID:CONTROLLERS:PATH`, of version 2 without controllers (cgroups(7)).
        let path_of = |controller: &str| {
            let lines = own.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            let mut paths =
                lines.filter(|fields| fields[1].split(',').any(|one| one == controller));
            paths.next().map(|fields| fields[2].trim_start_matches('/').to_owned())
        };
        let hierarchies = [
            (Path::new("/sys/fs/cgroup/memory"), path_of("memory"), "memory.limit_in_bytes"),
            (Path::new("/sys/fs/cgroup"), path_of(""), "memory.max"),
        ];
        let mut why = "no memory cgroup is mounted".to_owned();
        for (mount, path, limit) in hierarchies {
            let Some(path) = path.filter(|_| mount.join("cgroup.procs").exists()) else { continue };
            let group = mount.join(path).join(name);
            if let Err(error) = fs::create_dir(&group) {
                why = format!("{}: {error}", group.display());
                continue;
            }
            let group = Self(group);
            match fs::write(group.0.join(limit), bytes.to_string()) {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("{}: {error}", group.0.join(limit).display()),
            }
        }
        Err(why)
    }

    /// The evenkeel command, run in this cgroup.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $$ >\"$0\" && exec \"$@\"");
        command.arg(self.0.join("cgroup.procs")).arg(PROGRAM);
        command
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be in it.
        until("the cgroup is removed", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn the_buffers_of_all_workers_use_at_most_a_quarter_of_the_memory_of_the_cgroup() {
    let limit = 64 << 20;
    let name = format!("evenkeel-{}", std::process::id());
    let cgroup = match MemoryCgroup::new(&name, limit) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            let test =
                "the_buffers_of_all_workers_use_at_most_a_quarter_of_the_memory_of_the_cgroup";
            return skip(test, &why);
        }
    };
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let config = Config::new(&env).workers(2).server("a", server.address);
    let mut command = cgroup.command();
    command.args(["run", "-c"]).arg(write_config(&env, &config.text()));
    let balancer = Balancer::start_command(&env, command);
    let of_each = until_some("each worker has served a client", || {
        assert_eq!(exchange(&connect(env.frontend()), b"in"), b"in");
        let metrics = balancer.metrics();
        let of = |worker| metrics.value("evenkeel_buffers", &[("worker", worker)]);
        Some([of("0"), of("1")]).filter(|buffers| !buffers.contains(&0.0))
    });
    let (kib, quarter) = (16.0, 16.0 * 1024.0);
    assert_eq!(of_each.iter().sum::<f64>() * kib, quarter * 7.0 / 8.0, "pipes get the rest");
}

/// A client with a small receive buffer and small segments, which keep the send buffer of its peer
/// small too: thousands of them take little of the machine's memory.
fn slow_reader(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(1400).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"flood").unwrap();
    stream
}

/// Answers "flood" with bytes without end, and echoes everything else.
fn flood_or_echo(mut stream: TcpStream) {
    let mut first = [0; 64];
    let Ok(count @ 1..) = stream.read(&mut first) else { return };
    if &first[..count] == b"flood" {
        // Its client stops for as long as the test takes.
        stream.set_write_timeout(None).unwrap();
        while stream.write_all(&[7; 4096]).is_ok() {}
    } else if stream.write_all(&first[..count]).is_ok() {
        echo(&stream);
    }
}

#[test]
fn three_thousand_readers_that_stop_fit_into_a_cgroup_of_64_mib() {
    let name = format!("evenkeel-readers-{}", std::process::id());
    let cgroup = match MemoryCgroup::new(&name, 64 << 20) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            let test = "three_thousand_readers_that_stop_fit_into_a_cgroup_of_64_mib";
            return skip(test, &why);
        }
    };
    let env = TestEnv::exclusive();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_tcp_mss(1400).unwrap();
    listener.bind(&env.port(9001).into()).unwrap();
    listener.listen(4096).unwrap();
    let server = Server::with(listener.into(), flood_or_echo);
    let config = Config::new(&env).workers(2).server("a", server.address);
    let mut command = cgroup.command();
    command.args(["run", "-c"]).arg(write_config(&env, &config.text()));
    let mut balancer = Balancer::start_command(&env, command);
    let readers: Vec<TcpStream> = (0..3000).map(|_| slow_reader(env.frontend())).collect();
    let mut last = (0.0, 0);
    until("no reader gets any more bytes", || {
        let metrics = balancer.metrics();
        let sum = metrics.sum("evenkeel_bytes_total", &[("direction", "out")]);
        last = if sum == last.0 { (sum, last.1 + 1) } else { (sum, 0) };
        metrics.sum("evenkeel_sessions_active", &[]) == 3000.0 && last.1 == 20
    });
    for _ in 0..20 {
        let client = connect(env.frontend());
        assert_eq!(exchange(&client, &[8; 30_000]), [8; 30_000]);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", balancer.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 48 << 10, "{peak} KiB of 64 MiB");
    assert_eq!(balancer.metrics().closed("exhausted"), 0.0, "every session goes on");
    assert!(balancer.runs());
    drop(readers);
}

#[test]
fn memory_returns_to_within_a_tenth_of_what_it_was_before_a_peak() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let peak = |sessions: usize| {
        let clients: Vec<TcpStream> = (0..sessions).map(|_| connect(env.frontend())).collect();
        fill(&clients, 4096);
        let highest = resident_kib(balancer.pid());
        drop(clients);
        balancer.assert_no_leaks();
        highest
    };
    // What the program allocates once; the memory of buffers is given back after a second.
    peak(5);
    let before = until_some("memory is stable", || {
        let first = resident_kib(balancer.pid());
        let is_stable = || resident_kib(balancer.pid()) == first;
        holds_for(Duration::from_millis(1500), is_stable).then_some(first)
    });
    let highest = peak(60);
    assert!(highest > before, "{before} KiB before, {highest} KiB at the peak");
    until("memory is released", || resident_kib(balancer.pid()) <= before * 11 / 10);
}
