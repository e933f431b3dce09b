//! The configuration of the system for host names: /etc/hosts, and the DNS servers, search list and
//! options of /etc/resolv.conf. Both are read again when they change.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};

/// For one query to one DNS server, so that a lost packet is repeated within the lookup.
pub(super) const SERVER_TIME_MAX: Duration = Duration::from_secs(2);

/// Each address becomes an endpoint: a DNS server must not create thousands.
const ADDRESSES_MAX: usize = 64;

/// The system's files.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
}

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [stamp(&self.resolv_conf), stamp(&self.hosts)]
    }
}

/// Differs when a file has changed.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// The files as last read.
pub(super) struct System {
    /// None: there are none.
    files: Option<(Files, [Stamp; 2])>,
    hosts: Hosts,
    search: Vec<Name>,
    /// Dots in a name that is tried as it is before the search list.
    dots: usize,
    /// Or why it is not usable, for the operator.
    pub(super) dns: Result<TokioResolver, String>,
}

impl System {
    pub(super) fn read(files: Files) -> Self {
        // Before the content: a change during the read is noticed at the next check.
        let stamps = files.stamps();
        let mut hosts = Hosts::default();
        // A file that is missing has no hosts; of one that is no text, the readable part is used.
        drop(File::open(&files.hosts).and_then(|file| hosts.read_hosts_conf(file)));
        let read = fs::read(&files.resolv_conf).map_err(NetError::from);
        let parsed = read.and_then(system_conf::parse_resolv_conf);
        let parsed = parsed.map_err(|error| format!("{}: {error}", files.resolv_conf.display()));
        Self::new(Some((files, stamps)), hosts, parsed)
    }

    /// With this DNS server and without files.
    pub(super) fn fixed(address: SocketAddr) -> Self {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Self::new(None, Hosts::default(), Ok((config, ResolverOpts::default())))
    }

    pub(super) fn new(
        files: Option<(Files, [Stamp; 2])>,
        hosts: Hosts,
        parsed: Result<(ResolverConfig, ResolverOpts), String>,
    ) -> Self {
        let (mut search, mut dots) = (Vec::new(), 1);
        let dns = parsed.and_then(|(config, mut options)| {
            search.clone_from(&config.search);
            dots = options.ndots;
            // A cache would hide changes; a name is looked up only once in a TTL anyway.
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
            options.timeout = options.timeout.min(SERVER_TIME_MAX);
            // One DNS server after the other: each concurrent query takes a descriptor.
            options.num_concurrent_reqs = 1;
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options)
                .build()
                .map_err(|error| format!("DNS: {error}"))
        });
        Self { files, hosts, search, dots, dns }
    }

    /// Reads the files again if they changed.
    pub(super) fn refresh(&mut self) {
        let changed = self.files.take_if(|(files, stamps)| files.stamps() != *stamps);
        if let Some((files, _)) = changed {
            *self = Self::read(files);
        }
    }

    /// By /etc/hosts; `localhost` has an address also without an entry (RFC 6761, 6.3).
    pub(super) fn host(&self, host: &str) -> Option<Vec<IpAddr>> {
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

    /// The names to look up, in order: the search list is for names with few dots.
    pub(super) fn names(&self, host: &str) -> Result<Vec<Name>, String> {
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
        let position = if host.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(position, own);
        Ok(names)
    }
}

fn absolute(host: &str) -> Option<Name> {
    let mut name = Name::from_utf8(host).ok()?;
    name.set_fqdn(true);
    Some(name)
}

pub(super) fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// Each once, in ascending order, at most [`ADDRESSES_MAX`].
pub(super) fn in_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}
