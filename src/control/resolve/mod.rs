//! Host names: their addresses, and what becomes of them.
//!
//! A name is answered as the system answers it: from /etc/hosts, else by the DNS servers, search
//! list and options of /etc/resolv.conf, A and AAAA. Both files are read again when they change.
//! Nothing is cached here: a [`Follower`] asks again as the TTL ends, and says what changed.

mod follow;
mod system;

pub use follow::{Follower, Resolved};

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

use self::system::{Files, System, addresses, in_order};

/// Of a whole lookup, all servers, search domains and repeats together.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Of one question, all servers and repeats together: a DNS server that swallows questions for AAAA
/// must not cost us the answer for A.
const QUESTIONS_MAX: Duration = Duration::from_secs(4);

/// A TTL of less would make us ask all the time, one of more would make us late for ever.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What /etc/hosts says holds until the file changes; to look costs two calls of stat(2).
const HOSTS_TTL: Duration = Duration::from_secs(10);

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

#[cfg(test)]
mod tests;
