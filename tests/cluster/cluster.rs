//! The cluster that evenkeel was written for: Pis that serve a page with their host names, a DNS
//! server with their addresses, one Pi that runs evenkeel, and a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::network::{Network, output};
use super::program::{Program, printed};
use super::prometheus::Prometheus;
use super::wait::{until, until_ok};

/// The programs that the tests need.
pub(crate) const PROGRAMS: [&str; 7] =
    ["ip", "unshare", "lighttpd", "php-cgi", "dnsmasq", "curl", "mount"];

/// The Pi that runs evenkeel.
const FRONT: &str = "rpi-a";
const FRONT_ADDRESS: &str = "10.77.0.10";

/// The host of the DNS server.
const DNS: &str = "dns";
const DNS_ADDRESS: &str = "10.77.0.53";

/// The host of the client.
const BROWSER: &str = "browser";

/// The Pis that serve the page, with their names in DNS.
const PIS: [(&str, &str); 3] =
    [("rpi-b", "10.77.0.11"), ("rpi-c", "10.77.0.12"), ("rpi-d", "10.77.0.13")];

/// Paths from the root of the project.
pub(crate) const CONFIG: &str = "deploy/raspberry-pi-cluster.toml";
const PROMETHEUS_CONFIG: &str = "deploy/prometheus.yml";

/// The page: the host name. The header keeps browsers from guessing the type.
const PAGE: &str = "<?php header('Content-Type: text/plain'); echo gethostname(), \"\\n\";\n";

/// Mounts a private /run, for the control socket, and a resolv.conf with the DNS server of the
/// test. If resolv.conf is a link into /run, its target is hidden now and is created again as the
/// mount point.
const PRIVATE: &str = r#"
real=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run
[ -e "$real" ] || { mkdir -p "${real%/*}" && : >"$real"; }
mount --bind "$0/resolv.conf" "$real"
mount --bind "$0/hosts" /etc/hosts
exec "$@"
"#;

/// The whole cluster. Dropping it removes everything. Fields are dropped in this order: programs
/// before the hosts that they run on.
#[derive(Debug)]
pub(crate) struct Cluster {
    balancer: Program,
    dns: Program,
    webs: Vec<(&'static str, Program)>,
    network: Network,
}

impl Cluster {
    /// Starts the cluster with the deployed configuration, unchanged.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(|_| root(CONFIG))
    }

    /// Starts the cluster with a copy of the deployed configuration: the cluster, and the copy.
    #[track_caller]
    pub(crate) fn start_editable() -> (Self, PathBuf) {
        let mut copy = PathBuf::new();
        let cluster = Self::start_with(|network| {
            copy = network.file("evenkeel.toml");
            fs::copy(root(CONFIG), &copy).unwrap();
            copy.clone()
        });
        (cluster, copy)
    }

    /// Starts the cluster with the configuration of HAProxy that the deployed one quotes, as
    /// `evenkeel convert` writes it.
    #[track_caller]
    pub(crate) fn start_converted() -> Self {
        Self::start_with(|network| {
            let (old, new) = (network.file("haproxy.cfg"), network.file("evenkeel.toml"));
            fs::write(&old, haproxy_config()).unwrap();
            let mut convert = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
            convert.arg("convert").arg(&old);
            fs::write(&new, output(convert)).unwrap();
            new
        })
    }

    #[track_caller]
    fn start_with(config: impl FnOnce(&Network) -> PathBuf) -> Self {
        let mut network = Network::new();
        network.add_host(FRONT, FRONT_ADDRESS);
        network.add_host(DNS, DNS_ADDRESS);
        network.add_host(BROWSER, "10.77.0.100");
        for (pi, address) in PIS {
            network.add_host(pi, address);
        }
        let www = network.file("www");
        fs::create_dir(&www).unwrap();
        fs::write(www.join("index.php"), PAGE).unwrap();
        let webs: Vec<_> = PIS.iter().map(|(pi, _)| (*pi, start_web(&network, pi))).collect();
        let dns = start_dns(&network);
        for (pi, address) in PIS {
            until_ok("a Pi serves", || expect(&fetch(&network, address)?, pi));
        }
        let balancer = start_balancer(&network, &config(&network));
        let mut cluster = Self { balancer, dns, webs, network };
        // A server is up until its first probe.
        until_ok("both servers get sessions", || {
            cluster.balancer.assert_runs();
            expect(&cluster.page()?, "rpi-b")?;
            expect(&cluster.page()?, "rpi-c")
        });
        cluster
    }

    /// Requests the page through evenkeel, over a new connection.
    ///
    /// # Errors
    /// The error of curl.
    pub(crate) fn page(&self) -> Result<String, String> {
        fetch(&self.network, FRONT_ADDRESS)
    }

    /// Requests the page `count` times. Each request must succeed.
    #[track_caller]
    pub(crate) fn pages(&self, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| self.page().unwrap_or_else(|why| panic!("a request failed: {why}")))
            .collect()
    }

    /// Kills every process on the Pi. Its kernel then refuses connections.
    #[track_caller]
    pub(crate) fn kill_web(&mut self, pi: &str) {
        let index = self.index_of(pi);
        self.webs[index].1.kill();
        self.network.kill_all(pi);
    }

    /// Starts the web server of the Pi again.
    #[track_caller]
    pub(crate) fn restart_web(&mut self, pi: &str) {
        let index = self.index_of(pi);
        let (name, _) = self.webs[index];
        self.webs[index].1 = start_web(&self.network, name);
    }

    fn index_of(&self, pi: &str) -> usize {
        self.webs.iter().position(|(name, _)| *name == pi).expect("a Pi of the cluster")
    }

    /// Changes the address of `name` in DNS to that of `pi`.
    pub(crate) fn move_name(&self, name: &str, pi: &str) {
        let (_, address) = PIS.iter().find(|(own, _)| *own == pi).expect("a Pi of the cluster");
        write_names(&self.network, |own| if own == name { Some(*address) } else { None });
        self.dns.signal(Signal::SIGHUP);
    }

    /// Reloads the configuration of evenkeel.
    pub(crate) fn reload(&self) {
        self.balancer.signal(Signal::SIGHUP);
    }

    /// The output of evenkeel so far.
    pub(crate) fn log(&self) -> String {
        self.balancer.output()
    }

    /// Scrapes the metrics, on the host of evenkeel: they are served on its loopback only.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics(output(self.network.command(FRONT, &curl("http://127.0.0.1:8404/metrics"))))
    }

    /// The output of `promtool check metrics`.
    #[track_caller]
    pub(crate) fn check_metrics(&self) -> String {
        let file = self.network.file("metrics");
        fs::write(&file, self.metrics().0 + "\n").unwrap();
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap());
        output(promtool)
    }

    /// Starts Prometheus on the host of evenkeel, with the deployed configuration, unchanged.
    #[track_caller]
    pub(crate) fn start_prometheus(&self) -> Prometheus {
        let words = self.network.words(FRONT);
        let folder = self.network.file("");
        Prometheus::start(words, "127.0.0.1:9090", &root(PROMETHEUS_CONFIG), &folder)
    }
}

/// One scrape, as text.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The value of the series `name` whose labels include these, written `label="value"`.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let found = self.0.lines().find_map(|line| {
            let (series, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
            let own: Vec<&str> = series.split(',').collect();
            labels.iter().all(|label| own.contains(label)).then(|| value.parse().ok())?
        });
        found.unwrap_or_else(|| panic!("no {name} with {labels:?} in\n{}", self.0))
    }

    /// Whether `server` is up.
    #[track_caller]
    pub(crate) fn is_up(&self, server: &str) -> bool {
        self.value("evenkeel_server_up", &[&format!("server=\"{server}\"")]) > 0.5
    }

    /// Probes of `server` that passed since the start.
    #[track_caller]
    pub(crate) fn passed(&self, server: &str) -> f64 {
        let server = format!("server=\"{server}\"");
        self.value("evenkeel_probes_total", &[&server, "result=\"passed\""])
    }
}

/// The configuration of HAProxy in the comment at the head of the deployed configuration.
fn haproxy_config() -> String {
    let text = fs::read_to_string(root(CONFIG)).unwrap();
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    let lines = lines.filter_map(|line| line.strip_prefix("#     "));
    lines.map(|line| format!("{line}\n")).collect()
}

fn fetch(network: &Network, address: &str) -> Result<String, String> {
    let mut command = network.command(BROWSER, &curl(&format!("http://{address}/")));
    command.output().map_err(|error| error.to_string()).and_then(|output| printed(&output))
}

/// Fails on an error status, and after ten seconds without an answer.
fn curl(url: &str) -> [&str; 9] {
    ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10", url]
}

fn start_web(network: &Network, pi: &str) -> Program {
    let (config, www) = (network.file(&format!("{pi}.conf")), network.file("www"));
    let socket = network.file(&format!("{pi}.sock"));
    let text = format!(
        r#"server.modules = ("mod_fastcgi")
server.document-root = "{}"
server.port = 80
server.max-keep-alive-requests = 0
index-file.names = ("index.php")
fastcgi.server = (".php" => (("bin-path" => "/usr/bin/php-cgi", "socket" => "{}",
    "max-procs" => 1)))
"#,
        www.display(),
        socket.display()
    );
    fs::write(&config, text).unwrap();
    let script = "hostname \"$0\" && exec lighttpd -D -f \"$1\"";
    let config = config.to_str().unwrap();
    let words = ["unshare", "--uts", "sh", "-c", script, pi, config];
    Program::start(network.command(pi, &words), network.file(&format!("{pi}.log")))
}

fn start_dns(network: &Network) -> Program {
    write_names(network, |_| None);
    let names = format!("--addn-hosts={}", network.file("names").display());
    let listen = format!("--listen-address={DNS_ADDRESS}");
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--local=//",
        // One second, so that evenkeel notices a changed address soon.
        "--local-ttl=1",
        "--bind-interfaces",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        &listen,
        &names,
    ];
    let mut dns = Program::start(network.command(DNS, &words), network.file("dns.log"));
    // Its socket is bound by then. Queries wait in it until it has read the names.
    until("the DNS server has started", || {
        dns.assert_runs();
        dns.output().contains("started")
    });
    dns
}

/// Writes the names of all Pis, each with the address that `changed` returns, or its own.
fn write_names(network: &Network, changed: impl Fn(&str) -> Option<&'static str>) {
    let line = |(pi, address)| format!("{} {pi}\n", changed(pi).unwrap_or(address));
    fs::write(network.file("names"), PIS.map(line).concat()).unwrap();
}

fn start_balancer(network: &Network, config: &Path) -> Program {
    fs::write(network.file("resolv.conf"), format!("nameserver {DNS_ADDRESS}\n")).unwrap();
    fs::write(network.file("hosts"), "127.0.0.1 localhost\n").unwrap();
    let (folder, config) = (network.file(""), config.to_str().unwrap().to_owned());
    let program = env!("CARGO_BIN_EXE_evenkeel");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let words = ["sh", "-ec", PRIVATE, folder, program, "run", "-c", &config];
    Program::start(network.command(FRONT, &words), network.file("evenkeel.log"))
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Requests the page from two threads while `action` runs: its result, and the number of requests.
/// Each request must succeed.
pub(crate) fn request_pages_during<T>(cluster: &Cluster, action: impl FnOnce() -> T) -> (T, usize) {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let stopped = AtomicBool::new(false);
    /// Stops the threads, also if `action` panics.
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let read = || {
            let mut count = 0;
            while !stopped.load(Relaxed) {
                cluster.pages(1);
                count += 1;
            }
            count
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        let stop = StopOnDrop(&stopped);
        let result = action();
        drop(stop);
        let counts = readers.map(|reader| reader.join().expect("a request failed"));
        (result, counts.iter().sum())
    })
}

/// Requests the page until `pi` answers. Each request must succeed.
#[track_caller]
pub(crate) fn until_page_of(cluster: &Cluster, pi: &str) {
    until_ok(pi, || expect(&cluster.pages(1)[0], pi));
}

fn expect(actual: &str, expected: &str) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{actual:?}, not {expected:?}")) }
}
