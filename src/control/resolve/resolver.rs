//! Looks host names up as the system does: in /etc/hosts, or else by the DNS servers, search list
//! and options of /etc/resolv.conf, A and AAAA. Both files are read again when they change. Nothing
//! is cached here.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::control::resolve::system::{Files, System, addresses, in_order};

/// For one lookup: all servers, search domains and repeats together.
pub(super) const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);

/// For one query, all servers and repeats together: a DNS server that drops queries for AAAA must
/// not cost the answer for A.
const QUERY_TIME_MAX: Duration = Duration::from_secs(4);

/// TTLs are raised and lowered to these: a short one would cause constant queries, a long one
/// would hide changes.
pub(super) const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Entries of /etc/hosts hold until the file changes; a check costs two calls of stat(2).
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// Concurrent lookups of all names: a small DNS server would drop more, after a reload or when a
/// common TTL ends.
pub(super) const LOOKUPS_MAX: usize = 16;

/// The addresses of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Each once, in ascending order, IPv4 first; never empty, and at most 64.
    pub addresses: Vec<IpAddr>,
    /// The smallest of the answer, 1 s to 1 h.
    pub ttl: Duration,
}

/// Looks up names, 16 at a time. Clones share the system configuration and this limit.
#[derive(Clone)]
pub struct Resolver {
    system: Rc<RefCell<System>>,
    permits: Rc<Semaphore>,
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

    pub(super) fn of(system: System) -> Self {
        let permits = Rc::new(Semaphore::new(LOOKUPS_MAX));
        Self { system: Rc::new(RefCell::new(system)), permits }
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
        known: &[IpAddr],
    ) -> Result<Answer, String> {
        if let Ok(address) = host.parse() {
            return Ok(Answer { addresses: vec![address], ttl: TTL.1 });
        }
        // It is never closed.
        let _permit = self.permits.acquire().await;
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
                    // A failure says more than NXDOMAIN in another search domain.
                    Err(NoAddress::Unknown(why)) => failure = Some(why),
                    Err(NoAddress::None(why)) => failure = failure.or(Some(why)),
                }
            }
            Err(failure.unwrap_or_else(|| format!("`{host}` is not a host name")))
        };
        let late = || format!("no answer from DNS within {} s", LOOKUP_TIME_MAX.as_secs());
        timeout(LOOKUP_TIME_MAX, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a query has no address.
#[derive(Debug, Clone)]
enum NoAddress {
    /// The name has none.
    None(String),
    /// The query failed.
    Unknown(String),
}

type Found = Result<(Vec<IpAddr>, Duration), NoAddress>;

async fn ask(dns: &TokioResolver, name: &Name, kind: RecordType) -> Found {
    let lookup = timeout(QUERY_TIME_MAX, dns.lookup(name.clone(), kind)).await;
    let lookup = lookup.unwrap_or(Err(NetError::Timeout)).map_err(|error| no_address(&error))?;
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let found = addresses(&lookup);
    if found.is_empty() {
        return Err(NoAddress::None("the name has no address".to_owned()));
    }
    Ok((found, Duration::from_secs(u64::from(ttl))))
}

fn no_address(error: &NetError) -> NoAddress {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(found)) => match found.response_code {
            ResponseCode::NXDomain => NoAddress::None("no such name (NXDOMAIN)".to_owned()),
            ResponseCode::NoError => NoAddress::None("the name has no address".to_owned()),
            code => NoAddress::Unknown(format!("the DNS server answered: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            NoAddress::Unknown(format!("the DNS server answered: {code}"))
        }
        NetError::Timeout => NoAddress::Unknown("no DNS server answered in time".to_owned()),
        other => NoAddress::Unknown(format!("DNS: {other}")),
    }
}

/// One answer of two.
fn combine(v4: Found, v6: Found, known: &[IpAddr]) -> Result<Answer, NoAddress> {
    let (mut all, mut ttl, mut unknown, mut none) = (Vec::new(), TTL.1, None, None);
    let mut fresh = false;
    for (found, family) in [(v4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (v6, IpAddr::is_ipv6)] {
        match found {
            Ok((addresses, its_ttl)) => {
                all.extend(addresses);
                ttl = ttl.min(its_ttl);
                fresh = true;
            }
            Err(NoAddress::None(why)) => none = Some(why),
            Err(NoAddress::Unknown(why)) => {
                all.extend(known.iter().filter(|address| family(address)));
                unknown = Some(why);
            }
        }
    }
    match (fresh, unknown, none) {
        (true, ..) => Ok(Answer { addresses: in_order(all), ttl: ttl.max(TTL.0) }),
        (false, Some(why), _) => Err(NoAddress::Unknown(why)),
        (false, None, why) => Err(NoAddress::None(why.unwrap_or_default())),
    }
}
