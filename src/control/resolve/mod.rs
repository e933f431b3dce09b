//! Host names: their addresses, and what becomes of them.
//!
//! A name is answered as the system answers it: from /etc/hosts, else by the DNS servers, search
//! list and options of /etc/resolv.conf, A and AAAA. Both files are read again when they change.
//! Nothing is cached here: a [`Follower`] asks again as the TTL ends, and says what changed.

use std::cell::RefCell;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// Of a whole lookup, all servers, search domains and repeats together.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Of one question, all servers and repeats together: a DNS server that swallows questions for AAAA
/// must not cost us the answer for A.
const QUESTIONS_MAX: Duration = Duration::from_secs(4);

/// Of one question to one DNS server at most, so that a lost packet is repeated within the lookup.
const QUESTION_MAX: Duration = Duration::from_secs(2);

/// A TTL of less would make us ask all the time, one of more would make us late for ever.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What /etc/hosts says holds until the file changes; to look costs two calls of stat(2).
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// Each address becomes a server: a DNS server that lies must not make thousands.
const ADDRESSES_MAX: usize = 64;

/// After a failure, and at most after many.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Between two questions for one name, however often it is asked for.
const POKE_MIN: Duration = Duration::from_secs(1);

/// Lookups at a time, of all names: after a reload, or as a common TTL ends, a small DNS server
/// would drop what more would ask.
const LOOKUPS_MAX: usize = 16;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Each once, in ascending order, IPv4 first; never empty, and at most 64.
    pub addresses: Vec<IpAddr>,
    /// The smallest of the answer, 1 s to 1 h.
    pub ttl: Duration,
}

/// Looks up names, 16 at a time; clones share what they know of the system, and the 16.
#[derive(Clone)]
pub struct Resolver {
    system: Rc<RefCell<System>>,
    places: Rc<Semaphore>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// By the system's files. Where one is missing or odd, lookups that need it fail and say so,
    /// until it has changed.
    #[must_use]
    pub fn new() -> Self {
        Self::of(System::read(Files {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
        }))
    }

    /// By this DNS server and nothing else.
    #[must_use]
    pub fn with_nameserver(address: SocketAddr) -> Self {
        Self::of(System::fixed(address))
    }

    fn of(system: System) -> Self {
        let places = Rc::new(Semaphore::new(LOOKUPS_MAX));
        Self { system: Rc::new(RefCell::new(system)), places }
    }

    /// The addresses of `host`, within 5 s after its turn has come.
    ///
    /// # Errors
    /// Why there are none, for people.
    pub async fn lookup(&self, host: &str) -> Result<Answer, String> {
        self.lookup_after(host, &[]).await
    }

    /// As [`Self::lookup`]; where one of the two families cannot be learned, what was known of it
    /// still holds.
    async fn lookup_after(&self, host: &str, known: &[IpAddr]) -> Result<Answer, String> {
        if let Ok(address) = host.parse() {
            return Ok(Answer { addresses: vec![address], ttl: TTL.1 });
        }
        // It is never closed.
        let _place = self.places.acquire().await;
        let (dns, search) = {
            let mut system = self.system.borrow_mut();
            system.refresh();
            if let Some(addresses) = system.host(host) {
                return Ok(Answer { addresses, ttl: HOSTS_TTL });
            }
            (system.dns.clone()?, system.names(host)?)
        };
        let asked = async {
            let mut failure = None;
            for name in search {
                let (v4, v6) = tokio::join!(
                    ask(&dns, &name, RecordType::A),
                    ask(&dns, &name, RecordType::AAAA),
                );
                match combine(v4, v6, known) {
                    Ok(answer) => return Ok(answer),
                    // A server that failed says more than a name that another domain lacks.
                    Err(Nothing::Unknown(why)) => failure = Some(why),
                    Err(Nothing::None(why)) => failure = failure.or(Some(why)),
                }
            }
            Err(failure.unwrap_or_else(|| format!("`{host}` is not a host name")))
        };
        let late = || format!("no answer from DNS within {} s", LOOKUP_MAX.as_secs());
        timeout(LOOKUP_MAX, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

/// The system's files.
#[derive(Debug, Clone)]
struct Files {
    resolv_conf: PathBuf,
    hosts: PathBuf,
}

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [stamp(&self.resolv_conf), stamp(&self.hosts)]
    }
}

/// Tells one content of a file from the next.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// What the files said when they were read last.
struct System {
    /// None: there are none.
    files: Option<(Files, [Stamp; 2])>,
    hosts: Hosts,
    search: Vec<Name>,
    /// Dots in a name that is tried as it is before the search list.
    dots: usize,
    /// Why not, for people.
    dns: Result<TokioResolver, String>,
}

impl System {
    fn read(files: Files) -> Self {
        // Before their content: a change while we read is seen at the next look.
        let stamps = files.stamps();
        let mut hosts = Hosts::default();
        // A file that is missing or is no text names no host; what could be read counts.
        drop(File::open(&files.hosts).and_then(|file| hosts.read_hosts_conf(file)));
        let read = fs::read(&files.resolv_conf).map_err(NetError::from);
        let parsed = read.and_then(system_conf::parse_resolv_conf);
        let parsed = parsed.map_err(|error| format!("{}: {error}", files.resolv_conf.display()));
        Self::new(Some((files, stamps)), hosts, parsed)
    }

    fn fixed(address: SocketAddr) -> Self {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Self::new(None, Hosts::default(), Ok((config, ResolverOpts::default())))
    }

    fn new(
        files: Option<(Files, [Stamp; 2])>,
        hosts: Hosts,
        parsed: Result<(ResolverConfig, ResolverOpts), String>,
    ) -> Self {
        let (mut search, mut dots) = (Vec::new(), 1);
        let dns = parsed.and_then(|(config, mut options)| {
            search.clone_from(&config.search);
            dots = options.ndots;
            // A cache would keep us from seeing what changed; we ask once a TTL anyway.
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
            options.timeout = options.timeout.min(QUESTION_MAX);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options)
                .build()
                .map_err(|error| format!("DNS: {error}"))
        });
        Self { files, hosts, search, dots, dns }
    }

    /// Reads the files again if they changed.
    fn refresh(&mut self) {
        let changed = self.files.take_if(|(files, stamps)| files.stamps() != *stamps);
        if let Some((files, _)) = changed {
            *self = Self::read(files);
        }
    }

    /// What /etc/hosts says; for `localhost` also what it leaves out (RFC 6761, 6.3).
    fn host(&self, host: &str) -> Option<Vec<IpAddr>> {
        let name = absolute(host)?;
        let of = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(of)
            .flat_map(|lookup| addresses(&lookup))
            .collect();
        if found.is_empty() {
            let local = host == "localhost" || host.ends_with(".localhost");
            return local.then(|| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        Some(in_order(found))
    }

    /// The names to ask for, in order: the search list is for names with few dots.
    fn names(&self, host: &str) -> Result<Vec<Name>, String> {
        let own = absolute(host).ok_or_else(|| format!("`{host}` is not a host name"))?;
        if host.ends_with('.') {
            return Ok(vec![own]);
        }
        let mut names = Vec::new();
        for domain in &self.search {
            let mut relative = own.clone();
            relative.set_fqdn(false);
            names.extend(relative.append_domain(domain).map(|mut name| {
                name.set_fqdn(true);
                name
            }));
        }
        let place = if host.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(place, own);
        Ok(names)
    }
}

fn absolute(host: &str) -> Option<Name> {
    let mut name = Name::from_utf8(host).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

fn in_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// Why a question brought no address.
#[derive(Debug, Clone)]
enum Nothing {
    /// There is none.
    None(String),
    /// It could not be learned.
    Unknown(String),
}

type Found = Result<(Vec<IpAddr>, Duration), Nothing>;

async fn ask(dns: &TokioResolver, name: &Name, kind: RecordType) -> Found {
    let lookup = timeout(QUESTIONS_MAX, dns.lookup(name.clone(), kind)).await;
    let lookup = lookup.unwrap_or(Err(NetError::Timeout)).map_err(|error| nothing(&error))?;
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let found = addresses(&lookup);
    if found.is_empty() {
        return Err(Nothing::None("the name has no address".to_owned()));
    }
    Ok((found, Duration::from_secs(u64::from(ttl))))
}

fn nothing(error: &NetError) -> Nothing {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(found)) => match found.response_code {
            ResponseCode::NXDomain => Nothing::None("no such name (NXDOMAIN)".to_owned()),
            ResponseCode::NoError => Nothing::None("the name has no address".to_owned()),
            code => Nothing::Unknown(format!("the DNS server answered: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Nothing::Unknown(format!("the DNS server answered: {code}"))
        }
        NetError::Timeout => Nothing::Unknown("no DNS server answered in time".to_owned()),
        other => Nothing::Unknown(format!("DNS: {other}")),
    }
}

/// One answer of two.
fn combine(v4: Found, v6: Found, known: &[IpAddr]) -> Result<Answer, Nothing> {
    let (mut all, mut ttl, mut unknown, mut none) = (Vec::new(), TTL.1, None, None);
    let mut fresh = false;
    for (found, family) in [(v4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (v6, IpAddr::is_ipv6)] {
        match found {
            Ok((addresses, its_ttl)) => {
                all.extend(addresses);
                ttl = ttl.min(its_ttl);
                fresh = true;
            }
            Err(Nothing::None(why)) => none = Some(why),
            Err(Nothing::Unknown(why)) => {
                all.extend(known.iter().filter(|address| family(address)));
                unknown = Some(why);
            }
        }
    }
    match (fresh, unknown, none) {
        (true, ..) => Ok(Answer { addresses: in_order(all), ttl: ttl.max(TTL.0) }),
        (false, Some(why), _) => Err(Nothing::Unknown(why)),
        (false, None, why) => Err(Nothing::None(why.unwrap_or_default())),
    }
}

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The name.
    pub host: String,
    /// Its addresses, which changed or are known again; or why they could not be learned, in which
    /// case the last good answer still holds.
    pub answer: Result<Answer, String>,
}

/// A task that keeps asking for a name, and ends with this.
#[derive(Debug)]
pub struct Follower {
    poke: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows `host` from its `first` answer on (none: asks at once), and tells `sender` when its
    /// addresses changed, when the first of several lookups failed, and when that is over. Within
    /// a runtime of tokio-uring.
    #[must_use]
    pub fn start(
        resolver: Resolver,
        host: String,
        first: Option<Answer>,
        sender: mpsc::UnboundedSender<Resolved>,
    ) -> Self {
        let poke = Rc::new(Notify::new());
        let task = tokio_uring::spawn(follow(resolver, host, first, sender, Rc::clone(&poke)));
        Self { poke, task }
    }

    /// Asks at once, though not twice in a second: after a failed connect.
    pub fn poke(&self) {
        self.poke.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // No operation of the ring's is in this task.
        self.task.abort();
    }
}

async fn follow(
    resolver: Resolver,
    host: String,
    first: Option<Answer>,
    sender: mpsc::UnboundedSender<Resolved>,
    poke: Rc<Notify>,
) {
    let started = Instant::now();
    let seed = RandomState::new();
    let soon = |ttl, asked: Instant| jittered(ttl, seed.hash_one(asked.duration_since(started)));
    let mut wait = first.as_ref().map_or(Duration::ZERO, |answer| soon(answer.ttl, started));
    let mut known = first.map(|answer| answer.addresses);
    let mut retry = None;
    let mut asked = started;
    loop {
        tokio::select! {
            () = sleep_until(asked + wait) => {}
            () = poke.notified() => sleep_until(asked + POKE_MIN.min(wait)).await,
        }
        asked = Instant::now();
        let answer = resolver.lookup_after(&host, known.as_deref().unwrap_or_default()).await;
        let news = match &answer {
            Ok(answer) => {
                wait = soon(answer.ttl, asked);
                let was_failing = retry.take().is_some();
                let changed = known.as_ref() != Some(&answer.addresses);
                known = Some(answer.addresses.clone());
                changed || was_failing
            }
            Err(_) => {
                wait = retry.unwrap_or(RETRY.0);
                retry.replace((wait * 2).min(RETRY.1)).is_none()
            }
        };
        if news && sender.send(Resolved { host: host.clone(), answer }).is_err() {
            return;
        }
    }
}

/// Up to an eighth less than the TTL, so that names that were answered together part; not less
/// than a second, and never more than the TTL.
fn jittered(ttl: Duration, random: u64) -> Duration {
    let part = u32::try_from(random >> 48).unwrap_or(0);
    (ttl - ttl / 8 * part / (1 << 16)).max(POKE_MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use hickory_resolver::proto::op::{Message, MessageType};
    use hickory_resolver::proto::rr::{RData, Record};
    use tokio::net::UdpSocket;
    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::time::sleep;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A DNS server that says what it is told to say, and counts the questions for A.
    #[derive(Clone)]
    struct Dns {
        script: Rc<RefCell<Script>>,
        address: SocketAddr,
    }

    #[derive(Default)]
    struct Script {
        says: HashMap<(String, RecordType), Says>,
        asked: u32,
        names: HashSet<String>,
    }

    #[derive(Clone)]
    enum Says {
        Records(u32, Vec<IpAddr>),
        Code(ResponseCode),
        Nothing,
    }

    impl Dns {
        async fn start() -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let script = Rc::new(RefCell::new(Script::default()));
            let dns = Self { script, address };
            tokio_uring::spawn(dns.clone().serve(socket));
            dns
        }

        async fn serve(self, socket: UdpSocket) {
            let mut question = [0; 4096];
            loop {
                let (length, client) = socket.recv_from(&mut question).await.unwrap();
                if let Some(answer) = self.answer(&question[..length]) {
                    socket.send_to(&answer, client).await.unwrap();
                }
            }
        }

        fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
            let mut message = Message::from_vec(question).unwrap();
            let query = message.queries[0].clone();
            let mut script = self.script.borrow_mut();
            if query.query_type() == RecordType::A {
                script.asked += 1;
            }
            let name = query.name().to_ascii().to_lowercase();
            script.names.insert(name.clone());
            let says = script.says.get(&(name, query.query_type())).cloned();
            message.metadata.message_type = MessageType::Response;
            match says.unwrap_or(Says::Code(ResponseCode::NoError)) {
                Says::Nothing => return None,
                Says::Code(code) => message.metadata.response_code = code,
                Says::Records(ttl, addresses) => {
                    let record = |address| {
                        Record::from_rdata(query.name().clone(), ttl, RData::from(address))
                    };
                    message.add_answers(addresses.into_iter().map(record));
                }
            }
            Some(message.to_vec().unwrap())
        }

        fn say(&self, kind: RecordType, says: Says) {
            let key = ("web.test.".to_owned(), kind);
            self.script.borrow_mut().says.insert(key, says);
        }

        fn has(&self, ttl: u32, addresses: &[&str]) {
            let addresses = ips(addresses);
            let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
            self.say(RecordType::A, Says::Records(ttl, v4));
            self.say(RecordType::AAAA, Says::Records(ttl, v6));
        }

        fn fails(&self, code: ResponseCode) {
            self.say(RecordType::A, Says::Code(code));
            self.say(RecordType::AAAA, Says::Code(code));
        }

        fn asked(&self) -> u32 {
            self.script.borrow().asked
        }

        async fn lookup(&self) -> Result<Answer, String> {
            Resolver::with_nameserver(self.address).lookup("web.test").await
        }

        fn follow(&self, first: Option<Answer>) -> (Follower, UnboundedReceiver<Resolved>) {
            let (sender, news) = mpsc::unbounded_channel();
            let resolver = Resolver::with_nameserver(self.address);
            (Follower::start(resolver, "web.test".to_owned(), first, sender), news)
        }

        /// Waits until it was asked `times` times more.
        async fn is_asked(&self, times: u32) {
            let (asked, deadline) = (self.asked(), Instant::now() + LONG);
            while self.asked() < asked + times {
                assert!(Instant::now() < deadline, "asked {} times", self.asked() - asked);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn ips(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    async fn next(news: &mut UnboundedReceiver<Resolved>) -> Result<Vec<IpAddr>, String> {
        let resolved = timeout(LONG, news.recv()).await.unwrap().unwrap();
        assert_eq!(resolved.host, "web.test");
        resolved.answer.map(|answer| answer.addresses)
    }

    #[test]
    fn a_name_has_its_addresses_once_and_in_order_whatever_the_server_shuffles() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            let wanted = ips(&["10.0.0.1", "10.0.0.2", "10.0.0.10", "fd00::1"]);
            dns.has(60, &["10.0.0.10", "10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1"]);
            assert_eq!(dns.lookup().await.unwrap().addresses, wanted);
            dns.has(60, &["10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.10"]);
            assert_eq!(dns.lookup().await.unwrap().addresses, wanted);
        });
    }

    #[test]
    fn the_ttl_is_the_smallest_within_bounds() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            for (a, aaaa, wanted) in [(60, 30, 30), (0, 60, 1), (86_400, 7200, 3600)] {
                dns.say(RecordType::A, Says::Records(a, ips(&["10.0.0.1"])));
                dns.say(RecordType::AAAA, Says::Records(aaaa, ips(&["fd00::1"])));
                assert_eq!(dns.lookup().await.unwrap().ttl, Duration::from_secs(wanted));
            }
        });
    }

    #[test]
    fn a_lookup_without_an_answer_says_why() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.fails(ResponseCode::NXDomain);
            assert_eq!(dns.lookup().await.unwrap_err(), "no such name (NXDOMAIN)");
            dns.fails(ResponseCode::NoError);
            assert_eq!(dns.lookup().await.unwrap_err(), "the name has no address");
            dns.fails(ResponseCode::ServFail);
            let error = dns.lookup().await.unwrap_err();
            assert!(error.starts_with("the DNS server answered: "), "{error}");
        });
    }

    #[test]
    fn a_server_that_swallows_questions_ends_the_lookup_in_time() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.say(RecordType::AAAA, Says::Nothing);
            dns.say(RecordType::A, Says::Nothing);
            let started = Instant::now();
            assert_eq!(dns.lookup().await.unwrap_err(), "no DNS server answered in time");
            assert!(started.elapsed() < LOOKUP_MAX + QUESTION_MAX);
            // Only AAAA is swallowed: the answer is what A says.
            dns.say(RecordType::A, Says::Records(60, ips(&["10.0.0.1"])));
            assert_eq!(dns.lookup().await.unwrap().addresses, ips(&["10.0.0.1"]));
        });
    }

    #[test]
    fn localhost_and_addresses_need_no_dns() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            let resolver = Resolver::with_nameserver(dns.address);
            for (host, address) in [("localhost", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")] {
                assert_eq!(resolver.lookup(host).await.unwrap().addresses, ips(&[address]));
            }
            let found = Resolver::new().lookup("localhost").await.unwrap();
            assert!(found.addresses.iter().all(IpAddr::is_loopback), "{found:?}");
            assert_eq!(dns.asked(), 0);
        });
    }

    #[test]
    fn a_name_that_moves_is_followed_and_nothing_else_is_said() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.has(1, &["10.0.0.1"]);
            let (_follower, mut news) = dns.follow(None);
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
            dns.is_asked(2).await;
            assert!(news.is_empty(), "nothing changed");
            dns.has(1, &["10.0.0.2", "10.0.0.3"]);
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.2", "10.0.0.3"]));
        });
    }

    #[test]
    fn a_failure_is_told_once_and_its_end_too() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.has(1, &["10.0.0.1"]);
            let first = dns.lookup().await.unwrap();
            let (_follower, mut news) = dns.follow(Some(first));
            dns.fails(ResponseCode::ServFail);
            assert!(next(&mut news).await.is_err());
            dns.is_asked(1).await;
            assert!(news.is_empty(), "still failing");
            dns.has(1, &["10.0.0.1"]);
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
        });
    }

    #[test]
    fn a_name_that_is_unknown_at_start_is_asked_for_again() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.fails(ResponseCode::NXDomain);
            let (_follower, mut news) = dns.follow(None);
            assert!(next(&mut news).await.is_err());
            dns.has(60, &["10.0.0.1"]);
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
        });
    }

    #[test]
    fn a_family_that_cannot_be_learned_keeps_its_addresses() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.has(1, &["10.0.0.1", "fd00::1"]);
            let (_follower, mut news) = dns.follow(None);
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1", "fd00::1"]));
            dns.say(RecordType::A, Says::Code(ResponseCode::ServFail));
            dns.say(RecordType::AAAA, Says::Records(1, ips(&["fd00::2"])));
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1", "fd00::2"]));
        });
    }

    #[test]
    fn a_poke_asks_at_once_but_not_twice_in_a_second() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.has(3600, &["10.0.0.1"]);
            let (follower, mut news) = dns.follow(None);
            assert_eq!(next(&mut news).await.unwrap(), ips(&["10.0.0.1"]));
            dns.has(3600, &["10.0.0.2"]);
            let (asked, started) = (dns.asked(), Instant::now());
            let poking = async {
                loop {
                    follower.poke();
                    sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = poking => {}
                found = next(&mut news) => assert_eq!(found.unwrap(), ips(&["10.0.0.2"])),
            }
            let most = 1 + u32::try_from(started.elapsed().as_secs()).unwrap();
            assert!(dns.asked() - asked <= most, "asked {} times", dns.asked() - asked);
        });
    }

    #[test]
    fn names_part_by_an_eighth_of_the_ttl_and_are_never_late() {
        let ttl = Duration::from_secs(80);
        assert_eq!(jittered(ttl, 0), ttl);
        let earliest = jittered(ttl, u64::MAX);
        assert!(earliest >= ttl * 7 / 8 && earliest < ttl * 9 / 10, "{earliest:?}");
        assert_eq!(jittered(TTL.0, u64::MAX), TTL.0);
    }

    #[test]
    fn so_many_names_are_asked_for_at_a_time() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            let (sender, mut news) = mpsc::unbounded_channel();
            let resolver = Resolver::with_nameserver(dns.address);
            let hosts: Vec<String> = (0..40).map(|n| format!("n{n}.test")).collect();
            for host in &hosts {
                for kind in [RecordType::A, RecordType::AAAA] {
                    let says = &mut dns.script.borrow_mut().says;
                    says.insert((format!("{host}."), kind), Says::Nothing);
                }
            }
            let follow = |host: &String| {
                Follower::start(resolver.clone(), host.clone(), None, sender.clone())
            };
            let followers: Vec<Follower> = hosts.iter().map(follow).collect();
            assert!(timeout(LONG, news.recv()).await.unwrap().unwrap().answer.is_err());
            // Those that began with it may just have given their places away, too.
            let names = dns.script.borrow().names.len();
            assert!((LOOKUPS_MAX..=2 * LOOKUPS_MAX).contains(&names), "{names} names were asked");
            drop(followers);
        });
    }

    #[test]
    fn a_follower_that_is_dropped_asks_no_more() {
        tokio_uring::start(async {
            let dns = Dns::start().await;
            dns.has(1, &["10.0.0.1"]);
            let (follower, mut news) = dns.follow(None);
            assert!(next(&mut news).await.is_ok());
            drop(follower);
            assert_eq!(timeout(LONG, news.recv()).await.unwrap(), None);
        });
    }

    #[test]
    fn names_with_few_dots_are_tried_in_the_search_list_first() {
        let search = ["home.test", "lan"].map(|domain| Name::from_utf8(domain).unwrap());
        let config = ResolverConfig::from_parts(None, search.to_vec(), Vec::new());
        let system = System::new(None, Hosts::default(), Ok((config, ResolverOpts::default())));
        let names = |host| -> Vec<String> {
            system.names(host).unwrap().iter().map(Name::to_ascii).collect()
        };
        assert_eq!(names("web"), ["web.home.test.", "web.lan.", "web."]);
        assert_eq!(names("web.x"), ["web.x.", "web.x.home.test.", "web.x.lan."]);
        assert_eq!(names("web."), ["web."]);
    }

    #[test]
    fn the_systems_files_are_read_again_when_they_change() {
        let folder = std::env::temp_dir().join(format!("evenkeel-resolve-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = Files { resolv_conf: folder.join("resolv.conf"), hosts: folder.join("hosts") };
        tokio_uring::start(async {
            let resolver = Resolver::of(System::read(files.clone()));
            let error = resolver.lookup("web.test").await.unwrap_err();
            assert!(error.contains("resolv.conf: ") && error.contains("No such file"), "{error}");
            fs::write(&files.resolv_conf, "# nothing\n").unwrap();
            let error = resolver.lookup("web.test").await.unwrap_err();
            assert!(error.contains("no nameservers"), "{error}");
            fs::write(&files.hosts, "10.0.0.2 web.test # ours\n10.0.0.1 other WEB.test\n").unwrap();
            let found = resolver.lookup("web.test").await.unwrap();
            assert_eq!(found.addresses, ips(&["10.0.0.1", "10.0.0.2"]));
            fs::write(&files.hosts, "fd00::3 web.test\n").unwrap();
            let found = resolver.lookup("web.test").await.unwrap();
            assert_eq!(found.addresses, ips(&["fd00::3"]));
        });
        fs::remove_dir_all(folder).unwrap();
    }
}
