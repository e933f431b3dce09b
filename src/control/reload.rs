//! What a reload reads before anything changes: the checked file, and the addresses of its host
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::config::{Config, Global, ServerAddress, Span, missing_interfaces, overlap};
use crate::control::probe_tls;
use crate::control::resolve::{Answer, Resolver};
use crate::control::sources;
use crate::sys::local_addresses::LocalAddresses;

/// For all host names together. A server without an answer by then is down until it has one.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);

/// A configuration that can come into force.
#[derive(Debug)]
pub struct NewConfig {
    /// As checked.
    pub config: Config,
    /// For host names that had no answer before.
    pub answers: BTreeMap<String, Answer>,
}

/// Reads the file at `path`, and looks up its host names that are not `known`.
///
/// # Errors
/// Every problem of the file, a line each.
pub async fn read(
    path: PathBuf,
    resolver: Resolver,
    known: BTreeSet<String>,
) -> Result<NewConfig, Vec<String>> {
    // A large file on a slow disk must not block the control thread.
    let load = move || {
        let lines = |problems: config::Problems| problems.lines().collect::<Vec<_>>();
        let config = config::load(&path).map_err(lines)?;
        config::on_this_machine(&config, &LocalAddresses::now()).map_err(lines)?;
        probe_tls::load_roots(&config).map(|()| config)
    };
    let loaded = spawn_blocking(load).await;
    let config = match loaded {
        Ok(loaded) => loaded?,
        Err(error) => return Err(vec![format!("the file could not be read: {error}")]),
    };
    let missing = missing_interfaces(&config).into_iter().chain(sources::denied_all(&config));
    let missing: Vec<String> =
        missing.map(|(span, problem)| format!("{}{problem}", config.locate(span))).collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let unknown = hosts(&config).filter(|host| !known.contains(*host)).map(str::to_owned).collect();
    let answers = resolve(&resolver, unknown).await;
    Ok(NewConfig { config, answers })
}

/// The host names in a configuration.
pub fn hosts(config: &Config) -> impl Iterator<Item = &str> {
    config.backends.iter().flat_map(|backend| &backend.servers).filter_map(|server| {
        match &server.address {
            ServerAddress::Name { host, .. } => Some(host.as_str()),
            ServerAddress::Ip(_) => None,
        }
    })
}

/// Looks up all of `hosts`, for 5 s at most. A name without an answer is left out.
pub async fn resolve(resolver: &Resolver, hosts: BTreeSet<String>) -> BTreeMap<String, Answer> {
    resolve_within(resolver, hosts, RESOLVE_TIME_MAX).await
}

/// As [`resolve`], with another limit.
pub async fn resolve_within(
    resolver: &Resolver,
    hosts: BTreeSet<String>,
    limit: Duration,
) -> BTreeMap<String, Answer> {
    let deadline = Instant::now() + limit;
    let mut lookups = JoinSet::new();
    for host in hosts {
        let resolver = resolver.clone();
        lookups.spawn_local(async move {
            let answer = resolver.lookup(&host).await;
            (host, answer)
        });
    }
    let mut answers = BTreeMap::new();
    while let Ok(Some(lookup)) = timeout_at(deadline, lookups.join_next()).await {
        if let Ok((host, Ok(answer))) = lookup {
            answers.insert(host, answer);
        }
    }
    answers
}

/// Replaces in `new` what only a restart can change by that of `running`; the keys that differed.
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
        ("observe.bind", !bind),
        ("observe.control", path(running) != path(new)),
        ("observe.log.format", running.observe.log.format != new.observe.log.format),
        ("observe.log.empty", running.observe.log.empty != new.observe.log.empty),
        ("observe.log.sessions", running.observe.log.sessions != new.observe.log.sessions),
    ];
    let Global { drain_delay, drain_timeout, .. } = new.global;
    new.global = Global { drain_delay, drain_timeout, ..running.global.clone() };
    new.observe = running.observe.clone();
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// Addresses of frontends in `new` that `observe.bind` of `running` uses until a restart. For the
/// operator, a line each.
pub fn held_until_restart(running: &Config, new: &Config) -> Vec<String> {
    let Some((held, _)) = running.observe.bind else { return Vec::new() };
    let binds = new.frontends.iter().flat_map(|frontend| &frontend.bind);
    let taken = binds.filter(|(address, _)| overlap(held, *address));
    let line = |(address, place): &(SocketAddr, Span)| {
        format!(
            "{}{address} is in use by observe.bind = {held} until evenkeel is restarted; restart \
             it, or choose another address",
            new.locate(*place)
        )
    };
    taken.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(hosts(&config).collect::<Vec<_>>(), ["pi"]);
    }

    #[test]
    fn a_file_that_does_not_exist_is_an_error() {
        let path = PathBuf::from("/nonexistent/evenkeel.toml");
        let reading = async {
            let resolver = Resolver::new();
            read(path, resolver, BTreeSet::new()).await
        };
        let lines = tokio_uring::start(reading).unwrap_err();
        assert!(lines[0].starts_with("/nonexistent/evenkeel.toml: "), "{lines:?}");
    }

    #[test]
    fn names_without_an_answer_are_left_out() {
        let hosts = BTreeSet::from(["localhost".to_owned(), "no..name".to_owned()]);
        let answers = tokio_uring::start(async { resolve(&Resolver::new(), hosts).await });
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["localhost"]);
    }
}
