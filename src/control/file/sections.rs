//! The sections of the file: what each key means, its limits, and what holds without it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::keys::{BACKEND, FRONTEND, GLOBAL, HEALTH, HTTP, LOG, OBSERVE, SERVER, TOP};
use super::problems::{Sink, nearest, shown};
use super::reader::{Field, Section};
use super::values;
use super::words::{ALL_DOWN, BALANCE, CHECK, CheckWord, FORMAT, STATE};
use crate::control::config::{
    Backend, Check, Config, Frontend, Global, Health, HttpCheck, Observe, Place, Server,
    ServerAddress,
};

/// The longest time that a key takes: timers count milliseconds, and HAProxy's stop there as well
/// (2^31 ms is 24.8 days); who means "never" does better with an end that can be seen.
const TIME_MAX: Duration = Duration::from_secs(24 * 24 * 60 * 60);
/// Any time but none: a timeout of 0 would end every session at once.
const SOME_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=TIME_MAX;
/// Between probes: more than a hundred a second is load, not a check.
const BETWEEN_PROBES: RangeInclusive<Duration> = Duration::from_millis(10)..=TIME_MAX;
/// A probe that waits longer than a minute tells what clients have known for long.
const PROBE_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// More threads than any machine for this has cores.
const WORKERS_MAX: u32 = 256;
/// Two descriptors each; ten million are far beyond what one process can hold (`fs.nr_open`).
const SESSIONS_MAX: u32 = 10_000_000;
/// Below, a worker has hardly a buffer; above, there are more than a buffer's number can say.
const BUFFERS: RangeInclusive<u64> = (64 << 10)..=(1 << 30);
/// Each may take `connect_timeout`; a hundred are five minutes, and the client has gone.
const RETRIES_MAX: u32 = 100;
/// What net.core.somaxconn, which cuts it anyway, is raised to at most in practice.
const BACKLOG_MAX: u32 = 65_535;
/// In a row; a hundred probes are minutes in which nothing happens.
const PROBES_MAX: u32 = 100;
/// Where the control socket is unless the file says otherwise.
const CONTROL: &str = "/run/evenkeel/control.sock";
/// A table numbers the addresses of a backend with 16 bits; some names have several.
const SERVERS_MAX: usize = 10_000;

/// The whole file. What is wrong goes to the sink; the result is then of no use.
pub(super) fn document<'a>(table: &'a DeTable<'a>, sink: &'a Sink<'a>) -> Config {
    let top = Section::new(sink, &TOP, table, String::new(), 0);
    let backends = top.named("backend", &BACKEND).unwrap_or_default();
    let names: BTreeSet<&str> = backends.iter().map(|(name, _)| *name).collect();
    let frontends = top.named("frontend", &FRONTEND);
    if frontends.as_ref().is_some_and(Vec::is_empty) {
        let nothing = if table.is_empty() { "the file is empty" } else { "there is no frontend" };
        top.missing(&format!("{nothing}; add [frontend.NAME] with bind and backend"));
    }
    let frontend = |(name, section): (&str, Section<'_>)| {
        let bind = binds(&section);
        let backend = backend_of(&section, &names, sink);
        frontend(&section, name, bind, backend)
    };
    let backend = |(name, section): (&str, Section<'_>)| backend(&section, name, servers(&section));
    Config {
        file: None,
        global: global(&top.section("global", &GLOBAL)),
        observe: observe(&top.section("observe", &OBSERVE)),
        frontends: frontends.unwrap_or_default().into_iter().map(frontend).collect(),
        backends: backends.into_iter().map(backend).collect(),
    }
}

/// A frontend and a backend with nothing but addresses.
pub(super) fn arguments(binds: &[String], servers: &[String], sink: &Sink<'_>) -> Config {
    let place = Place::default();
    let wrong = |flag: &str, word: &str, problem: &str| {
        sink.wrong(0, format!("{flag} {}: {problem}", shown(word)));
    };
    if binds.is_empty() {
        sink.missing(0, "no --bind; add one such as --bind 0.0.0.0:80");
    }
    if servers.is_empty() {
        sink.missing(0, "no --server; add one such as --server 192.0.2.1:80");
    }
    let bind = |word: &String| {
        let address = values::bind(word).map_err(|problem| wrong("--bind", word, &problem)).ok()?;
        Some((address, place))
    };
    let server = |(number, word): (usize, &String)| {
        let address = values::server(word);
        let address = address.map_err(|problem| wrong("--server", word, &problem)).ok()?;
        let section = Section::absent(sink, &SERVER);
        Some(server(&section, format!("server{number}"), address))
    };
    let bind: Vec<_> = binds.iter().filter_map(bind).collect();
    let servers: Vec<_> = (1..).zip(servers).filter_map(server).collect();
    let backend_name = "servers".to_owned();
    Config {
        file: None,
        global: global(&Section::absent(sink, &GLOBAL)),
        observe: observe(&Section::absent(sink, &OBSERVE)),
        frontends: vec![frontend(&Section::absent(sink, &FRONTEND), "main", bind, backend_name)],
        backends: vec![backend(&Section::absent(sink, &BACKEND), "servers", servers)],
    }
}

/// `[observe]` where nothing is written.
pub(super) fn observe_default(sink: &Sink<'_>) -> Observe {
    observe(&Section::absent(sink, &OBSERVE))
}

fn global(section: &Section<'_>) -> Global {
    let auto_or = |key, most| {
        let field = section.field(key).filter(|field| !field.is("auto"))?;
        let number = field.number(1..=most, ", or \"auto\"").and_then(NonZeroU32::new)?;
        Some((number, field.place()))
    };
    let account = |key| {
        let field = section.field(key)?;
        Some((field.parsed("a name in quotes", values::account)?, field.place()))
    };
    let buffers = section.field("buffers").filter(|field| !field.is("auto"));
    let none = Duration::ZERO;
    Global {
        workers: auto_or("workers", WORKERS_MAX).map(|(number, _)| number),
        pin: section.flag("pin", false),
        sessions_max: auto_or("sessions_max", SESSIONS_MAX),
        buffers: buffers.and_then(|field| {
            field.parsed("a size in quotes, such as \"16MiB\"", |text| values::size(text, &BUFFERS))
        }),
        drain_timeout: section.duration("drain_timeout", Duration::from_secs(30), none..=TIME_MAX),
        user: account("user"),
        group: account("group"),
    }
}

/// `observe.control` of whatever could be parsed; what is wrong with it goes to the sink, and the
/// default holds.
pub(super) fn control_socket<'a>(table: &'a DeTable<'a>, sink: &'a Sink<'a>) -> Option<PathBuf> {
    let top = Section::new(sink, &TOP, table, String::new(), 0);
    let field = top.section("observe", &OBSERVE).field("control");
    if field.as_ref().is_some_and(Field::is_off) {
        return None;
    }
    let written = field.and_then(|field| field.parsed("a path in quotes", values::socket_path));
    Some(written.unwrap_or_else(|| PathBuf::from(CONTROL)))
}

fn observe(section: &Section<'_>) -> Observe {
    let log = section.section("log", &LOG);
    let bind = ([127, 0, 0, 1], 8404).into();
    let control = PathBuf::from(CONTROL);
    let address = "an address in quotes, such as \"127.0.0.1:8404\", or false";
    let path = "a path in quotes, such as \"/run/evenkeel/control.sock\", or false";
    Observe {
        bind: unless_off(section.field("bind"), bind, address, values::bind),
        control: unless_off(section.field("control"), control, path, values::socket_path),
        log_format: log.choice("format", &FORMAT),
        log_sessions: log.flag("sessions", true),
    }
}

/// None for `false`, the default where nothing is written.
fn unless_off<T>(
    field: Option<Field<'_>>,
    default: T,
    wanted: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<(T, Place)> {
    let Some(field) = field else { return Some((default, Place::default())) };
    if field.is_off() { None } else { Some((field.parsed(wanted, parse)?, field.place())) }
}

fn binds(section: &Section<'_>) -> Vec<(SocketAddr, Place)> {
    const EXAMPLE: &str = "[\"0.0.0.0:80\", \"[::]:80\"]";
    let Some(field) = section.required("bind", EXAMPLE) else { return Vec::new() };
    let Some(items) = field.items(EXAMPLE) else { return Vec::new() };
    if items.is_empty() {
        field.wrong(&format!("no address; write {EXAMPLE}"));
    }
    let address = |item: Field<'_>| {
        let address = item.parsed("an address in quotes, such as \"0.0.0.0:80\"", values::bind)?;
        Some((address, item.place()))
    };
    items.into_iter().filter_map(address).collect()
}

fn backend_of(section: &Section<'_>, names: &BTreeSet<&str>, sink: &Sink<'_>) -> String {
    let example = format!("{:?}", names.first().unwrap_or(&"web"));
    let Some(field) = section.required("backend", &example) else { return String::new() };
    let written = field.parsed("the name of a backend in quotes", |name| Ok(name.to_owned()));
    let Some(name) = written else { return String::new() };
    if !names.contains(&*name) {
        let near = (!sink.is_crowded()).then(|| nearest(&name, names.iter().copied())).flatten();
        field.missing(&match near {
            Some(near) => format!("there is no such backend; did you mean {near:?}?"),
            None => "there is no such backend; add one of that name".to_owned(),
        });
        return String::new();
    }
    name
}

fn frontend(
    section: &Section<'_>,
    name: &str,
    bind: Vec<(SocketAddr, Place)>,
    backend: String,
) -> Frontend {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    Frontend {
        name: name.to_owned(),
        place: section.place(),
        bind,
        backend,
        sessions_max: sessions_max(section),
        idle_timeout: section.duration("idle_timeout", minutes(5), SOME_TIME),
        half_closed_timeout: section.duration(
            "half_closed_timeout",
            Duration::from_secs(30),
            SOME_TIME,
        ),
        backlog: section.number("backlog", 1..=BACKLOG_MAX).unwrap_or(4096),
    }
}

fn sessions_max(section: &Section<'_>) -> Option<NonZeroU32> {
    section.number("sessions_max", 1..=SESSIONS_MAX).and_then(NonZeroU32::new)
}

fn backend(section: &Section<'_>, name: &str, servers: Vec<Server>) -> Backend {
    Backend {
        name: name.to_owned(),
        place: section.place(),
        balance: section.choice("balance", &BALANCE),
        connect_timeout: section.duration("connect_timeout", Duration::from_secs(3), SOME_TIME),
        retries: section.number("retries", 0..=RETRIES_MAX).unwrap_or(2),
        all_down: section.choice("all_down", &ALL_DOWN),
        health: health(&section.section("health", &HEALTH)),
        servers,
    }
}

fn health(section: &Section<'_>) -> Health {
    let word = section.choice("check", &CHECK);
    let http = http(&section.section("http", &HTTP));
    // A check that is no known word may have been meant to be this one.
    let other = section.field("check").is_none_or(|field| field.is("tcp") || field.is("off"));
    if let Some(field) = section.field("http").filter(|_| other) {
        field.wrong("only used by check = \"http\"; write that, or remove this");
    }
    let port = section.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok());
    let seconds = Duration::from_secs;
    Health {
        check: match word {
            CheckWord::Off => Check::Off,
            CheckWord::Tcp => Check::Tcp,
            CheckWord::Http => Check::Http(http),
        },
        interval: section.duration("interval", seconds(2), BETWEEN_PROBES),
        interval_down: section.duration("interval_down", seconds(2), BETWEEN_PROBES),
        timeout: section.duration("timeout", seconds(1), PROBE_TIME),
        rise: section.number("rise", 1..=PROBES_MAX).unwrap_or(2),
        fall: section.number("fall", 1..=PROBES_MAX).unwrap_or(3),
        port,
    }
}

fn http(section: &Section<'_>) -> HttpCheck {
    let text = |key, wanted, parse: fn(&str) -> Result<String, String>| {
        section.field(key).and_then(|field: Field<'_>| field.parsed(wanted, parse))
    };
    let status = section.field("status");
    let status =
        status.and_then(|field| field.parsed("a range such as \"200-399\"", values::status_range));
    HttpCheck {
        method: text("method", "one such as \"GET\"", values::http_method)
            .unwrap_or_else(|| "GET".to_owned()),
        path: text("path", "one such as \"/health\"", values::http_path)
            .unwrap_or_else(|| "/".to_owned()),
        host: text("host", "one such as \"www.example.org\"", values::http_host),
        status: status.unwrap_or((200, 399)),
    }
}

fn servers(section: &Section<'_>) -> Vec<Server> {
    let Some(sections) = section.list("server", &SERVER) else { return Vec::new() };
    let path = section.path();
    if sections.is_empty() {
        let remedy = format!("add [[{path}.server]] with name and address");
        section.missing(&format!("[{path}] has no server; {remedy}"));
    }
    if sections.len() > SERVERS_MAX {
        section.wrong(&format!("[{path}] has more than {SERVERS_MAX} servers; split it"));
    }
    let one = |section: Section<'_>| {
        let name = section.required("name", "\"web1\"");
        let name = name.and_then(|field| {
            let check = |text: &str| values::name(text).map(|()| text.to_owned());
            field.parsed("a name in quotes", check)
        });
        let address = section.required("address", "\"192.0.2.1:80\"").and_then(|field| {
            field.parsed("host and port in quotes, such as \"web1.lan:80\"", values::server)
        });
        let nowhere = ServerAddress::Name { host: String::new(), port: 0 };
        server(&section, name.unwrap_or_default(), address.unwrap_or(nowhere))
    };
    sections.into_iter().map(one).collect()
}

fn server(section: &Section<'_>, name: String, address: ServerAddress) -> Server {
    Server {
        name,
        place: section.place(),
        address,
        weight: section.number("weight", 0..=1000).unwrap_or(100),
        sessions_max: sessions_max(section),
        backup: section.flag("backup", false),
        state: section.choice("state", &STATE),
    }
}
