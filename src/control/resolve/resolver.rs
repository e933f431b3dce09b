//! Looks host names up as the system does: in /etc/hosts, or else by the DNS servers, search list
//! and options of /etc/resolv.conf, A and AAAA; names such as "pi.local" by multicast DNS first.
//! Both files are read again when they change. Nothing is cached here.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::control::cluster::HostAddress;
use crate::control::resolve::answer::{Answer, TTL};
use crate::control::resolve::dns::{Dns, Failure};
use crate::control::resolve::mdns;
use crate::control::resolve::system::{Files, System, addresses};
use crate::sys::multicast::INTERFACES_MAX;

/// For one lookup: all servers, search domains and repeats together.
pub(super) const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);

/// Entries of /etc/hosts hold until the file changes; a check costs two calls of stat(2).
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// Concurrent lookups of all names: a small DNS server would drop more, after a reload or when a
/// common TTL ends.
pub(super) const LOOKUPS_MAX: usize = 16;

/// Of those, lookups by multicast DNS: each has two sockets for every interface.
const MULTICAST_LOOKUPS_MAX: usize = 2;

/// Sockets of all lookups by multicast DNS.
pub const MULTICAST_SOCKETS_MAX: usize = MULTICAST_LOOKUPS_MAX * 2 * INTERFACES_MAX;

/// Looks up names, 16 at a time. Clones share the system configuration and this limit.
#[derive(Clone)]
pub struct Resolver {
    system: Rc<RefCell<System>>,
    permits: Rc<Semaphore>,
    multicast_permits: Rc<Semaphore>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// By the files of the system. If one is missing or invalid, lookups that need it fail, with
    /// the reason, until it has changed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_servers(&[])
    }

    /// By the files of the system, with these DNS servers instead of those of /etc/resolv.conf, if
    /// there are any.
    #[must_use]
    pub fn with_servers(servers: &[SocketAddr]) -> Self {
        let files = Files {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
        };
        Self::of(System::read(files, servers.to_vec()))
    }

    /// One with these DNS servers; a clone if it has them already.
    #[must_use]
    pub fn for_servers(&self, servers: &[SocketAddr]) -> Self {
        if self.system.borrow().has_servers(servers) {
            return self.clone();
        }
        Self::with_servers(servers)
    }

    /// Replaces the DNS servers, for all clones.
    pub fn set_servers(&self, servers: &[SocketAddr]) {
        self.system.borrow_mut().set_servers(servers);
    }

    /// By this DNS server and nothing else.
    #[must_use]
    pub fn with_nameserver(address: SocketAddr) -> Self {
        Self::of(System::fixed(address))
    }

    pub(super) fn of(system: System) -> Self {
        let permits = |count| Rc::new(Semaphore::new(count));
        let (permits, multicast_permits) = (permits(LOOKUPS_MAX), permits(MULTICAST_LOOKUPS_MAX));
        Self { system: Rc::new(RefCell::new(system)), permits, multicast_permits }
    }

    /// The addresses of `host`, within 5 s once a permit is free.
    ///
    /// # Errors
    /// Why there are none, for the operator.
    pub async fn lookup(&self, host: &str) -> Result<Answer, String> {
        self.lookup_after(host, &[]).await
    }

    /// As [`Self::lookup`]; if the query for one of the two families fails, the `known` addresses
    /// of that family stay.
    pub(super) async fn lookup_after(
        &self,
        host: &str,
        known: &[HostAddress],
    ) -> Result<Answer, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Answer::new(vec![address.into()], TTL.1));
        }
        {
            let mut system = self.system.borrow_mut();
            system.refresh();
            if let Some(addresses) = system.host(host) {
                return Ok(Answer::new(addresses, HOSTS_TTL));
            }
        }
        if !mdns::is_local(host) {
            return self.by_dns(host, known).await;
        }
        // It is never closed.
        let permit = self.multicast_permits.acquire().await;
        let found = mdns::lookup(host).await;
        drop(permit);
        match found {
            Ok(answer) => Ok(answer),
            // RFC 6762 (3) allows other mechanisms too: some networks serve .local by DNS.
            Err(why) => self.by_dns(host, known).await.map_err(|_| why),
        }
    }

    async fn by_dns(&self, host: &str, known: &[HostAddress]) -> Result<Answer, String> {
        self.search(host, async |dns, name| {
            let (v4, v6) =
                tokio::join!(ask(dns, &name, RecordType::A), ask(dns, &name, RecordType::AAAA));
            combine(v4, v6, known)
        })
        .await
    }

    /// Asks for a name as it is and in the domains of the search list, until one has an answer.
    pub(super) async fn search<T>(
        &self,
        name: &str,
        ask: impl AsyncFn(&Dns, Name) -> Result<T, Failure>,
    ) -> Result<T, String> {
        let _permit = self.permit().await;
        let (dns, names) = {
            let mut system = self.system.borrow_mut();
            system.refresh();
            (system.dns.clone()?, system.names(name)?)
        };
        let asked = async {
            let mut failure = None;
            for name in names {
                match ask(&dns, name).await {
                    Ok(answer) => return Ok(answer),
                    // A failure says more than NXDOMAIN in another search domain.
                    Err(Failure::Unknown(why)) => failure = Some(why),
                    Err(Failure::None(why)) => failure = failure.or(Some(why)),
                }
            }
            Err(failure.unwrap_or_else(|| format!("`{name}` is not a host name")))
        };
        let late = || format!("no answer from DNS within {} s", LOOKUP_TIME_MAX.as_secs());
        timeout(LOOKUP_TIME_MAX, asked).await.unwrap_or_else(|_| Err(late()))
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.permits.acquire().await.ok()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

type Found = Result<(Vec<HostAddress>, Duration), Failure>;

async fn ask(dns: &Dns, name: &Name, kind: RecordType) -> Found {
    let lookup = dns.ask(name, kind).await?;
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let found = addresses(lookup.answers());
    if found.is_empty() {
        return Err(Failure::none(kind));
    }
    Ok((found, Duration::from_secs(u64::from(ttl))))
}

/// One answer of two.
fn combine(v4: Found, v6: Found, known: &[HostAddress]) -> Result<Answer, Failure> {
    let (mut all, mut ttl, mut unknown, mut none) = (Vec::new(), TTL.1, None, None);
    let mut fresh = false;
    for (found, family) in [(v4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (v6, IpAddr::is_ipv6)] {
        match found {
            Ok((addresses, its_ttl)) => {
                all.extend(addresses);
                ttl = ttl.min(its_ttl);
                fresh = true;
            }
            Err(Failure::None(why)) => none = Some(why),
            Err(Failure::Unknown(why)) => {
                all.extend(known.iter().filter(|address| family(&address.ip)));
                unknown = Some(why);
            }
        }
    }
    match (fresh, unknown, none) {
        (true, ..) => Ok(Answer::new(all, ttl)),
        (false, Some(why), _) => Err(Failure::Unknown(why)),
        (false, None, why) => Err(Failure::None(why.unwrap_or_default())),
    }
}
