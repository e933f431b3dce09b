//! An evenkeel with the events that a dashboard shows: sessions that end and one that stays open, a
//! server that refuses connections, clients that wait in a queue or are refused, probes that pass,
//! and reloads.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::program::Program;
use super::prometheus::Prometheus;
use super::wait::until;

/// A path from the root of the project. Its target is the default address of the metrics.
const PROMETHEUS_CONFIG: &str = "deploy/prometheus.yml";
const TARGET: &str = "127.0.0.1:8404";
const INTERVAL: &str = "scrape_interval: 5s";

/// Between two sessions, and between two reloads.
const PAUSE: Duration = Duration::from_millis(20);
const SESSIONS_A_RELOAD: usize = 100;

/// Of each read.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// A balancer with two servers. One of them refuses connections although its probes pass.
#[derive(Debug)]
pub(crate) struct Traffic {
    balancer: Program,
    frontend: SocketAddr,
    /// A frontend whose only server takes one session.
    narrow: SocketAddr,
    /// A frontend that denies every client.
    closed: SocketAddr,
    observe: SocketAddr,
    prometheus: SocketAddr,
    folder: Folder,
    /// Bound and not listening: the port stays reserved, and connections are refused.
    _refuses: Socket,
}

impl Traffic {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let folder = Folder::make();
        let live = start_echo();
        let refuses = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        refuses.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let dead = refuses.local_addr().unwrap().as_socket().unwrap();
        let [frontend, narrow, closed, observe, prometheus] = free_addresses();
        let control = folder.0.join("control.sock");
        let text = format!(
            r#"[observe]
bind = "{observe}"
control = "{}"
[frontend.page]
bind = ["{frontend}"]
backend = "web"
[frontend.narrow]
bind = ["{narrow}"]
backend = "narrow"
[frontend.closed]
bind = ["{closed}"]
backend = "narrow"
deny = ["0.0.0.0/0"]
[backend.narrow]
queue_timeout = "500ms"
health.check = "off"
[[backend.narrow.server]]
name = "one"
address = "{live}"
sessions_max = 1
[backend.web.health]
interval = "500ms"
port = {}
[[backend.web.server]]
name = "lives"
address = "{live}"
[[backend.web.server]]
name = "refuses"
address = "{dead}"
"#,
            control.display(),
            live.port()
        );
        let file = folder.0.join("evenkeel.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.arg("run").arg("-c").arg(file);
        let balancer = Program::start(command, folder.0.join("evenkeel.log"));
        let mut traffic = Self {
            balancer,
            frontend,
            narrow,
            closed,
            observe,
            prometheus,
            folder,
            _refuses: refuses,
        };
        until("evenkeel listens", || {
            traffic.balancer.assert_runs();
            TcpStream::connect(traffic.frontend).is_ok()
        });
        traffic
    }

    /// Starts Prometheus with the deployed configuration, except for the address and a shorter
    /// interval.
    #[track_caller]
    pub(crate) fn start_prometheus(&self) -> Prometheus {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROMETHEUS_CONFIG);
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(INTERVAL) && text.contains(TARGET), "{text}");
        let text = text.replace(INTERVAL, "scrape_interval: 1s");
        let text = text.replace(TARGET, &self.observe.to_string());
        let file = self.folder.0.join("prometheus.yml");
        fs::write(&file, text).unwrap();
        Prometheus::start(Vec::new(), &self.prometheus.to_string(), &file, &self.folder.0)
    }

    /// Makes sessions and reloads while `action` runs.
    pub(crate) fn run_while(&self, action: impl FnOnce()) {
        /// Stops the thread, also if `action` panics.
        struct StopOnDrop<'a>(&'a AtomicBool);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let stopped = AtomicBool::new(false);
        // Each has its server before other clients come: the others of `narrow` have to wait.
        let stays_open = [self.frontend, self.narrow].map(|at| {
            let mut client = TcpStream::connect(at).unwrap();
            client.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
            client.write_all(b"?").unwrap();
            client.read_exact(&mut [0]).unwrap();
            client
        });
        thread::scope(|scope| {
            let stop = StopOnDrop(&stopped);
            scope.spawn(|| self.run_until(&stopped));
            scope.spawn(|| self.queue_until(&stopped));
            action();
            drop(stop);
        });
        drop(stays_open);
    }

    #[track_caller]
    fn run_until(&self, stopped: &AtomicBool) {
        while !stopped.load(Relaxed) {
            for _ in 0..SESSIONS_A_RELOAD {
                assert_eq!(self.exchange(b"hello").unwrap(), b"hello");
                // It is reset.
                drop(TcpStream::connect(self.closed));
                thread::park_timeout(PAUSE);
            }
            self.balancer.signal(Signal::SIGHUP);
        }
    }

    /// One client after the other waits in the queue until it is reset.
    fn queue_until(&self, stopped: &AtomicBool) {
        while !stopped.load(Relaxed) {
            let Ok(mut client) = TcpStream::connect(self.narrow) else { continue };
            client.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
            drop(client.read(&mut [0]));
        }
    }

    /// One session: sends a message, shuts down, and reads the whole answer.
    fn exchange(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.frontend)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.write_all(message)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// Starts a server that sends back what it receives, until the test process ends.
fn start_echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // Probes close at once: errors are ignored.
                drop(io::copy(&mut &stream, &mut &stream));
                drop(stream.shutdown(Shutdown::Write));
            });
        }
    });
    address
}

/// Different addresses that are free now.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners: [_; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// The directory of the files. Dropping it removes the directory.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make() -> Self {
        let name = format!("dashboard-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
