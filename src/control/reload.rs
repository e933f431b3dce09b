//! What a reload reads before anything changes: the checked file, and what its host names and SRV
//! names have in DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::config::{Config, Global, missing_interfaces, overlap};
use crate::control::cluster::{Answers, Records};
use crate::control::probe_tls;
use crate::control::resolve::{Answer, Resolver, SrvAnswer};
use crate::control::sources;
use crate::sys::address::Address;
use crate::sys::local_addresses::LocalAddresses;

/// For all host names together. A server without an answer by then is down until it has one.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);

/// A configuration that can come into force.
#[derive(Debug)]
pub struct NewConfig {
    /// As checked.
    pub config: Config,
    /// For names that had no answer before.
    pub found: Found,
    /// The root certificates for probes that verify.
    pub roots: Option<Arc<ClientConfig>>,
}

/// Names to look up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Host names of servers.
    pub hosts: BTreeSet<String>,
    /// SRV names of backends.
    pub srv: BTreeSet<String>,
}

/// What names have in DNS.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// By host name.
    pub hosts: BTreeMap<String, Answer>,
    /// By SRV name.
    pub srv: BTreeMap<String, SrvAnswer>,
}

impl Names {
    /// The names in a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let backends = config.backends.iter();
        let servers = backends.clone().flat_map(|backend| &backend.servers);
        let hosts = servers.filter_map(|server| server.address.host()).map(str::to_owned);
        Self { hosts: hosts.collect(), srv: backends.filter_map(|one| one.srv.clone()).collect() }
    }
}

impl Found {
    /// The addresses of each host name.
    #[must_use]
    pub fn addresses(&self) -> Answers {
        let answers = self.hosts.iter();
        answers.map(|(host, answer)| (host.clone(), answer.addresses.clone())).collect()
    }

    /// The records of each SRV name.
    #[must_use]
    pub fn records(&self) -> Records {
        let records = self.srv.iter();
        records.map(|(name, answer)| (name.clone(), answer.records.clone())).collect()
    }

    /// The addresses of a host name, or of all servers of an SRV name.
    #[must_use]
    pub fn address_count(&self, name: &str) -> Option<usize> {
        let of_host = |host: &str| Some(self.hosts.get(host)?.addresses.len());
        let of_srv = || {
            let records = &self.srv.get(name)?.records;
            Some(records.iter().map(|record| of_host(&record.target).unwrap_or(1)).sum())
        };
        of_host(name).or_else(of_srv)
    }
}

/// Reads the file at `path`, and looks up its names that are not `known`.
///
/// # Errors
/// Every problem of the file, a line each.
pub async fn read(
    path: PathBuf,
    resolver: Resolver,
    known: Names,
) -> Result<NewConfig, Vec<String>> {
    // A large file on a slow disk must not block the control thread.
    let load = move || {
        let lines = |problems: config::Problems| problems.lines().collect::<Vec<_>>();
        let config = config::load(&path).map_err(lines)?;
        config::on_this_machine(&config, &LocalAddresses::now()).map_err(lines)?;
        probe_tls::load_roots(&config).map(|roots| (config, roots))
    };
    let loaded = spawn_blocking(load).await;
    let (config, roots) = match loaded {
        Ok(loaded) => loaded?,
        Err(error) => return Err(vec![format!("the file could not be read: {error}")]),
    };
    let missing = missing_interfaces(&config).into_iter().chain(sources::denied_all(&config));
    let missing: Vec<String> =
        missing.map(|(span, problem)| format!("{}{problem}", config.locate(span))).collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    // The one in force stays as it is if this configuration is refused.
    let resolver = resolver.for_servers(&config.global.resolver.0);
    let mut names = Names::of(&config);
    names.hosts.retain(|host| !known.hosts.contains(host));
    names.srv.retain(|name| !known.srv.contains(name));
    let found = resolve(&resolver, names).await;
    Ok(NewConfig { config, found, roots })
}

/// Looks up all of `names`, and the targets of SRV names, for 5 s at most. A name without an answer
/// is left out.
pub async fn resolve(resolver: &Resolver, names: Names) -> Found {
    resolve_within(resolver, names, RESOLVE_TIME_MAX).await
}

/// As [`resolve`], with another limit.
pub async fn resolve_within(resolver: &Resolver, names: Names, limit: Duration) -> Found {
    enum Lookup {
        Host(String, Result<Answer, String>),
        Srv(String, Result<SrvAnswer, String>),
    }
    let deadline = Instant::now() + limit;
    let mut lookups = JoinSet::new();
    let look_up = |lookups: &mut JoinSet<Lookup>, host: String| {
        let resolver = resolver.clone();
        lookups.spawn_local(async move {
            let answer = resolver.lookup(&host).await;
            Lookup::Host(host, answer)
        });
    };
    let Names { hosts: mut asked, srv } = names;
    for host in &asked {
        look_up(&mut lookups, host.clone());
    }
    for name in srv {
        let resolver = resolver.clone();
        lookups.spawn_local(async move {
            let answer = resolver.lookup_srv(&name).await;
            Lookup::Srv(name, answer)
        });
    }
    let mut found = Found::default();
    while let Ok(Some(lookup)) = timeout_at(deadline, lookups.join_next()).await {
        match lookup {
            Ok(Lookup::Host(host, Ok(answer))) => {
                found.hosts.insert(host, answer);
            }
            Ok(Lookup::Srv(name, Ok(answer))) => {
                for record in &answer.records {
                    if asked.insert(record.target.clone()) {
                        look_up(&mut lookups, record.target.clone());
                    }
                }
                found.srv.insert(name, answer);
            }
            _ => {}
        }
    }
    found
}

/// Replaces in `new` what a reload does not apply by that of `running`: the keys that differed.
pub fn keep_until_restart(running: &Config, new: &mut Config) -> Vec<&'static str> {
    let (was, wants) = (&running.global, &new.global);
    let sessions = |global: &Global| global.sessions_max.map(|(number, _)| number);
    let account = |of: &Option<(String, _)>| of.as_ref().map(|(name, _)| name.clone());
    let bind = running.observe.bind.map(|(at, _)| at) == new.observe.bind.map(|(at, _)| at);
    let path = |config: &Config| config.observe.control.as_ref().map(|(path, _)| path.clone());
    let changed = [
        ("global.workers", was.workers != wants.workers),
        ("global.pin", was.pin != wants.pin),
        ("global.sessions_max", sessions(was) != sessions(wants)),
        ("global.buffers", was.buffers != wants.buffers),
        ("global.user", account(&was.user) != account(&wants.user)),
        ("global.group", account(&was.group) != account(&wants.group)),
        ("global.landlock", was.landlock != wants.landlock),
        ("global.seccomp", was.seccomp != wants.seccomp),
        ("observe.bind", !bind),
        ("observe.control", path(running) != path(new)),
        ("observe.log.format", running.observe.log.format != new.observe.log.format),
        ("observe.log.empty", running.observe.log.empty != new.observe.log.empty),
        ("observe.log.sessions", running.observe.log.sessions != new.observe.log.sessions),
    ];
    let Global { drain_delay, drain_timeout, resolver, .. } = new.global.clone();
    new.global = Global { drain_delay, drain_timeout, resolver, ..running.global.clone() };
    new.observe = running.observe.clone();
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// What the operator has to know about a key that [`keep_until_restart`] lists: the new process of
/// an upgrade cannot get back what this process has given up.
pub fn restart_note(key: &str, running: &Config, new: &Config) -> &'static str {
    let (was, wants) = (&running.global, &new.global);
    let is_given_up = match key {
        "global.user" | "global.group" => was.user.is_some(),
        "global.landlock" => was.landlock && !wants.landlock,
        "global.seccomp" => was.seccomp && !wants.seccomp,
        _ => false,
    };
    if is_given_up { " (only after a restart)" } else { "" }
}

/// Addresses of frontends in `new` that `observe.bind` or `observe.control` of `running` uses until
/// a restart. For the operator, a line each.
pub fn held_until_restart(running: &Config, new: &Config) -> Vec<String> {
    let binds = new.frontends.iter().flat_map(|frontend| &frontend.bind);
    let addresses =
        binds.flat_map(|(bind, place)| bind.addresses().map(move |address| (address, *place)));
    let control = running.observe.control.as_ref().map(|(path, _)| path.as_path());
    let holder = |address: &Address| match address {
        Address::Ip(ip) => {
            let (held, _) = running.observe.bind.filter(|(held, _)| overlap(*held, *ip))?;
            Some(format!("observe.bind = {held}"))
        }
        Address::Unix(path) => (control == Some(path)).then(|| "observe.control".to_owned()),
    };
    let taken = addresses.filter_map(|(address, place)| Some((holder(&address)?, address, place)));
    let line = |(holder, address, place)| {
        format!(
            "{}{address} is in use by {holder} until evenkeel is restarted; restart it, or choose \
             another address",
            new.locate(place)
        )
    };
    taken.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Log, Observe};

    fn config(global: &str, rest: &str) -> Config {
        let text = format!(
            "[global]\n{global}\n[frontend.f]\nbind = [\"127.0.0.1:80\"]\nbackend = \"b\"\n\
             [[backend.b.server]]\nname = \"s\"\naddress = \"pi:81\"\n{rest}"
        );
        config::parse(&text, "test").unwrap()
    }

    #[test]
    fn keys_that_need_a_restart_are_kept_and_listed() {
        let running = config("workers = 1", "");
        let mut new = config(
            "workers = 2\nsessions_max = 9\ndrain_timeout = \"1s\"",
            "[observe]\nbind = false\nlog.format = \"json\"\n",
        );
        let changed = keep_until_restart(&running, &mut new);
        let keys = ["global.workers", "global.sessions_max", "observe.bind", "observe.log.format"];
        assert_eq!(changed, keys);
        assert_eq!(new.global.workers, running.global.workers);
        assert_eq!(new.observe, running.observe);
        assert_eq!(new.global.drain_timeout, Duration::from_secs(1));
    }

    #[test]
    fn every_process_key_is_applied_or_listed_as_needing_a_restart() {
        // Another value than the default, for every key. A reload applies those with `true`.
        let keys = [
            ("global.workers", "3", false),
            ("global.pin", "true", false),
            ("global.sessions_max", "9", false),
            ("global.buffers", "\"1MiB\"", false),
            ("global.drain_delay", "\"9s\"", true),
            ("global.drain_timeout", "\"9s\"", true),
            ("global.user", "\"u\"", false),
            ("global.group", "\"g\"", false),
            ("global.landlock", "false", false),
            ("global.seccomp", "false", false),
            ("global.resolver", "[\"192.0.2.53\"]", true),
            ("observe.bind", "false", false),
            ("observe.control", "false", false),
            ("observe.log.format", "\"json\"", false),
            ("observe.log.sessions", "false", false),
            ("observe.log.empty", "false", false),
        ];
        let sections = [Global::SECTION, Observe::SECTION, Log::SECTION];
        let declared = sections.into_iter().flat_map(|section| {
            let keys = section.keys.iter().filter(|key| key.name != "log");
            keys.map(|key| format!("{}.{}", section.path, key.name))
        });
        assert!(
            declared.eq(keys.map(|(key, ..)| key)),
            "a key is missing here, or in another order"
        );
        let running = config("", "");
        for (key, value, is_applied) in keys {
            let mut new = match key.strip_prefix("global.") {
                // A group belongs to a user.
                Some("group") => config(&format!("user = \"u\"\ngroup = {value}"), ""),
                Some(name) => config(&format!("{name} = {value}"), ""),
                None => config("", &format!("[observe]\n{} = {value}", &key["observe.".len()..])),
            };
            let wanted = new.clone();
            let is_given_up = ["global.landlock", "global.seccomp"].contains(&key);
            assert_eq!(!restart_note(key, &running, &wanted).is_empty(), is_given_up, "{key}");
            let kept = keep_until_restart(&running, &mut new);
            assert_eq!(kept.contains(&key), !is_applied, "{key}: {kept:?}");
            let in_force = if is_applied { &wanted } else { &running };
            assert_eq!((&new.global, &new.observe), (&in_force.global, &in_force.observe), "{key}");
        }
    }

    #[test]
    fn the_address_of_observe_is_in_use_until_a_restart() {
        let running = config("", "[observe]\nbind = \"127.0.0.1:8404\"\n");
        let moved = "[observe]\nbind = \"127.0.0.1:8405\"\n[frontend.g]\nbackend = \"b\"\nbind = ";
        let new = config("", &format!("{moved}[\"0.0.0.0:8404\", \"[::]:8404\"]"));
        let lines = held_until_restart(&running, &new);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("0.0.0.0:8404") && lines[0].contains("restart"), "{lines:?}");
        assert!(held_until_restart(&running, &running).is_empty());
    }

    #[test]
    fn a_key_on_another_line_is_no_change() {
        let running = config("sessions_max = 9", "");
        let mut new = config("\n\nsessions_max = 9", "");
        assert!(keep_until_restart(&running, &mut new).is_empty());
    }

    #[test]
    fn only_host_names_are_looked_up() {
        let config = config("", "[[backend.b.server]]\nname = \"t\"\naddress = \"127.0.0.1:82\"\n");
        let names = Names::of(&config);
        assert!(names.hosts.iter().eq(["pi"]) && names.srv.is_empty(), "{names:?}");
    }

    #[test]
    fn a_file_that_does_not_exist_is_an_error() {
        let path = PathBuf::from("/nonexistent/evenkeel.toml");
        let reading = async {
            let resolver = Resolver::new();
            read(path, resolver, Names::default()).await
        };
        let lines = tokio_uring::start(reading).unwrap_err();
        assert!(lines[0].starts_with("/nonexistent/evenkeel.toml: "), "{lines:?}");
    }

    #[test]
    fn names_without_an_answer_are_left_out() {
        let hosts = BTreeSet::from(["localhost".to_owned(), "no..name".to_owned()]);
        let names = Names { hosts, srv: BTreeSet::from(["_x._tcp.invalid".to_owned()]) };
        let found = tokio_uring::start(async { resolve(&Resolver::new(), names).await });
        assert_eq!(found.hosts.keys().collect::<Vec<_>>(), ["localhost"]);
        assert!(found.srv.is_empty());
    }
}
