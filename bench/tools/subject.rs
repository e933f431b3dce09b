//! The subjects: what is compared. Each is a process between the generator and the responders.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::configuration::{self, Setup};
use crate::exchange::{Exchange, verified};
use crate::features::Feature;
use crate::process::{Running, pause};

/// The program of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// No balancer: the generator connects to the responders.
    None,
    Evenkeel,
    /// evenkeel at an earlier commit: `--before`.
    EvenkeelBefore,
    Haproxy,
    /// HAProxy 3, which `bench/haproxy3` fetches.
    Haproxy3,
    /// nginx with its stream module.
    Nginx,
    Pen,
    /// `relay.rs`.
    Relay,
}

/// A subject, by its name on the command line and in the JSON file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    /// Lines for the section `global`, and for HAProxy's section `defaults`.
    tuning: [&'static str; 2],
    /// Runs under `SCHED_BATCH` (`chrt --batch 0`).
    pub(crate) batch: bool,
}

pub(crate) const DIRECT: &str = "direct";
pub(crate) const EVENKEEL: &str = "evenkeel";
pub(crate) const EVENKEEL_BATCH: &str = "evenkeel-batch";
/// evenkeel without its seccomp filter and Landlock rules.
pub(crate) const EVENKEEL_OPEN: &str = "evenkeel-open";
/// Plain HAProxy: what all others are compared with.
pub(crate) const HAPROXY: &str = "haproxy";
/// The same again: its difference from `haproxy` is the noise of the run.
pub(crate) const HAPROXY_NULL: &str = "haproxy-null";
/// HAProxy with pipes as large as evenkeel's.
pub(crate) const HAPROXY_SPLICE_512K: &str = "haproxy-splice-512k";

const PLAIN: [&str; 2] = ["", ""];
const OPEN: [&str; 2] = ["seccomp = false\nlandlock = false\n", ""];
const BUFFERS_64K: [&str; 2] = ["    tune.bufsize 65536\n", ""];
const SPLICE: [&str; 2] = ["", "    option splice-request\n    option splice-response\n"];
const SPLICE_512K: [&str; 2] = ["    tune.pipesize 524288\n", SPLICE[1]];

const fn subject(name: &'static str, program: Program, tuning: [&'static str; 2]) -> Subject {
    Subject { name, program, tuning, batch: false }
}

const fn batch(name: &'static str, program: Program, tuning: [&'static str; 2]) -> Subject {
    Subject { name, program, tuning, batch: true }
}

/// All subjects, in the order of the tables.
pub(crate) const SUBJECTS: &[Subject] = &[
    subject(DIRECT, Program::None, PLAIN),
    subject(EVENKEEL, Program::Evenkeel, PLAIN),
    batch(EVENKEEL_BATCH, Program::Evenkeel, PLAIN),
    subject(EVENKEEL_OPEN, Program::Evenkeel, OPEN),
    subject("evenkeel-before", Program::EvenkeelBefore, PLAIN),
    subject(HAPROXY, Program::Haproxy, PLAIN),
    batch("haproxy-batch", Program::Haproxy, PLAIN),
    subject("haproxy-64k", Program::Haproxy, BUFFERS_64K),
    batch("haproxy-64k-batch", Program::Haproxy, BUFFERS_64K),
    subject("haproxy-splice", Program::Haproxy, SPLICE),
    batch("haproxy-splice-batch", Program::Haproxy, SPLICE),
    subject(HAPROXY_SPLICE_512K, Program::Haproxy, SPLICE_512K),
    subject(HAPROXY_NULL, Program::Haproxy, PLAIN),
    subject("haproxy3", Program::Haproxy3, PLAIN),
    batch("haproxy3-batch", Program::Haproxy3, PLAIN),
    subject("nginx", Program::Nginx, PLAIN),
    batch("nginx-batch", Program::Nginx, PLAIN),
    subject("pen", Program::Pen, PLAIN),
    batch("pen-batch", Program::Pen, PLAIN),
    subject("tokio", Program::Relay, PLAIN),
    batch("tokio-batch", Program::Relay, PLAIN),
    subject("tokio-uring", Program::Relay, PLAIN),
    batch("tokio-uring-batch", Program::Relay, PLAIN),
];

impl Subject {
    /// The subject of this name.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let names = || SUBJECTS.iter().map(|subject| subject.name).collect::<Vec<_>>().join(", ");
        let found = SUBJECTS.iter().find(|subject| subject.name == name).copied();
        found.ok_or_else(|| format!("unknown subject; there are: {}", names()))
    }

    /// Whether this names one of the three usual configurations of HAProxy 2.
    pub(crate) fn is_haproxy(name: &str) -> bool {
        [HAPROXY, "haproxy-64k", "haproxy-splice"].contains(&name)
    }

    /// Whether this names somebody else's balancer.
    pub(crate) fn is_peer(name: &str) -> bool {
        !name.starts_with(EVENKEEL) && ![DIRECT, HAPROXY_NULL].contains(&name)
    }

    /// Whether this names somebody else's balancer under the default scheduling policy.
    pub(crate) fn is_default_peer(name: &str) -> bool {
        Self::is_peer(name) && !name.ends_with("-batch")
    }

    /// Whether this names somebody else's balancer under `SCHED_BATCH`.
    pub(crate) fn is_batch_peer(name: &str) -> bool {
        Self::is_peer(name) && name.ends_with("-batch")
    }

    /// Whether it is evenkeel with its defaults and under the default scheduling policy.
    pub(crate) fn is_evenkeel(self) -> bool {
        let is_plain = !self.batch && !self.is_tuned();
        is_plain && matches!(self.program, Program::Evenkeel | Program::EvenkeelBefore)
    }

    /// Whether it is one of the programs of HAProxy.
    pub(crate) fn is_a_haproxy(self) -> bool {
        matches!(self.program, Program::Haproxy | Program::Haproxy3)
    }

    /// Whether the run goes on without it if it fails: a page of Rust or an old program is no
    /// reason to lose the other rows.
    pub(crate) fn may_fail(self) -> bool {
        matches!(self.program, Program::Haproxy3 | Program::Nginx | Program::Pen | Program::Relay)
    }

    /// Whether it can run several workers.
    pub(crate) fn has_workers(self) -> bool {
        !matches!(self.program, Program::Pen | Program::Relay)
    }

    /// Whether its configuration is not the usual one.
    pub(crate) fn is_tuned(self) -> bool {
        self.tuning != PLAIN
    }
}

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) evenkeel: PathBuf,
    pub(crate) before: Option<PathBuf>,
    pub(crate) haproxy: PathBuf,
    pub(crate) haproxy3: Option<PathBuf>,
    /// Folder of configurations, logs and results.
    pub(crate) folder: PathBuf,
    /// The next port in a network namespace of the bench.
    pub(crate) next_port: AtomicU16,
}

impl Installation {
    /// The evenkeel binary of a subject.
    pub(crate) fn evenkeel_of(&self, subject: Subject) -> &Path {
        let before = self.before.as_ref().filter(|_| subject.program == Program::EvenkeelBefore);
        before.unwrap_or(&self.evenkeel)
    }

    /// Starts a subject and waits until it answers from each responder; none for `direct`.
    pub(crate) fn start(&self, subject: Subject, setup: &Setup) -> io::Result<Option<Running>> {
        if subject.program == Program::None {
            return Ok(None);
        }
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..setup.frontends {
            if let Some(host) = setup.listen {
                let port = self.next_port.fetch_add(1, Ordering::Relaxed);
                addresses.push(SocketAddr::from((host, port)));
            } else {
                listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
                addresses.extend(listeners.iter().last().and_then(|last| last.local_addr().ok()));
            }
        }
        drop(listeners); // in a network namespace of our own nobody else takes the ports
        let address = *addresses.last().ok_or(io::ErrorKind::InvalidInput)?;
        let log = self.folder.join(format!("{}.log", subject.name));
        let output = File::create(&log)?;
        let mut command = setup.host.command(subject.batch);
        self.complete(&mut command, subject, setup, &addresses)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut running = Running::new(address, command.spawn()?);
        if let Some(group) = &setup.group {
            fs::write(group.join("cgroup.procs"), running.process().to_string())?;
        }
        // With many servers the first two, which are different responders, are enough.
        // By the client's address, all connections of the bench go to one.
        let servers = if setup.feature == Feature::Source { 1 } else { setup.servers.len().min(2) };
        wait_until_it_answers(&mut running, servers, setup.hello).map_err(|error| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(5)..].join("\n    ");
            io::Error::new(error.kind(), format!("{}: {error}\n    {end}", subject.name))
        })?;
        Ok(Some(running))
    }

    /// Adds the program and its arguments; writes its configuration file.
    fn complete(
        &self,
        command: &mut Command,
        subject: Subject,
        setup: &Setup,
        addresses: &[SocketAddr],
    ) -> io::Result<()> {
        let folder = std::path::absolute(&self.folder)?;
        let file = folder.join(format!("{}.conf", subject.name));
        let first = addresses.iter().take(1).copied();
        match subject.program {
            Program::None => {}
            Program::Evenkeel | Program::EvenkeelBefore => {
                fs::write(
                    &file,
                    configuration::evenkeel(setup, addresses, &folder, subject.tuning[0]),
                )?;
                command.arg(self.evenkeel_of(subject)).args(["run", "-c"]).arg(file);
            }
            Program::Haproxy | Program::Haproxy3 => {
                fs::write(
                    &file,
                    configuration::haproxy(setup, addresses, &folder, subject.tuning),
                )?;
                let three = self.haproxy3.as_ref().filter(|_| subject.program == Program::Haproxy3);
                command.arg(three.unwrap_or(&self.haproxy)).args(["-db", "-f"]).arg(file);
            }
            Program::Nginx => {
                fs::write(&file, configuration::nginx(setup, addresses, &folder))?;
                command.args(["nginx", "-e", "stderr", "-p"]).arg(folder).arg("-c").arg(file);
            }
            Program::Pen => {
                let sessions = setup.sessions_max.to_string();
                command.args(["pen", "-f", "-r", "-O", "epoll", "-c", &sessions, "-x", &sessions]);
                command.args(first.chain(setup.servers.iter().copied()).map(|it| it.to_string()));
            }
            Program::Relay => {
                let library = subject.name.trim_end_matches("-batch");
                command.arg(std::env::current_exe()?).args(["relay", library]);
                command.args(first.chain(setup.servers.iter().copied()).map(|it| it.to_string()));
            }
        }
        Ok(())
    }
}

fn wait_until_it_answers(running: &mut Running, servers: usize, hello: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Long enough for splice(2): what is fast must also be correct.
    let exchange = Exchange { up: 1000, down: 4 << 20, last: true };
    loop {
        if let Some(status) = running.ended()? {
            return Err(io::Error::other(format!("it ended at its start ({status})")));
        }
        let answers = (0..servers).map(|_| verified(running.address, hello, exchange));
        let numbers = answers.map(|answer| answer.map(|(_, number)| number));
        let problem = match numbers.collect::<io::Result<Vec<u8>>>() {
            Ok(mut numbers) => {
                numbers.sort_unstable();
                numbers.dedup();
                if numbers.len() == servers {
                    return Ok(());
                }
                "it does not use all servers in turn".to_owned()
            }
            Err(error) => format!("it does not answer: {error}"),
        };
        if Instant::now() > deadline {
            return Err(io::Error::other(problem));
        }
        pause(Duration::from_millis(20));
    }
}
