//! The configuration of the system for host names: /etc/hosts, and the DNS servers, search list and
//! options of /etc/resolv.conf. Both are read again when they change. `global.resolver` replaces
//! the DNS servers.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::{Hosts, system_conf};

use crate::control::cluster::HostAddress;
use crate::control::resolve::dns::Dns;

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
    /// DNS servers instead of those of resolv.conf; none: the latter.
    servers: Vec<SocketAddr>,
    hosts: Hosts,
    search: Vec<Name>,
    /// Dots in a name that is tried as it is before the search list.
    dots: usize,
    /// Or why it is not usable, for the operator.
    pub(super) dns: Result<Dns, String>,
}

impl System {
    /// By its files, with `servers` instead of the DNS servers of resolv.conf, if there are any.
    pub(super) fn read(files: Files, servers: Vec<SocketAddr>) -> Self {
        // Before the content: a change during the read is noticed at the next check.
        let stamps = files.stamps();
        let mut hosts = Hosts::default();
        // A file that is missing has no hosts; of one that is no text, the readable part is used.
        drop(File::open(&files.hosts).and_then(|file| hosts.read_hosts_conf(file)));
        let read = fs::read(&files.resolv_conf).map_err(NetError::from);
        let parsed = read.and_then(system_conf::parse_resolv_conf);
        let parsed = parsed.map_err(|error| format!("{}: {error}", files.resolv_conf.display()));
        let parsed = if servers.is_empty() { parsed } else { Ok(with_servers(&servers, parsed)) };
        Self { servers, ..Self::new(Some((files, stamps)), hosts, parsed) }
    }

    /// With this DNS server and without files.
    pub(super) fn fixed(address: SocketAddr) -> Self {
        let servers = vec![name_server(&address)];
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Self::new(None, Hosts::default(), Ok((config, ResolverOpts::default())))
    }

    pub(super) fn new(
        files: Option<(Files, [Stamp; 2])>,
        hosts: Hosts,
        parsed: Result<(ResolverConfig, ResolverOpts), String>,
    ) -> Self {
        let (mut search, mut dots) = (Vec::new(), 1);
        let dns = parsed.and_then(|(config, options)| {
            search.clone_from(&config.search);
            dots = options.ndots;
            Dns::new(&config, options)
        });
        Self { files, servers: Vec::new(), hosts, search, dots, dns }
    }

    /// Replaces the DNS servers of resolv.conf; none: uses them again.
    pub(super) fn set_servers(&mut self, servers: &[SocketAddr]) {
        if !self.has_servers(servers)
            && let Some((files, _)) = self.files.take()
        {
            *self = Self::read(files, servers.to_vec());
        }
    }

    /// Whether these replace the DNS servers of resolv.conf, or no file has a say.
    pub(super) fn has_servers(&self, servers: &[SocketAddr]) -> bool {
        self.files.is_none() || self.servers == servers
    }

    /// Reads the files again if they changed.
    pub(super) fn refresh(&mut self) {
        let changed = self.files.take_if(|(files, stamps)| files.stamps() != *stamps);
        if let Some((files, _)) = changed {
            *self = Self::read(files, std::mem::take(&mut self.servers));
        }
    }

    /// By /etc/hosts; `localhost` has an address also without an entry (RFC 6761, 6.3).
    pub(super) fn host(&self, host: &str) -> Option<Vec<HostAddress>> {
        let name = absolute(host)?;
        let of = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found: Vec<HostAddress> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(of)
            .flat_map(|lookup| addresses(lookup.answers()))
            .collect();
        if found.is_empty() {
            let host = host.strip_suffix('.').unwrap_or(host);
            let local = host == "localhost" || host.ends_with(".localhost");
            return local.then(|| vec![IpAddr::V4(Ipv4Addr::LOCALHOST).into()]);
        }
        Some(found)
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

/// What resolv.conf says, or the defaults of resolv.conf(5), with other DNS servers.
fn with_servers(
    servers: &[SocketAddr],
    parsed: Result<(ResolverConfig, ResolverOpts), String>,
) -> (ResolverConfig, ResolverOpts) {
    let (search, options) = match parsed {
        Ok((config, options)) => (config.search, options),
        Err(_) => {
            let mut options = ResolverOpts::default();
            options.edns0 = false;
            (Vec::new(), options)
        }
    };
    let servers = servers.iter().map(name_server).collect();
    (ResolverConfig::from_parts(None, search, servers), options)
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    // As for those of resolv.conf: the next one may know a name that this one does not.
    server.trust_negative_responses = false;
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The name of a host, which may have underscores: not by the rules for internationalized names.
pub(super) fn absolute(host: &str) -> Option<Name> {
    let mut name = Name::from_ascii(host).ok()?;
    name.set_fqdn(true);
    Some(name)
}

pub(super) fn addresses(answers: &[Record]) -> Vec<HostAddress> {
    answers.iter().filter_map(|record| Some(record.data.ip_addr()?.into())).collect()
}
