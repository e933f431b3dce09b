//! Looks up the records of SRV names (RFC 2782).

use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::control::cluster::SrvRecord;
use crate::control::resolve::answer::{SrvAnswer, TTL};
use crate::control::resolve::dns::{Dns, Failure};
use crate::control::resolve::resolver::Resolver;

/// How often an SRV name may be an alias (CNAME) of another.
const ALIASES_MAX: usize = 8;

impl Resolver {
    /// The records of the SRV name `name`, within 5 s once a permit is free.
    ///
    /// # Errors
    /// Why there are none, for the operator.
    pub async fn lookup_srv(&self, name: &str) -> Result<SrvAnswer, String> {
        self.search(name, ask).await
    }
}

async fn ask(dns: &Dns, mut name: Name) -> Result<SrvAnswer, Failure> {
    let mut ttl = TTL.1;
    for _ in 0..ALIASES_MAX {
        let none = match dns.ask(&name, RecordType::SRV).await {
            Ok(lookup) => {
                return records(lookup.answers(), ttl)
                    .ok_or_else(|| Failure::none(RecordType::SRV));
            }
            Err(failure @ Failure::Unknown(_)) => return Err(failure),
            Err(none) => none,
        };
        // The resolver follows aliases of addresses only.
        let alias = dns.ask(&name, RecordType::CNAME).await.ok();
        let Some((target, its_ttl)) = alias.as_ref().and_then(|alias| target(alias.answers()))
        else {
            return Err(none);
        };
        ttl = ttl.min(its_ttl);
        name = target;
    }
    Err(Failure::None("the name has too many aliases (CNAME)".to_owned()))
}

/// What an alias stands for.
fn target(answers: &[Record]) -> Option<(Name, Duration)> {
    answers.iter().find_map(|record| match &record.data {
        RData::CNAME(alias) => Some((alias.0.clone(), seconds(record.ttl))),
        _ => None,
    })
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl))
}

/// The usable records of an answer; none: there is none. The `ttl` is at most that.
pub(super) fn records(answers: &[Record], ttl: Duration) -> Option<SrvAnswer> {
    let ttl = answers.iter().map(|record| seconds(record.ttl)).fold(ttl, Duration::min);
    let records = answers.iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => usable(srv),
        _ => None,
    });
    SrvAnswer::new(records.collect(), ttl)
}

/// A record that names a server. Target "." means that there is no such service, and port 0 is
/// none.
fn usable(srv: &SRV) -> Option<SrvRecord> {
    let mut target = srv.target.to_ascii().to_ascii_lowercase();
    if !target.ends_with('.') {
        target.push('.');
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_host = target != "." && target.chars().all(fits);
    let SRV { port, priority, weight, .. } = *srv;
    (is_host && port != 0).then_some(SrvRecord { target, port, priority, weight })
}
