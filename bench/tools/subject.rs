//! What is compared: processes between the generator and two responders, each on one thread.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::exchange::{Exchange, verified};

/// A subject, by name on the command line and in the JSON file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// No balancer: the generator talks to both responders.
    Direct,
    /// The balancer of this repository.
    Evenkeel,
    /// HAProxy as it comes: what the others are compared with.
    Haproxy,
    /// HAProxy with splice-request and splice-response.
    HaproxySplice,
    /// HAProxy again, the same: what it differs by is the noise of the machine.
    HaproxyNull,
}

impl Subject {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::Evenkeel, Self::Haproxy, Self::HaproxySplice, Self::HaproxyNull];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Evenkeel => "evenkeel",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::HaproxyNull => "haproxy-null",
        }
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
}

/// Where programs are, and where files go.
#[derive(Debug)]
pub(crate) struct Place {
    /// The evenkeel binary.
    pub(crate) evenkeel: PathBuf,
    /// The HAProxy binary.
    pub(crate) haproxy: PathBuf,
    /// Folder of configurations, logs and results.
    pub(crate) folder: PathBuf,
    /// Sessions that HAProxy is told to have room for.
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
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a responder, whose answers begin with this number.
///
/// # Errors
/// It does not start.
pub(crate) fn start_responder(number: u8) -> io::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["tether", "--"]).arg(std::env::current_exe()?).args(["responder", "--number"]);
    let command = command.arg(number.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
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

/// Starts a subject before these servers and waits until it answers from each of them; none for
/// `Direct`, which is no process.
///
/// # Errors
/// It does not start, or does not answer rightly within ten seconds; with the end of its log.
pub(crate) fn start(
    subject: Subject,
    place: &Place,
    servers: &[SocketAddr],
) -> io::Result<Option<Running>> {
    // Free a moment ago; in a network namespace of our own nobody else takes it.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let most = place.sessions_max;
    let (program, arguments, text) = match subject {
        Subject::Direct => return Ok(None),
        Subject::Evenkeel => (&place.evenkeel, ["run", "-c"], evenkeel(address, servers)),
        Subject::Haproxy | Subject::HaproxyNull => {
            (&place.haproxy, ["-db", "-f"], haproxy(most, address, servers, ""))
        }
        Subject::HaproxySplice => {
            let options = "    option splice-request\n    option splice-response\n";
            (&place.haproxy, ["-db", "-f"], haproxy(most, address, servers, options))
        }
    };
    let name = subject.name();
    let file = place.folder.join(format!("{name}.conf"));
    fs::write(&file, text)?;
    let log = place.folder.join(format!("{name}.log"));
    let output = File::create(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["tether", "--"]).arg(program).args(arguments).arg(&file);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut running = Running { address, child: command.spawn()? };
    wait_until_it_answers(&mut running, servers.len())
        .map_err(|error| io::Error::other(format!("{name}: {error}{}", end_of(&log))))?;
    Ok(Some(running))
}

fn wait_until_it_answers(running: &mut Running, servers: usize) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Long enough to be bulk for whoever splices: what is fast must also be right.
    let exchange = Exchange { up: 1000, down: 4 << 20, last: true };
    loop {
        if let Some(status) = running.child.try_wait()? {
            return Err(io::Error::other(format!("it has ended at its start ({status})")));
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

fn evenkeel(address: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut text = format!(
        "[global]\nworkers = 1\n\
         [observe]\nbind = false\ncontrol = false\n[observe.log]\nsessions = false\n\
         [frontend.bench]\nbind = [\"{address}\"]\nbackend = \"bench\"\n\
         [backend.bench]\nbalance = \"roundrobin\"\n[backend.bench.health]\ncheck = \"off\"\n"
    );
    for (index, server) in servers.iter().enumerate() {
        text += &format!(
            "[[backend.bench.server]]\nname = \"server{index}\"\naddress = \"{server}\"\n"
        );
    }
    text
}

fn haproxy(most: usize, address: SocketAddr, servers: &[SocketAddr], options: &str) -> String {
    let mut text = format!(
        "global\n    nbthread 1\n    maxconn {most}\n\
         defaults\n    mode tcp\n    timeout connect 3s\n    timeout client 5m\n    \
         timeout server 5m\n{options}\
         listen bench\n    bind {address} maxconn {most} backlog 4096\n    \
         maxconn {most}\n    balance roundrobin\n"
    );
    for (index, server) in servers.iter().enumerate() {
        text += &format!("    server server{index} {server}\n");
    }
    text
}
