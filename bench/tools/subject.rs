//! What is compared: processes between the generator and two responders, each on one thread.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::configuration::{self, Setup};
use crate::exchange::{Exchange, verified};

/// A subject, by name on the command line and in the JSON file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// No balancer: the generator talks to both responders.
    Direct,
    /// The balancer of this repository.
    Evenkeel,
    /// The same at an earlier commit: `--before`.
    EvenkeelBefore,
    /// HAProxy as it comes: what the others are compared with.
    Haproxy,
    /// HAProxy with buffers of 64 KiB instead of 16.
    Haproxy64k,
    /// HAProxy with splice-request and splice-response.
    HaproxySplice,
    /// The same with pipes of 512 KiB, as evenkeel's are.
    HaproxySplice512k,
    /// HAProxy again, the same: what it differs by is the noise of the machine.
    HaproxyNull,
    /// nginx, with its stream module.
    Nginx,
    /// pen, with epoll.
    Pen,
    /// `tokio::io::copy_bidirectional`, a page of Rust.
    Tokio,
    /// The same on tokio-uring.
    TokioUring,
}

impl Subject {
    /// All but the one that `--before` adds, in the order of the table.
    pub(crate) const ALL: [Self; 11] = [
        Self::Direct,
        Self::Evenkeel,
        Self::Haproxy,
        Self::Haproxy64k,
        Self::HaproxySplice,
        Self::HaproxySplice512k,
        Self::HaproxyNull,
        Self::Nginx,
        Self::Pen,
        Self::Tokio,
        Self::TokioUring,
    ];

    /// Those of `--quick`.
    pub(crate) const QUICK: [Self; 6] = [
        Self::Direct,
        Self::Evenkeel,
        Self::Haproxy,
        Self::Haproxy64k,
        Self::HaproxySplice,
        Self::HaproxyNull,
    ];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Evenkeel => "evenkeel",
            Self::EvenkeelBefore => "evenkeel-before",
            Self::Haproxy => "haproxy",
            Self::Haproxy64k => "haproxy-64k",
            Self::HaproxySplice => "haproxy-splice",
            Self::HaproxySplice512k => "haproxy-splice-512k",
            Self::HaproxyNull => "haproxy-null",
            Self::Nginx => "nginx",
            Self::Pen => "pen",
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
        }
    }

    /// Whether it is HAProxy in one of the three configurations that people use.
    pub(crate) fn is_haproxy(name: &str) -> bool {
        [Self::Haproxy, Self::Haproxy64k, Self::HaproxySplice].map(Self::name).contains(&name)
    }

    /// Whether it is a balancer of somebody else, and not there twice.
    pub(crate) fn is_peer(name: &str) -> bool {
        ![Self::Direct, Self::Evenkeel, Self::EvenkeelBefore, Self::HaproxyNull]
            .map(Self::name)
            .contains(&name)
    }

    /// The subject of this name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|subject| subject.name() == name);
        found.ok_or_else(|| format!("no such subject; there are: {}", names()))
    }

    /// Why its rows are left out; none if it can be run here.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Nginx if !found("nginx") => {
                Some("nginx is missing; as root: apt-get install nginx libnginx-mod-stream")
            }
            Self::Pen if !found("pen") => Some("pen is missing; as root: apt-get install pen"),
            _ => None,
        }
    }

    /// Whether a failure of it ends the run. What a few lines of Rust or an old program cannot do
    /// is no reason to learn nothing of the others: its row is left out, with the reason.
    pub(crate) fn must_not_fail(self) -> bool {
        !matches!(self, Self::Nginx | Self::Pen | Self::Tokio | Self::TokioUring)
    }

    /// Whether it can have several workers.
    pub(crate) fn has_workers(self) -> bool {
        matches!(
            self,
            Self::Evenkeel | Self::EvenkeelBefore | Self::Haproxy | Self::HaproxyNull | Self::Nginx
        )
    }
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Where programs are, and where files go.
#[derive(Debug)]
pub(crate) struct Place {
    /// The evenkeel binary.
    pub(crate) evenkeel: PathBuf,
    /// The one of an earlier commit, if that is compared too.
    pub(crate) before: Option<PathBuf>,
    /// The HAProxy binary.
    pub(crate) haproxy: PathBuf,
    /// Folder of configurations, logs and results.
    pub(crate) folder: PathBuf,
    /// Sessions that a subject is told to have room for, unless a kind of work needs more.
    pub(crate) sessions_max: usize,
}

/// A process that is killed when it goes out of scope, or this one dies.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Running {
    /// Its process number.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its process number and those of its children: nginx with several workers has them.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let own = self.process();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|number| number.parse().ok());
        std::iter::once(own).chain(children).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.processes().len() > 1 {
            // A master takes its workers with it, if it is asked.
            if let Ok(process) = i32::try_from(self.process()) {
                kill(Pid::from_raw(process), Signal::SIGTERM).ok();
            }
            let deadline = Instant::now() + Duration::from_secs(2);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                pause(Duration::from_millis(10));
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a responder on an address of this host; its answers begin with this number.
///
/// # Errors
/// It does not start.
pub(crate) fn start_responder(number: u8, bind: IpAddr, enter: Option<u32>) -> io::Result<Running> {
    let mut command = tethered(enter)?;
    command.arg(std::env::current_exe()?).args(["responder", "--number"]);
    command.arg(number.to_string()).arg("--bind").arg(bind.to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    let address = line.trim().parse();
    let mut running = Running { address: ([127, 0, 0, 1], 0).into(), child };
    running.address =
        address.map_err(|_| io::Error::other("the responder did not say where it listens"))?;
    Ok(running)
}

/// A command that dies with this process, in the network namespace of another if that is wanted;
/// the program and its arguments follow.
fn tethered(enter: Option<u32>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["tether", "--"]);
    if let Some(process) = enter {
        command.args(["nsenter", "--net", "--target", &process.to_string(), "--"]);
    }
    Ok(command)
}

/// Starts a subject and waits until it answers from each responder; none for `Direct`, which is
/// no process.
///
/// # Errors
/// It does not start, or does not answer rightly within ten seconds; with the end of its log.
pub(crate) fn start(subject: Subject, place: &Place, setup: &Setup) -> io::Result<Option<Running>> {
    if subject == Subject::Direct {
        return Ok(None);
    }
    let mut addresses = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..setup.frontends {
        // Free a moment ago; in a network namespace of our own nobody else takes it.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        addresses.push(setup.listen.map_or_else(|| listener.local_addr(), Ok)?);
        taken.push(listener);
    }
    drop(taken);
    let Some(address) = addresses.last().copied() else { return Ok(None) };
    // A process that was killed may hold its address for a moment longer: its ring ends by itself.
    let mut tries = 0;
    loop {
        match start_on(subject, place, setup, (&addresses, address)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && tries < 20 => {
                tries += 1;
                pause(Duration::from_millis(50));
            }
            outcome => return outcome.map(Some),
        }
    }
}

/// `BrokenPipe`: it has ended at its start.
fn start_on(
    subject: Subject,
    place: &Place,
    setup: &Setup,
    (addresses, address): (&[SocketAddr], SocketAddr),
) -> io::Result<Running> {
    let name = subject.name();
    let log = place.folder.join(format!("{name}.log"));
    let output = File::create(&log)?;
    let mut command = tethered(setup.enter)?;
    command_of(subject, place, setup, addresses, &mut command)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut running = Running { address, child: command.spawn()? };
    if let Some(group) = &setup.group {
        fs::write(group.join("cgroup.procs"), running.process().to_string())?;
    }
    // With many servers the first two, which are different responders, will do.
    wait_until_it_answers(&mut running, setup.servers.len().min(2)).map_err(|error| {
        io::Error::new(error.kind(), format!("{name}: {error}{}", end_of(&log)))
    })?;
    Ok(running)
}

/// The program and its arguments; writes the file that it reads.
fn command_of(
    subject: Subject,
    place: &Place,
    setup: &Setup,
    addresses: &[SocketAddr],
    command: &mut Command,
) -> io::Result<()> {
    let folder = std::path::absolute(&place.folder)?;
    let file = folder.join(format!("{}.conf", subject.name()));
    let splice = "    option splice-request\n    option splice-response\n";
    let haproxy = |global, defaults| configuration::haproxy(setup, addresses, global, defaults);
    let text = match subject {
        Subject::Direct => return Ok(()),
        Subject::Evenkeel | Subject::EvenkeelBefore => {
            configuration::evenkeel(setup, addresses, &folder)
        }
        Subject::Haproxy | Subject::HaproxyNull => haproxy("", ""),
        Subject::Haproxy64k => haproxy("    tune.bufsize 65536\n", ""),
        Subject::HaproxySplice => haproxy("", splice),
        Subject::HaproxySplice512k => haproxy("    tune.pipesize 524288\n", splice),
        Subject::Nginx => configuration::nginx(setup, addresses, &folder),
        Subject::Pen => {
            let listen = addresses.iter().copied().take(1);
            command.arg("pen").args(listen.flat_map(|one| configuration::pen(setup, one)));
            return Ok(());
        }
        Subject::Tokio | Subject::TokioUring => {
            command.arg(std::env::current_exe()?).args(["relay", subject.name()]);
            command.args(addresses.iter().take(1).chain(&setup.servers).map(ToString::to_string));
            return Ok(());
        }
    };
    fs::write(&file, text)?;
    match subject {
        Subject::Evenkeel => command.arg(&place.evenkeel).args(["run", "-c"]).arg(file),
        Subject::EvenkeelBefore => {
            let binary = place.before.as_ref().ok_or(io::ErrorKind::NotFound)?;
            command.arg(binary).args(["run", "-c"]).arg(file)
        }
        Subject::Nginx => {
            command.args(["nginx", "-e", "stderr", "-p"]).arg(folder).arg("-c").arg(file)
        }
        _ => command.arg(&place.haproxy).args(["-db", "-f"]).arg(file),
    };
    Ok(())
}

fn wait_until_it_answers(running: &mut Running, servers: usize) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Long enough to be bulk for whoever splices: what is fast must also be right.
    let exchange = Exchange { up: 1000, down: 4 << 20, last: true };
    loop {
        if let Some(status) = running.child.try_wait()? {
            let why = format!("it has ended at its start ({status})");
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, why));
        }
        let answers: io::Result<Vec<u8>> = (0..servers)
            .map(|_| verified(running.address, exchange).map(|(_, number)| number))
            .collect();
        let trouble = match answers {
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
            return Err(io::Error::other(trouble));
        }
        pause(Duration::from_millis(20));
    }
}

/// Lets other processes do something.
#[expect(clippy::disallowed_methods, reason = "no ring here, only other processes to wait for")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The last lines of a log, for a message.
fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    last.iter().map(|line| format!("\n    {line}")).collect()
}
