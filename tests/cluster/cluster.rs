//! The cluster that evenkeel exists for: Pis that serve a page with their names, a DNS server that
//! knows them, one Pi in front that balances, and somebody with a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::network::{Network, output};
use super::patience::{until, until_ok};
use super::program::{Program, said};
use super::prometheus::Prometheus;

/// What the scenes are played with.
pub(crate) const PROGRAMS: [&str; 7] =
    ["ip", "unshare", "lighttpd", "php-cgi", "dnsmasq", "curl", "mount"];

/// The Pi in front.
const FRONT: &str = "rpi-a";
const FRONT_ADDRESS: &str = "10.77.0.10";

/// The DNS server's host.
const DNS: &str = "dns";
const DNS_ADDRESS: &str = "10.77.0.53";

/// Somebody who looks at the page.
const BROWSER: &str = "browser";

/// The Pis that serve, where they are: names as the cluster's DNS has them.
const PIS: [(&str, &str); 3] =
    [("rpi-b", "10.77.0.11"), ("rpi-c", "10.77.0.12"), ("rpi-d", "10.77.0.13")];

/// Of the project, below its root.
pub(crate) const CONFIG: &str = "deploy/raspberry-pi-cluster.toml";
const PROMETHEUS_CONFIG: &str = "deploy/prometheus.yml";

/// As the issue's page has it: a header keeps browsers from guessing, the name is what is seen.
const PAGE: &str = "<?php header('Content-Type: text/plain'); echo gethostname(), \"\\n\";\n";

/// A private /run, for the control socket, and our DNS server in the place of the machine's. Where
/// resolv.conf is a link into /run, its target is now gone, and made again to be covered.
const PRIVATE: &str = r#"
real=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run
[ -e "$real" ] || { mkdir -p "${real%/*}" && : >"$real"; }
mount --bind "$0/resolv.conf" "$real"
mount --bind "$0/hosts" /etc/hosts
exec "$@"
"#;

/// The whole cluster; it is gone when this is dropped. Fields are dropped in this order: programs
/// before the hosts that they run on.
#[derive(Debug)]
pub(crate) struct Cluster {
    balancer: Program,
    dns: Program,
    webs: Vec<(&'static str, Program)>,
    network: Network,
}

impl Cluster {
    /// The cluster with the configuration that is deployed, used as it is.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(|_| root(CONFIG))
    }

    /// The cluster with a copy of that configuration, to be edited.
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
            until_ok("a Pi serves", || expect(&look(&network, address)?, pi));
        }
        let balancer = start_balancer(&network, &config(&network));
        let mut cluster = Self { balancer, dns, webs, network };
        // Names are looked up at start; a server counts as up until its probes say otherwise.
        until_ok("both servers are used", || {
            cluster.balancer.assert_runs();
            expect(&cluster.page()?, "rpi-b")?;
            expect(&cluster.page()?, "rpi-c")
        });
        cluster
    }

    /// What a browser shows that asks the Pi in front for the page, over a new connection.
    ///
    /// # Errors
    /// The request failed, as the browser says.
    pub(crate) fn page(&self) -> Result<String, String> {
        look(&self.network, FRONT_ADDRESS)
    }

    /// The next `count` pages; each must be there.
    #[track_caller]
    pub(crate) fn pages(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.page().unwrap_or_else(|why| panic!("no page: {why}"))).collect()
    }

    /// The Pi's processes are gone from one moment to the next; its kernel refuses connections.
    #[track_caller]
    pub(crate) fn kill_web(&mut self, pi: &str) {
        let place = self.place_of(pi);
        self.webs[place].1.kill();
        self.network.kill_all(pi);
    }

    /// The Pi's web server again.
    #[track_caller]
    pub(crate) fn restart_web(&mut self, pi: &str) {
        let place = self.place_of(pi);
        let (name, _) = self.webs[place];
        self.webs[place].1 = start_web(&self.network, name);
    }

    fn place_of(&self, pi: &str) -> usize {
        self.webs.iter().position(|(name, _)| *name == pi).expect("a Pi of the cluster")
    }

    /// The cluster's DNS server says from now on that `name` is where `pi` is.
    pub(crate) fn move_name(&self, name: &str, pi: &str) {
        let (_, address) = PIS.iter().find(|(own, _)| *own == pi).expect("a Pi of the cluster");
        write_names(&self.network, |own| if own == name { Some(*address) } else { None });
        self.dns.signal(Signal::SIGHUP);
    }

    /// The balancer reads its file again.
    pub(crate) fn reload(&self) {
        self.balancer.signal(Signal::SIGHUP);
    }

    /// What the balancer has said so far.
    pub(crate) fn log(&self) -> String {
        self.balancer.said()
    }

    /// The metrics as of now, read on the Pi in front: they are for it alone.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics(output(self.network.command(FRONT, &curl("http://127.0.0.1:8404/metrics"))))
    }

    /// Has `promtool check metrics` look at them; gives what it found.
    #[track_caller]
    pub(crate) fn check_metrics(&self) -> String {
        let file = self.network.file("metrics");
        fs::write(&file, self.metrics().0 + "\n").unwrap();
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap());
        output(promtool)
    }

    /// A Prometheus on the Pi in front, with the configuration that is deployed, used as it is.
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

    /// Probes of `server` that passed, since the start.
    #[track_caller]
    pub(crate) fn passed(&self, server: &str) -> f64 {
        let server = format!("server=\"{server}\"");
        self.value("evenkeel_probes_total", &[&server, "result=\"passed\""])
    }
}

fn look(network: &Network, address: &str) -> Result<String, String> {
    let mut command = network.command(BROWSER, &curl(&format!("http://{address}/")));
    command.output().map_err(|error| error.to_string()).and_then(|output| said(&output))
}

/// Fails on an answer that is not good, and on one that does not come.
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
        // A second: a name that moves is to be seen soon.
        "--local-ttl=1",
        "--bind-interfaces",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        &listen,
        &names,
    ];
    let mut dns = Program::start(network.command(DNS, &words), network.file("dns.log"));
    // Its socket is bound by then; questions wait in it until it has read the names.
    until("the DNS server has started", || {
        dns.assert_runs();
        dns.said().contains("started")
    });
    dns
}

/// The names of all Pis, each at its own address or `elsewhere`.
fn write_names(network: &Network, elsewhere: impl Fn(&str) -> Option<&'static str>) {
    let line = |(pi, address)| format!("{} {pi}\n", elsewhere(pi).unwrap_or(address));
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

/// Somebody who reloads the page all the time, until told to stop.
pub(crate) fn reload_page_while<T>(cluster: &Cluster, scene: impl FnOnce() -> T) -> (T, usize) {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let over = AtomicBool::new(false);
    /// Also when the scene fails: otherwise nobody would tell the readers.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let read = || {
            let mut count = 0;
            while !over.load(Relaxed) {
                cluster.pages(1);
                count += 1;
            }
            count
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        let ends = Ends(&over);
        let seen = scene();
        drop(ends);
        let counts = readers.map(|reader| reader.join().expect("a request failed"));
        (seen, counts.iter().sum())
    })
}

/// The pages until one of `pi` is there, all without a failure.
#[track_caller]
pub(crate) fn until_page_of(cluster: &Cluster, pi: &str) {
    until_ok(pi, || expect(&cluster.pages(1)[0], pi));
}

fn expect(seen: &str, wanted: &str) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
}
