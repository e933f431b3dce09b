//! nginx: reads the `stream` block of a configuration, refuses the lines that nginx refuses, and
//! converts the rest.

mod backend_keys;
mod keywords;
mod lexer;
mod listen;
mod maps;
mod scope;
mod servers;
mod upstreams;
mod values;
mod verify;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use keywords::Block;
use lexer::Directive;
use scope::Scope;
use servers::Converted;

use super::draft::{Backend, Draft, Entry, Frontend, Origin, Setting};
use super::keyword::Treatment;
use super::literal;
use super::report::{Place, Refused, Report};

pub(super) use keywords::TABLES;

/// Converts the text of the configuration at `path`.
///
/// # Errors
/// The lines that nginx refuses.
pub(super) fn convert(text: &str, path: &Path, report: &Report) -> Result<Draft, Refused> {
    let directives = lexer::read(text, path, report);
    verify::verify(&directives, report);
    report.accepted()?;
    let mut draft = Draft::default();
    // A file that others include may have the inside of a stream block only.
    let mut stream: Vec<&Directive> = Vec::new();
    let mut main: Vec<&Directive> = Vec::new();
    for directive in &directives {
        match directive.name.as_str() {
            "stream" => stream.extend(directive.inside()),
            "events" => main.extend(directive.inside()),
            name if keywords::main(name).is_some() => main.push(directive),
            name if keywords::stream(name).is_some() => stream.push(directive),
            name => {
                let remedy = keywords::remedy_in(Block::Main, name);
                report.refuse(directive.place, format!("nginx has no {name:?} here; {remedy}"));
            }
        }
    }
    global(&main, &mut draft, report);
    resolver(&stream, &mut draft, report);
    let shared: Vec<&Directive> =
        stream.iter().copied().filter(|it| !is_block_of(it, &["server", "upstream"])).collect();
    let elsewhere = listen::elsewhere(&stream, report);
    let zones = scope::zones(&stream, &shared);
    let servers: Vec<Converted> = stream
        .iter()
        .filter(|it| it.name == "server")
        .zip(elsewhere)
        .flat_map(|(server, elsewhere)| {
            let scope = Scope { server, stream: &shared, elsewhere, zones: &zones };
            servers::convert(&scope, report)
        })
        .collect();
    for line in &shared {
        servers::notes(std::slice::from_ref(*line), report);
    }
    variables(&shared, report);
    let upstreams = upstreams(&stream, report);
    report.accepted()?;
    let mut backends = Backends::new(&upstreams, report);
    for server in servers {
        backends.connect(server, &mut draft);
    }
    draft.backends = backends.finish();
    names(&mut draft);
    report.accepted()?;
    Ok(draft)
}

/// Keys of `[global]`.
fn global(main: &[&Directive], draft: &mut Draft, report: &Report) {
    let mut set = |key, value| draft.settings.push(Setting { table: "global", key, value });
    let last = |name: &str| main.iter().rfind(|line| line.name == name);
    let workers = last("worker_processes").map_or("1", |line| line.word(0));
    for line in main {
        let word = line.word(0);
        match line.name.as_str() {
            "user" => {
                set("user", literal::quoted(word));
                if !line.word(1).is_empty() {
                    set("group", literal::quoted(line.word(1)));
                }
            }
            "worker_processes" if word == "auto" => set("workers", literal::quoted("auto")),
            "worker_processes" => match word.parse::<u32>() {
                Ok(number) => set("workers", number.clamp(1, 256).to_string()),
                Err(_) => report.report(line.place, "a placeholder of a template, not a number"),
            },
            "worker_cpu_affinity" => {
                if word != "auto" || line.arguments.len() > 1 {
                    report.near(line.place, "global.pin is a switch; a mask cannot be given");
                }
                set("pin", "true".to_owned());
            }
            "worker_shutdown_timeout" => match literal::millis(word, 1000) {
                Some(millis) => set("drain_timeout", literal::duration(millis)),
                None => report.refuse(
                    line.place,
                    format!(
                        "{word:?} is no time; write one such as \
                30s"
                    ),
                ),
            },
            "worker_connections" => match (workers.parse::<u64>(), word.parse::<u64>()) {
                (Ok(workers), Ok(connections)) => {
                    let most = (workers * connections / 2).clamp(1, 10_000_000);
                    let reason = "global.sessions_max: for each worker, and a session takes two: \
                    workers x N / 2";
                    report.near(line.place, reason);
                    set("sessions_max", most.to_string());
                }
                (Err(_), Ok(_)) => report.near(
                    line.place,
                    "global.sessions_max is for all workers, whose number the file does not say: \
                    not written",
                ),
                _ => report.refuse(line.place, "worker_connections without a number; write one"),
            },
            "include" if !word.contains("module") => {
                let reason = "another file: its content is needed; convert it where the file is";
                report.report(line.place, reason);
            }
            name => {
                if let Some(keyword) = keywords::main(name)
                    && keyword.treatment == Treatment::Report
                {
                    report.report(line.place, keyword.text);
                }
            }
        }
    }
}

/// `resolver` of `stream`, of a server or of an upstream: evenkeel has one list.
fn resolver(stream: &[&Directive], draft: &mut Draft, report: &Report) {
    let blocks = stream.iter().filter(|it| matches!(it.name.as_str(), "server" | "upstream"));
    let inside = blocks.flat_map(|block| block.inside());
    let lines = stream.iter().copied().chain(inside).filter(|line| line.name == "resolver");
    let mut first: Option<Vec<String>> = None;
    for line in lines {
        let mut servers = Vec::new();
        for word in &line.arguments {
            if word.contains('=') {
                let reason = "evenkeel follows the TTL of each answer, and uses both families";
                report.near(line.place, reason);
                continue;
            }
            let (host, port) = match word.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, port),
                _ => (word.as_str(), "53"),
            };
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            match bare.parse::<std::net::IpAddr>() {
                Ok(ip) if ip.is_ipv6() => servers.push(format!("[{ip}]:{port}")),
                Ok(ip) => servers.push(format!("{ip}:{port}")),
                Err(_) => report.report(line.place, "evenkeel asks name servers by IP address"),
            }
        }
        match &first {
            Some(first) if *first != servers => {
                report.report(line.place, "evenkeel has one list of name servers");
            }
            Some(_) => {}
            None => first = Some(servers),
        }
    }
    if let Some(servers) = first.filter(|servers| !servers.is_empty()) {
        let value = literal::list(&servers);
        draft.settings.push(Setting { table: "global", key: "resolver", value });
    }
}

/// `geo` and `split_clients` that no server uses are said as well.
fn variables(stream: &[&Directive], report: &Report) {
    for line in stream.iter().filter(|it| matches!(it.name.as_str(), "geo" | "split_clients")) {
        report.report(line.place, "variables: evenkeel routes by port, TLS server name and ALPN");
    }
}

fn is_block_of(line: &Directive, names: &[&str]) -> bool {
    names.contains(&line.name.as_str())
}

fn upstreams(stream: &[&Directive], report: &Report) -> Vec<(String, Backend)> {
    let mut found: Vec<(String, Backend)> = Vec::new();
    let mut names: HashSet<&str> = HashSet::new();
    for line in stream.iter().filter(|line| line.name == "upstream") {
        let name = line.word(0).to_owned();
        if !names.insert(line.word(0)) {
            report.refuse(line.place, format!("upstream {name} is there twice; rename one"));
        }
        found.push((name, upstreams::convert(line, report)));
    }
    found
}

/// Backends as servers need them: an upstream with the keys of the server that uses it.
struct Backends<'a> {
    /// The target as the file writes it, its keys, and the backend.
    made: Vec<(String, Keys, Backend)>,
    /// Positions in `made` by target.
    positions: HashMap<String, Vec<usize>>,
    upstreams: HashMap<&'a str, &'a Backend>,
    /// The upstreams in the order of the file.
    names: Vec<&'a str>,
    report: &'a Report,
}

/// The keys of backends that nginx has in `server`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys {
    entries: Vec<Entry>,
    health: Vec<Entry>,
    tries: Option<u64>,
}

impl<'a> Backends<'a> {
    fn new(upstreams: &'a [(String, Backend)], report: &'a Report) -> Self {
        Self {
            made: Vec::new(),
            positions: HashMap::new(),
            upstreams: upstreams.iter().map(|(name, it)| (name.as_str(), it)).collect(),
            names: upstreams.iter().map(|(name, _)| name.as_str()).collect(),
            report,
        }
    }

    /// Names the backends of a server in its frontend.
    fn connect(&mut self, server: Converted, draft: &mut Draft) {
        let Converted { mut frontend, mut route, place, entries, health, tries } = server;
        let keys = Keys { entries, health, tries };
        let listens = !frontend.binds.is_empty();
        for target in route.targets_mut() {
            // A server for UDP alone needs no backend of its own.
            if !listens && !self.upstreams.contains_key(target.as_str()) {
                continue;
            }
            let name = self.backend(target, &keys, &frontend, place);
            *target = name;
        }
        (frontend.backend, frontend.sni, frontend.alpn) = (route.backend, route.sni, route.alpn);
        draft.frontends.push(frontend);
    }

    /// The name of the backend of a target; one is made for each set of keys.
    fn backend(&mut self, target: &str, keys: &Keys, user: &Frontend, place: Place) -> String {
        let positions = self.positions.entry(target.to_owned()).or_default();
        let same = positions.iter().map(|at| &self.made[*at]).find(|(_, other, _)| other == keys);
        if let Some((_, _, backend)) = same {
            return backend.name.clone();
        }
        let mut backend = match self.upstreams.get(target) {
            Some(backend) => (*backend).clone(),
            None => {
                let last = user.origin.last;
                let first = Place { line: last, ..user.origin.first };
                upstreams::single(target, place, Origin { first, last }, self.report)
            }
        };
        if !positions.is_empty() {
            if self.upstreams.contains_key(target) {
                let reason = "another server has other settings for this upstream: evenkeel has a \
                              backend for each, which counts its sessions, max_conns and failures \
                              alone";
                self.report.near(place, reason);
            }
            let suffix = user.name.strip_prefix("server-").unwrap_or(&user.name);
            backend.name = literal::name(&format!("{}-{suffix}", backend.name));
        }
        backend.entries.splice(1..1, keys.entries.iter().cloned());
        let servers = backend.servers.len() as u64;
        let tries = keys.tries.unwrap_or(servers).max(1);
        backend.entries.push(("retries", (tries - 1).min(100).to_string()));
        if !keys.health.is_empty() {
            backend.health.retain(|(key, _)| *key != "check");
            backend.health.splice(0..0, keys.health.iter().cloned());
        }
        let name = backend.name.clone();
        positions.push(self.made.len());
        self.made.push((target.to_owned(), keys.clone(), backend));
        name
    }

    /// The backends in use, and the upstreams that no server uses.
    fn finish(self) -> Vec<Backend> {
        let unused = self.names.iter().filter(|name| !self.positions.contains_key(**name));
        let unused: Vec<Backend> = unused.map(|name| self.upstreams[name].clone()).collect();
        self.made.into_iter().map(|(_, _, backend)| backend).chain(unused).collect()
    }
}

/// Each frontend has a name of its own.
fn names(draft: &mut Draft) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for frontend in &mut draft.frontends {
        let count = seen.entry(frontend.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            frontend.name = format!("{}-{count}", frontend.name);
        }
    }
}
