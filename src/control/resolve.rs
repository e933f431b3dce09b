//! Host names: their addresses, and what becomes of them.
//!
//! A name is answered as the system answers it: from /etc/hosts, else by the DNS servers, search
//! list and options of /etc/resolv.conf, A and AAAA. Both files are read again when they change.
//! Nothing is cached here: a [`Follower`] asks again as the TTL ends, and says what changed.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::sync::{Notify, mpsc};
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

/// After a failure, and at most after many.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Between two questions for one name, however often it is asked for.
const POKE_MIN: Duration = Duration::from_secs(1);

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Each once, in ascending order, IPv4 first; never empty.
    pub addresses: Vec<IpAddr>,
    /// The smallest of the answer, 1 s to 1 h.
    pub ttl: Duration,
}

/// Looks up names; clones share what they know of the system.
#[derive(Clone)]
pub struct Resolver {
    system: Rc<RefCell<System>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// By the system's files. One that is missing or odd is warned about, and read again when it
    /// has changed; until then lookups that need it fail and say so.
    #[must_use]
    pub fn new() -> Self {
        Self::of(System::read())
    }

    /// By this DNS server and nothing else.
    #[must_use]
    pub fn with_nameserver(address: SocketAddr) -> Self {
        Self::of(System::fixed(address))
    }

    fn of(system: System) -> Self {
        Self { system: Rc::new(RefCell::new(system)) }
    }

    /// The addresses of `host`, within 5 s.
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

/// The system's two files, as last read.
struct System {
    /// None: the files are not looked at.
    stamps: Option<[Stamp; 2]>,
    hosts: Hosts,
    config: ResolverConfig,
    /// Dots in a name that is tried as it is before the search list.
    dots: usize,
    /// Why not, for people.
    dns: Result<TokioResolver, String>,
}

/// Tells one content of a file from the next.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &str) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl System {
    fn read() -> Self {
        let stamps = Some([stamp(RESOLV_CONF), stamp(HOSTS)]);
        let hosts = Hosts::from_system().unwrap_or_else(|error| {
            tracing::warn!("{HOSTS}: {error}; names are looked up in DNS only");
            Hosts::default()
        });
        let read = system_conf::read_system_conf();
        let (config, options) = read.unwrap_or_else(|error| {
            tracing::warn!("{RESOLV_CONF}: {error}; host names beyond {HOSTS} can't be resolved");
            (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
        });
        Self::new(stamps, hosts, config, options)
    }

    fn fixed(address: SocketAddr) -> Self {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Self::new(None, Hosts::default(), config, ResolverOpts::default())
    }

    fn new(
        stamps: Option<[Stamp; 2]>,
        hosts: Hosts,
        config: ResolverConfig,
        mut options: ResolverOpts,
    ) -> Self {
        // A cache would keep us from seeing what changed; we ask once a TTL anyway.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = options.timeout.min(QUESTION_MAX);
        let dots = options.ndots;
        let dns = if config.name_servers.is_empty() {
            Err(format!("{RESOLV_CONF} names no DNS server; add a line `nameserver ADDRESS`"))
        } else {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                .with_options(options)
                .build()
                .map_err(|error| format!("{RESOLV_CONF}: {error}"))
        };
        Self { stamps, hosts, config, dots, dns }
    }

    /// Reads the files again if they changed.
    fn refresh(&mut self) {
        let Some(stamps) = self.stamps else { return };
        if stamps != [stamp(RESOLV_CONF), stamp(HOSTS)] {
            *self = Self::read();
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
        for domain in &self.config.search {
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
    let mut wait = first.as_ref().map_or(Duration::ZERO, |answer| answer.ttl);
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
                wait = answer.ttl;
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
