//! Queries to the DNS servers.

use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::timeout;

/// For one query to one DNS server, so that a lost packet is repeated within the lookup.
pub(super) const SERVER_TIME_MAX: Duration = Duration::from_secs(2);

/// For one query, all servers and repeats together: a DNS server that drops queries for AAAA must
/// not cost the answer for A.
const QUERY_TIME_MAX: Duration = Duration::from_secs(4);

/// The DNS servers. An answer that is too long for UDP is asked for again over TCP.
#[derive(Clone)]
pub(super) struct Dns {
    /// One after the other, if one does not answer or does not know the name.
    all: TokioResolver,
    /// Each of several: asked in turn if one answers that it cannot (SERVFAIL, REFUSED), or that
    /// there is no such name.
    each: Vec<TokioResolver>,
}

/// Why a query has no record.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There is none.
    None(String),
    /// The query failed.
    Unknown(String),
}

impl Dns {
    /// With these servers and options.
    pub(super) fn new(config: &ResolverConfig, mut options: ResolverOpts) -> Result<Self, String> {
        // A cache would hide changes; a name is looked up only once in a TTL anyway.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = options.timeout.min(SERVER_TIME_MAX);
        // One DNS server after the other: each concurrent query takes a descriptor.
        options.num_concurrent_reqs = 1;
        let of = |servers| {
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options.clone())
                .build()
                .map_err(|error| format!("DNS: {error}"))
        };
        let servers = config.name_servers();
        let several = servers.iter().filter(|_| servers.len() > 1);
        let each: Result<_, String> = several.map(|server| of(vec![server.clone()])).collect();
        Ok(Self { all: of(servers.to_vec())?, each: each? })
    }

    /// The answer to one query, within 4 s.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<Lookup, Failure> {
        let asked = async {
            let mut outcome = self.all.lookup(name.clone(), kind).await;
            for server in &self.each {
                if !outcome.as_ref().is_err_and(may_differ) {
                    break;
                }
                outcome = server.lookup(name.clone(), kind).await;
            }
            outcome
        };
        let outcome = timeout(QUERY_TIME_MAX, asked).await.unwrap_or(Err(NetError::Timeout));
        outcome.map_err(|error| failure(&error, kind))
    }
}

/// Whether another DNS server may have another answer.
fn may_differ(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::ResponseCode(_)) => true,
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            none.response_code == ResponseCode::NXDomain
        }
        _ => false,
    }
}

fn failure(error: &NetError, kind: RecordType) -> Failure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(found)) => match found.response_code {
            ResponseCode::NXDomain => Failure::None("no such name (NXDOMAIN)".to_owned()),
            ResponseCode::NoError => Failure::none(kind),
            code => Failure::Unknown(format!("the DNS server answered: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Failure::Unknown(format!("the DNS server answered: {code}"))
        }
        NetError::Timeout => Failure::Unknown("no DNS server answered in time".to_owned()),
        other => Failure::Unknown(format!("DNS: {other}")),
    }
}

impl Failure {
    /// The name has no record of that kind.
    pub(super) fn none(kind: RecordType) -> Self {
        let what = if kind == RecordType::SRV { "usable SRV record" } else { "address" };
        Self::None(format!("the name has no {what}"))
    }
}
