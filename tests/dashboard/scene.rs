//! An evenkeel with everything that a dashboard shows: sessions that end and one that stays, a
//! server that refuses, probes that pass, a reload.

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

use super::patience::until;
use super::program::Program;
use super::prometheus::Prometheus;

/// Of the project, below its root; its one target is evenkeel's default.
const PROMETHEUS_CONFIG: &str = "deploy/prometheus.yml";
const TARGET: &str = "127.0.0.1:8404";
const INTERVAL: &str = "scrape_interval: 5s";

/// Between two sessions, and between two reloads.
const PAUSE: Duration = Duration::from_millis(20);
const SESSIONS_A_RELOAD: usize = 100;

/// Reads and writes that hang fail instead.
const PATIENCE: Duration = Duration::from_secs(20);

/// A balancer with two servers, of which one refuses whatever its probes say.
#[derive(Debug)]
pub(crate) struct Scene {
    balancer: Program,
    frontend: SocketAddr,
    observe: SocketAddr,
    prometheus: SocketAddr,
    folder: Folder,
    /// Bound and not listening: nobody else takes the port, and connects are refused.
    _refuses: Socket,
}

impl Scene {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let folder = Folder::make();
        let live = start_echo();
        let refuses = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        refuses.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let dead = refuses.local_addr().unwrap().as_socket().unwrap();
        let [frontend, observe, prometheus] = free_addresses();
        let control = folder.0.join("control.sock");
        let text = format!(
            r#"[observe]
bind = "{observe}"
control = "{}"
[frontend.page]
bind = ["{frontend}"]
backend = "web"
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
        let mut scene = Self { balancer, frontend, observe, prometheus, folder, _refuses: refuses };
        until("evenkeel listens", || {
            scene.balancer.assert_runs();
            TcpStream::connect(scene.frontend).is_ok()
        });
        scene
    }

    /// A Prometheus with the configuration that is deployed, but for the address and for its
    /// interval: nobody wants to wait.
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

    /// Sessions and reloads for as long as `audience` takes.
    pub(crate) fn play_while(&self, audience: impl FnOnce()) {
        /// Also when the audience leaves in anger: otherwise nobody would tell the actor.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        let stays = TcpStream::connect(self.frontend).unwrap();
        thread::scope(|scope| {
            let ends = Ends(&over);
            scope.spawn(|| self.act_until(&over));
            audience();
            drop(ends);
        });
        drop(stays);
    }

    #[track_caller]
    fn act_until(&self, over: &AtomicBool) {
        while !over.load(Relaxed) {
            for _ in 0..SESSIONS_A_RELOAD {
                assert_eq!(self.say(b"hello").unwrap(), b"hello");
                thread::park_timeout(PAUSE);
            }
            self.balancer.signal(Signal::SIGHUP);
        }
    }

    /// A session in order: what is said comes back, and both sides end.
    fn say(&self, words: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.frontend)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(words)?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard)?;
        Ok(heard)
    }
}

/// A server that says back what it hears, until the test process ends.
fn start_echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // Who hangs up, as probes do, is none of a server's business.
                drop(io::copy(&mut &stream, &mut &stream));
                drop(stream.shutdown(Shutdown::Write));
            });
        }
    });
    address
}

/// Addresses that nobody listens on now; each another one.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners: [_; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// The scene's files; gone with it.
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
