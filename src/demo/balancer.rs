//! The evenkeel of the tour: a child process with a temporary configuration.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::browser;
use super::servers::WebServer;
use super::signals::StopSignals;
use crate::sys::child::die_with_parent;

/// Between two looks whether evenkeel is ready, or has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A start takes some milliseconds. A busy Pi may need longer.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// More than the `drain_timeout` of the configuration below.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// A path of a Unix socket has at most 107 bytes (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The ports of this tour. No other tour gets them until this value is dropped.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    _lock: UnixListener,
}

impl Ports {
    /// Reserves five free ports in a row. They are below the ephemeral ports: a connection to a
    /// stopped server on an ephemeral port may connect to itself.
    pub(super) fn reserve() -> io::Result<Self> {
        (18_080..20_000).step_by(10).find_map(Self::try_reserve).ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrInUse, "no free ports between 18080 and 20000")
        })
    }

    fn try_reserve(first: u16) -> Option<Self> {
        let name = UnixAddress::from_abstract_name(format!("evenkeel-demo-{first}")).ok()?;
        let lock = UnixListener::bind_addr(&name).ok()?;
        let free =
            (first..first + 5).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        free.then_some(Self { first, _lock: lock })
    }

    /// Of the frontend.
    pub(super) const fn frontend(&self) -> u16 {
        self.first
    }

    /// Of the web servers.
    pub(super) const fn servers(&self) -> [u16; 3] {
        [self.first + 1, self.first + 2, self.first + 3]
    }

    /// Of /metrics and the status page.
    pub(super) const fn observe(&self) -> u16 {
        self.first + 4
    }
}

/// A running evenkeel. Dropping it stops the process and removes its files.
#[derive(Debug)]
pub(super) struct Balancer {
    child: Child,
    folder: Folder,
    pub(super) frontend: SocketAddr,
    pub(super) observe: SocketAddr,
    /// The path of the control socket; none if the path of the temporary folder is too long for it.
    pub(super) control: Option<PathBuf>,
}

impl Balancer {
    /// Starts evenkeel in front of `servers`, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or ends, or is not ready in time. The error has its output.
    pub(super) fn start(
        ports: &Ports,
        servers: &[(&str, WebServer)],
        signals: &mut StopSignals,
    ) -> io::Result<Self> {
        let folder = Folder::make()?;
        let control = Some(folder.0.join("control.sock"))
            .filter(|path| path.to_str().is_some_and(|path| path.len() <= SOCKET_PATH_MAX));
        let frontend = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.frontend()));
        let observe = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.observe()));
        let file = folder.0.join("evenkeel.toml");
        fs::write(&file, configuration(frontend, observe, control.as_deref(), servers))?;
        let log = File::create(folder.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run".as_ref(), "-c".as_ref(), file.as_os_str()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C in the terminal goes to the demo alone, which then stops evenkeel in order.
        command.process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn()?;
        let mut balancer = Self { child, folder, frontend, observe, control };
        balancer.wait_until_ready(signals)?;
        Ok(balancer)
    }

    fn wait_until_ready(&mut self, signals: &mut StopSignals) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = browser::page(self.observe, "/readyz") {
            self.check_runs()?;
            if Instant::now() > deadline {
                return Err(self.failure(&format!("it is not ready ({error})")));
            }
            signals.wait(POLL_INTERVAL)?;
        }
        Ok(())
    }

    /// Checks that the process runs.
    ///
    /// # Errors
    /// It has ended. The error has its output.
    pub(super) fn check_runs(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("it has ended ({status})"))),
        }
    }

    fn failure(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(self.folder.log()).unwrap_or_default();
        io::Error::other(format!("evenkeel run: {what}; its output:\n{}", log.trim_end()))
    }

    /// The value of `metric` with the label `server="SERVER"`; none if there is no such line.
    pub(super) fn metric(&self, metric: &str, server: &str) -> Option<f64> {
        value(&browser::page(self.observe, "/metrics").ok()?, metric, server)
    }

    fn stop(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // A process id beyond i32 does not exist.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        kill(pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(());
            }
            thread::park_timeout(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if self.stop().is_err() {
            // The kernel kills it at the latest when this process ends.
            drop(self.child.kill());
        }
    }
}

/// The temporary folder of this tour. Dropping it removes the folder.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("evenkeel-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be made: {error}", path.display()))
        })?;
        Ok(Self(path))
    }

    fn log(&self) -> PathBuf {
        self.0.join("evenkeel.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The configuration of the tour. Probes are frequent, so that the tour is short.
fn configuration(
    frontend: SocketAddr,
    observe: SocketAddr,
    control: Option<&Path>,
    servers: &[(&str, WebServer)],
) -> String {
    let control = match control.and_then(Path::to_str) {
        Some(path) => toml::Value::from(path).to_string(),
        None => "false".to_owned(),
    };
    let mut text = format!(
        r#"[global]
drain_timeout = "1s"

[observe]
bind = "{observe}"
control = {control}

[observe.log]
sessions = false

[frontend.page]
bind = ["{frontend}"]
backend = "pis"

[backend.pis]
balance = "roundrobin"

[backend.pis.health]
check = "http"
interval = "200ms"
interval_down = "200ms"
timeout = "1s"
rise = 2
fall = 3
"#
    );
    for (name, server) in servers {
        let address = server.address();
        text.push_str(&format!(
            "\n[[backend.pis.server]]\nname = \"{name}\"\naddress = \"{address}\"\n"
        ));
    }
    text
}

fn value(exposition: &str, metric: &str, server: &str) -> Option<f64> {
    let label = format!("server=\"{server}\"");
    exposition.lines().find_map(|line| {
        let labels = line.strip_prefix(metric)?.strip_prefix('{')?;
        let (labels, value) = labels.rsplit_once('}')?;
        labels.split(',').any(|item| item == label).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name_and_its_server_label() {
        let text = "# HELP evenkeel_server_up x\n\
                    evenkeel_server_up_since{server=\"pi-2\"} 7\n\
                    evenkeel_server_up{backend=\"pis\",server=\"pi-1\"} 1\n\
                    evenkeel_server_up{backend=\"pis\",server=\"pi-2\"} 0\n";
        assert_eq!(value(text, "evenkeel_server_up", "pi-2"), Some(0.0));
        assert_eq!(value(text, "evenkeel_server_up", "pi-3"), None);
    }

    #[test]
    fn concurrent_tours_get_different_ports() {
        let (one, two) = (Ports::reserve().unwrap(), Ports::reserve().unwrap());
        assert_ne!(one.frontend(), two.frontend());
    }

    #[test]
    fn the_configuration_is_toml() {
        let servers = [("pi-1", WebServer::start("pi-1", 0).unwrap())];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let text = configuration(address, address, Some(Path::new("/t \"x\"/s")), &servers);
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["observe"]["control"].as_str(), Some("/t \"x\"/s"));
        assert_eq!(parsed["backend"]["pis"]["server"].as_array().map(Vec::len), Some(1));
    }
}
