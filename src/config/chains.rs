//! Chains of frontends. A server may be a frontend of the same balancer, unless a connection comes
//! back to the backend that opened it: such a cycle opens connections until none is left.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::backend_settings::BackendSettings;
use super::frontend_settings::FrontendSettings;
use crate::sys::address::Address;
use crate::sys::local_addresses::LocalAddresses;
use crate::sys::socket_place::SocketPlace;

/// Which backends lead to which, through servers that are frontends of this balancer.
///
/// It starts with the servers that have an IP address in the file, cycles included: those are
/// errors of the file. The addresses of host names are added, except those that close a cycle.
#[derive(Debug)]
pub struct Chains<'a> {
    /// Frontends by the IP address that they listen on.
    listening: HashMap<SocketAddr, &'a FrontendSettings>,
    /// Frontends by the unix socket that they listen on, with its path.
    listening_at: HashMap<SocketPlace, Reached<'a>>,
    /// For each backend, the ports that its clients connect to.
    ports: HashMap<&'a str, BTreeSet<u16>>,
    local: &'a LocalAddresses,
    /// The index of each backend.
    backends: HashMap<Arc<str>, usize>,
    /// For each backend, the backends of the frontends that its servers are.
    next: Vec<BTreeSet<usize>>,
}

/// A frontend that accepts the connections to some address.
#[derive(Debug, Clone)]
pub struct Reached<'a> {
    /// The frontend.
    pub frontend: &'a FrontendSettings,
    /// The address that it listens on.
    pub bind: Address,
}

impl<'a> Chains<'a> {
    /// The chains of a configuration, on a machine with the addresses `local`.
    #[must_use]
    pub fn new<'b>(
        frontends: impl IntoIterator<Item = &'a Arc<FrontendSettings>>,
        backends: impl IntoIterator<Item = &'b Arc<BackendSettings>> + Clone,
        local: &'a LocalAddresses,
    ) -> Self {
        let mut listening: HashMap<SocketAddr, &FrontendSettings> = HashMap::new();
        let mut listening_at: HashMap<SocketPlace, Reached<'_>> = HashMap::new();
        let mut ports: HashMap<&str, BTreeSet<u16>> = HashMap::new();
        for frontend in frontends {
            for address in frontend.bind.iter().flat_map(|(bind, _)| bind.addresses()) {
                for (backend, _) in frontend.backends() {
                    ports.entry(backend).or_default().extend(address.port());
                }
                match &address {
                    Address::Ip(ip) => {
                        listening.entry(*ip).or_insert(frontend);
                    }
                    Address::Unix(path) => {
                        let (place, bind) = (local.place_of(path), address.clone());
                        listening_at.entry(place).or_insert(Reached { frontend, bind });
                    }
                }
            }
        }
        let names = backends.clone().into_iter().map(|backend| Arc::clone(&backend.name));
        let indices: HashMap<_, _> = names.zip(0..).collect();
        let next = vec![BTreeSet::new(); indices.values().max().map_or(0, |last| last + 1)];
        let mut chains = Self { listening, listening_at, ports, local, backends: indices, next };
        for backend in backends {
            for server in &backend.servers {
                if let Some(address) = server.address.fixed() {
                    chains.link(&backend.name, &address);
                }
            }
        }
        chains
    }

    /// A frontend that accepts connections of `backend` to `address`.
    #[must_use]
    pub fn reached(&self, backend: &str, address: &Address) -> Option<Reached<'a>> {
        self.all_reached(backend, address).next()
    }

    /// The frontends that accept connections of `backend` to `address`: several if that has no port
    /// of its own, and clients of `backend` connect to several.
    fn all_reached(&self, backend: &str, address: &Address) -> impl Iterator<Item = Reached<'a>> {
        let unix = match address {
            Address::Unix(path) => self.listening_at.get(&self.local.place_of(path)).cloned(),
            Address::Ip(_) => None,
        };
        let ports = self.ports.get(backend).filter(|_| address.lacks_port());
        let ports = ports.into_iter().flatten().map(|port| address.for_client(Some(*port)));
        let ips: Vec<SocketAddr> = ports.chain([address.for_client(None)]).flatten().collect();
        let by_ip = ips.into_iter().filter_map(|ip| {
            self.local.accepting(ip).find_map(|bind| {
                let frontend = self.listening.get(&bind).copied()?;
                Some(Reached { frontend, bind: Address::Ip(bind) })
            })
        });
        unix.into_iter().chain(by_ip)
    }

    /// A frontend at `address`, if a connection of `backend` to it comes back to `backend`.
    #[must_use]
    pub fn cycle(&self, backend: &str, address: &Address) -> Option<Reached<'a>> {
        let mut reached = self.all_reached(backend, address);
        reached.find(|reached| self.edges(backend, reached).any(|(from, to)| self.leads(to, from)))
    }

    /// Adds an address of a host name that `backend` uses, unless it closes a cycle.
    pub fn add(&mut self, backend: &str, address: &Address) {
        if self.cycle(backend, address).is_none() {
            self.link(backend, address);
        }
    }

    fn link(&mut self, backend: &str, address: &Address) {
        let reached = self.all_reached(backend, address);
        let edges: Vec<_> = reached.flat_map(|reached| self.edges(backend, &reached)).collect();
        for (from, to) in edges {
            self.next[from].insert(to);
        }
    }

    /// From `backend` to each backend of the frontend: its own, and those of `sni` and `alpn`. One
    /// that does not exist has none.
    fn edges(
        &self,
        backend: &str,
        reached: &Reached<'a>,
    ) -> impl Iterator<Item = (usize, usize)> + use<'_, 'a> {
        let from = self.backends.get(backend).copied();
        let names = reached.frontend.backends();
        names.filter_map(move |(name, _)| from.zip(self.backends.get(name).copied()))
    }

    /// Whether sessions of one backend reach another, or it is the same one.
    fn leads(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![false; self.next.len()];
        let mut pending = vec![from];
        while let Some(backend) = pending.pop() {
            if backend == to {
                return true;
            }
            if !std::mem::replace(&mut seen[backend], true) {
                pending.extend(&self.next[backend]);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};

    /// Frontend fN listens on 127.0.0.1:N and has backend bN, whose only server is at that address.
    fn config(servers: &[(u16, &str)]) -> Config {
        let frontend = |(number, address): &(u16, &str)| {
            format!(
                "[frontend.f{number}]\nbind = [\"127.0.0.1:{number}\"]\nbackend = \"b{number}\"\n\
                 [[backend.b{number}.server]]\nname = \"s\"\naddress = \"{address}\"\n"
            )
        };
        config::parse(&servers.iter().map(frontend).collect::<String>(), "test").unwrap()
    }

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    /// The frontend through which a connection comes back.
    fn cycle(chains: &Chains<'_>, backend: &str, address: &str) -> Option<String> {
        let found = chains.cycle(backend, &ip(address));
        found.map(|reached| reached.frontend.name.to_string())
    }

    #[test]
    fn the_end_of_a_chain_does_not_lead_back_to_any_frontend_before_it() {
        let servers = [(1, "127.0.0.1:2"), (2, "127.0.0.1:3"), (3, "192.0.2.1:80")];
        let (config, local) = (config(&servers), LocalAddresses::default());
        let chains = Chains::new(&config.frontends, &config.backends, &local);
        for (backend, address) in [("b1", "127.0.0.1:2"), ("b1", "127.0.0.1:3")] {
            assert_eq!(cycle(&chains, backend, address), None, "{backend} {address}");
        }
        for (number, backend) in [(1, "b3"), (2, "b3"), (3, "b3"), (1, "b2"), (1, "b1")] {
            let address = format!("127.0.0.1:{number}");
            let expected = Some(format!("f{number}"));
            assert_eq!(cycle(&chains, backend, &address), expected, "{backend} {address}");
        }
        assert_eq!(cycle(&chains, "b3", "127.0.0.1:4"), None, "nobody listens there");
        assert_eq!(cycle(&chains, "b3", "127.0.0.2:1"), None, "nor there");
    }

    #[test]
    fn the_backends_of_sni_and_alpn_lead_on_like_the_one_for_all_other_connections() {
        for key in ["sni", "alpn"] {
            let text = format!(
                "[frontend.f1]\nbind = [\"127.0.0.1:1\"]\nbackend = \"b2\"\n{key}.\"a\" = \"b1\"\n\
                 [[backend.b1.server]]\nname = \"s\"\naddress = \"one:1\"\n\
                 [[backend.b2.server]]\nname = \"s\"\naddress = \"192.0.2.1:1\"\n"
            );
            let (config, local) =
                (config::parse(&text, "test").unwrap(), LocalAddresses::default());
            let chains = Chains::new(&config.frontends, &config.backends, &local);
            assert_eq!(cycle(&chains, "b1", "127.0.0.1:1").as_deref(), Some("f1"), "{key}");
            assert_eq!(cycle(&chains, "b2", "127.0.0.1:1").as_deref(), Some("f1"), "{key}");
        }
    }

    #[test]
    fn of_two_addresses_that_form_a_cycle_together_the_first_is_used() {
        let (config, local) = (config(&[(1, "one:2"), (2, "two:1")]), LocalAddresses::default());
        let (to_one, to_two) = ("127.0.0.1:1", "127.0.0.1:2");
        let mut chains = Chains::new(&config.frontends, &config.backends, &local);
        assert_eq!(cycle(&chains, "b1", to_two), None);
        assert_eq!(cycle(&chains, "b2", to_one), None);
        chains.add("b2", &ip(to_one));
        chains.add("b1", &ip(to_two));
        assert_eq!(cycle(&chains, "b2", to_one), None, "the one in use is not the one refused");
        assert_eq!(cycle(&chains, "b1", to_two).as_deref(), Some("f2"));
    }

    #[test]
    fn this_machine_is_meant_by_the_unspecified_address_too() {
        let (config, local) = (config(&[(1, "one:1")]), LocalAddresses::default());
        let chains = Chains::new(&config.frontends, &config.backends, &local);
        for address in ["127.0.0.1:1", "0.0.0.0:1", "[::ffff:127.0.0.1]:1", "[::ffff:0.0.0.0]:1"] {
            assert_eq!(cycle(&chains, "b1", address).as_deref(), Some("f1"), "{address}");
        }
        for address in ["[::1]:1", "[::]:1", "127.0.0.1:2"] {
            assert_eq!(cycle(&chains, "b1", address), None, "{address}");
        }
    }

    #[test]
    fn a_server_without_a_port_is_reached_at_every_port_of_its_clients() {
        let text = "[frontend.f]\nbind = [\"192.0.2.1:7000-7002\"]\nbackend = \"b\"\n\
                    [frontend.g]\nbind = [\"127.0.0.1:7002\"]\nbackend = \"c\"\n\
                    [[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1\"\n\
                    [backend.b.health]\ncheck = \"off\"\n\
                    [[backend.c.server]]\nname = \"s\"\naddress = \"name\"\n";
        let (config, local) = (config::parse(text, "test").unwrap(), LocalAddresses::default());
        let chains = Chains::new(&config.frontends, &config.backends, &local);
        assert_eq!(cycle(&chains, "b", "127.0.0.1:0"), None);
        assert_eq!(chains.reached("b", &ip("127.0.0.1:0")).unwrap().bind, ip("127.0.0.1:7002"));
        assert_eq!(cycle(&chains, "b", "192.0.2.1:0").as_deref(), Some("f"));
        assert_eq!(cycle(&chains, "c", "192.0.2.1:0").as_deref(), Some("f"), "b leads to c");
        assert_eq!(cycle(&chains, "c", "192.0.2.2:0"), None);
    }

    #[test]
    fn a_server_may_be_the_unix_socket_of_a_frontend() {
        let text = "[frontend.f]\nbind = [\"unix:/run/f\"]\nbackend = \"b\"\n\
                    [frontend.g]\nbind = [\"unix:/run/g\"]\nbackend = \"c\"\n\
                    [[backend.b.server]]\nname = \"s\"\naddress = \"unix:/run/g\"\n\
                    [[backend.c.server]]\nname = \"s\"\naddress = \"unix:/run/f\"\n";
        let problems = config::parse(text, "x").unwrap_err().to_string();
        assert!(problems.contains("at unix:/run/f is frontend \"f\""), "{problems}");
        config::parse(&text.replace("unix:/run/f\"\n", "unix:/run/h\"\n"), "x").unwrap();
    }
}
