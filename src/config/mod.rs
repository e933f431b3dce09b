//! The configuration: reads and checks a file, or reports every problem of it.
//!
//! `settings` and its three neighbours declare every key. A file travels from `syntax` (TOML)
//! through `reader` (as written) to the structs of the settings (as meant), and `validate` compares
//! the sections with each other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use toml::de::DeTable;

mod addresses;
mod advice;
mod arrays;
mod backend_settings;
mod bind_address;
mod bytes;
mod chains;
mod client_ports;
mod declare;
mod differences;
mod document;
mod enums;
mod frontend_settings;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod haproxy;
mod host_and_port;
mod health_settings;
mod health_rules;
mod kinds;
mod networks;
mod problems;
mod ranges;
mod reader;
mod routes;
mod schema;
mod settings;
mod sources;
mod syntax;
mod validate;
mod values;
mod zones;

pub use addresses::{ServerAddress, not_a_server};
pub use advice::advice;
pub use backend_settings::{BackendSettings, Server};
pub use bind_address::BindAddress;
pub use chains::{Chains, Reached};
pub use client_ports::only_client_port;
pub use differences::{Change, Difference, Item, differences};
pub use document::{example, reference};
pub use enums::{
    AdminState, AllDown, Backups, Balance, Check, LogFormat, OnDown, ProxyProtocol, SendProxy,
    Words,
};
pub use frontend_settings::{FrontendSettings, Rates};
pub use health_settings::{ConnectErrors, Health, HttpCheck, Step, TlsCheck};
pub use host_and_port::PORTS_MAX;
pub use kinds::{Alternative, Format, Key, Kind, Presence, Section};
pub use networks::Networks;
pub use problems::{Problem, Problems, Span, nearest};
pub use routes::Route;
pub use schema::schema;
pub use settings::{Config, Global, Log, Observe};
pub use sources::Sources;
pub use validate::{on_this_machine, overlap};
pub use values::Rate;
pub use zones::missing_interfaces;

pub(crate) use addresses::{server as server_address, srv_name};
pub(crate) use values::{protocol, server_name};

use kinds::Table;
use networks::BadLines;
use problems::{Sink, shown};

/// The largest file that is read: ten thousand servers need less than 1 MiB, and the time and the
/// memory that a file takes grow with its size.
pub const FILE_MAX: u64 = 1024 * 1024;

/// Reads and checks the file at `path`.
///
/// # Errors
/// The file cannot be read, or every problem that it has.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|problem| Problems::one(&name, Span::default(), problem))?;
    let text = text_of(&bytes).map_err(|valid| not_text(&name, &bytes, valid))?;
    let mut config = parse(text, &name)?;
    config.file = Some(path.to_owned());
    config.text = text.into();
    let sink = Sink::new(&name, text);
    read_lists(&mut config, path, &sink);
    sink.finish().map(|()| config)
}

/// Reads the lists of networks that are files; their paths are relative to the configuration's.
fn read_lists(config: &mut Config, path: &Path, sink: &Sink<'_>) {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    for frontend in &mut config.frontends {
        let FrontendSettings { allow, deny, proxy_protocol_from, .. } = Arc::make_mut(frontend);
        let from = ("proxy_protocol_from", proxy_protocol_from);
        for (key, list) in [("allow", allow), ("deny", deny), from] {
            let Some((file, span)) = list.file.clone() else { continue };
            let file = folder.join(file);
            let shown = shown(&file.display().to_string());
            let bytes = match read(&file) {
                Ok(bytes) => bytes,
                Err(problem) => {
                    let (what, _) = problem.split_once("; ").unwrap_or((&problem, ""));
                    let remedy = "name an existing text file";
                    sink.push_at(span, format!("{key}: the file {shown} {what}; {remedy}"));
                    continue;
                }
            };
            let Err(BadLines { shown: lines, more }) = list.read(&String::from_utf8_lossy(&bytes))
            else {
                continue;
            };
            for (line, problem) in lines {
                sink.push_at(span, format!("{key}: line {line} of {shown}: {problem}"));
            }
            if more > 0 {
                let text = format!("{key}: {shown} has {more} more bad lines; correct these first");
                sink.push_at(span, text);
            }
        }
    }
}

/// Reads a duration, such as "500ms" or "5m", of a day at most.
///
/// # Errors
/// What is wrong, and what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text, &(Duration::ZERO..=Duration::from_secs(24 * 60 * 60)))
}

/// Checks the `text` of a configuration; problems call it `name`.
///
/// # Errors
/// Every problem that it has.
pub fn parse(text: &str, name: &str) -> Result<Config, Problems> {
    let text = without_mark(text);
    let sink = Sink::new(name, text);
    let document = syntax::parse(text, &sink);
    let config = document.map(|document| {
        let config = Config::read(&Table::document(Config::SECTION, &sink, &document));
        validate::check(&config, &sink);
        config
    });
    if config.is_none() && sink.is_empty() {
        // A file without a document must not pass for an empty one, which would remove everything.
        sink.push(0, "the file is not TOML".to_owned());
    }
    sink.finish().map(|()| config.unwrap_or_default())
}

/// The configuration of `run --bind A --server B`: frontend "main", backend "servers", servers
/// "server1" and so on, in the order given; everything else has its default.
///
/// # Errors
/// Every problem that the arguments have.
pub fn from_arguments(binds: &[String], servers: &[String]) -> Result<Config, Problems> {
    let sink = Sink::new("", "");
    let wrong = |flag: &str, word: &str, problem: &str| {
        sink.push(0, format!("{flag} {}: {problem}", shown(word)));
    };
    if binds.is_empty() {
        sink.push(0, "no --bind; add one such as --bind 0.0.0.0:80");
    }
    if servers.is_empty() {
        sink.push(0, "no --server; add one such as --server 192.0.2.1:80");
    }
    let bind = |word: &String| {
        let address = addresses::bind(word).map_err(|problem| wrong("--bind", word, &problem));
        Some((address.ok()?, Span::default()))
    };
    let server = |(number, word): (usize, &String)| {
        let address = addresses::server(word).map_err(|problem| wrong("--server", word, &problem));
        Some(Server {
            name: format!("server{number}"),
            address: address.ok()?,
            ..Server::default()
        })
    };
    let frontend = FrontendSettings {
        name: "main".into(),
        bind: binds.iter().filter_map(bind).collect(),
        backend: Some(("servers".to_owned(), Span::default())),
        ..FrontendSettings::default()
    };
    let backend = BackendSettings {
        name: "servers".into(),
        servers: (1..).zip(servers).filter_map(server).collect(),
        ..BackendSettings::default()
    };
    let (frontends, backends) = (vec![Arc::new(frontend)], vec![Arc::new(backend)]);
    let config = Config { frontends, backends, ..Config::default() };
    validate::check(&config, &sink);
    sink.finish().map(|()| config)
}

/// `observe.control` of the file at `path`, whatever else is wrong with it: a running balancer can
/// be controlled while its file is bad. The default where the file sets none; none: it is off.
/// `or_default`: also where a bad file may have meant to set one.
///
/// # Errors
/// The file cannot be read, or does not say which one it is: the default one may be that of another
/// balancer.
pub fn control_socket(path: &Path, or_default: bool) -> Result<Option<PathBuf>, Problems> {
    let name = path.display().to_string();
    let failed = |problem| Problems::one(&name, Span::default(), problem);
    let bytes = read(path).map_err(failed)?;
    control_of(&String::from_utf8_lossy(&bytes), or_default).ok_or_else(|| {
        failed(format!(
            "is not valid, and does not say which control socket its balancer has; correct it \
             (`evenkeel check -c {name}`), or name the socket with --control PATH"
        ))
    })
}

/// None: the text does not say it.
#[expect(clippy::option_option, reason = "the inner one: it is off")]
fn control_of(text: &str, or_default: bool) -> Option<Option<PathBuf>> {
    let (document, errors) = DeTable::parse_recoverable(without_mark(text));
    let observe = document.get_ref().get("observe").and_then(|it| it.get_ref().as_table());
    let is_said = match observe.and_then(|observe| observe.get("control")) {
        Some(control) => control.get_ref().is_str() || control.get_ref().is_bool(),
        None => errors.is_empty(),
    };
    let config =
        Config::read(&Table::document(Config::SECTION, &Sink::new("", ""), document.get_ref()));
    (is_said || or_default).then(|| config.observe.control.map(|(path, _)| path))
}

/// Without the byte order mark that some editors write; it is no part of the first line.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The bytes of a regular file, [`FILE_MAX`] at most; the error is a sentence with a remedy.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = open(path).map_err(|error| cannot_read(&error))?;
    let kind = file.metadata().map_err(|error| cannot_read(&error))?.file_type();
    if kind.is_dir() {
        return Err("is a directory; name the file in it".to_owned());
    }
    if !kind.is_file() {
        return Err("is not a regular file; name a file, not a pipe or a device".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that a file is too long, also one that grows meanwhile.
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(&error))?;
    if bytes.len() as u64 > FILE_MAX {
        let mebibytes = FILE_MAX / 1024 / 1024;
        return Err(format!("is longer than {mebibytes} MiB; is it the right file?"));
    }
    Ok(bytes)
}

/// Opens without waiting: the open of a FIFO without a writer would wait for ever.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn cannot_read(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => {
            "name an existing file with -c FILE; without a file: `run --bind ADDRESS --server \
             ADDRESS`, and `--control PATH` for the other commands"
        }
        io::ErrorKind::PermissionDenied => "make it readable for the user that evenkeel runs as",
        _ => "check that it is a regular file that can be read",
    };
    format!("cannot be read ({error}); {remedy}")
}

/// UTF-8 without a NUL, or the length of the part that is.
fn text_of(bytes: &[u8]) -> Result<&str, usize> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.valid_up_to())?;
    text.find('\0').map_or(Ok(text), Err)
}

fn not_text(name: &str, bytes: &[u8], valid: usize) -> Problems {
    let text = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
    let span = Sink::new(name, text).span(text.len());
    let byte = bytes.get(valid).copied().unwrap_or_default();
    Problems::one(name, span, format!("byte 0x{byte:02x} is not text; save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_key() {
        for key in Config::SECTION.all().iter().flat_map(|section| section.keys) {
            let is_value = key.kind.of_literal(key.literal).is_some();
            let is_list = matches!(key.kind, Kind::List(_));
            assert!(is_value || is_list || key.section().is_some(), "{}", key.name);
        }
    }

    #[test]
    fn a_file_that_breaks_off_anywhere_is_refused_or_read_and_never_a_panic() {
        let whole = include_str!("../../tests/config/valid/every-form.toml");
        for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            drop(parse(&whole[..end], "x"));
            drop(parse(&whole[end..], "x"));
        }
    }

    #[test]
    fn the_control_socket_is_found_in_a_bad_file() {
        let folder = std::env::temp_dir().join(format!("evenkeel-file-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("x.toml");
        let found = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            let [own, or_default] = [false, true].map(|or_default| {
                let socket = control_socket(&path, or_default).ok()?;
                Some(socket.map(|path| path.display().to_string()))
            });
            assert!(own.is_none() || own == or_default);
            (or_default.unwrap(), own.is_some())
        };
        let default = Observe::default().control.map(|(path, _)| path.display().to_string());
        let own = Some("/x".to_owned());
        let own = || (own.clone(), true);
        assert_eq!(found(b"[observe]\ncontrol = \"/x\"\nbund = 1\n[frontend.f]\n"), own());
        assert_eq!(found(b"observe.control = \"/x\"\n[frontend.f\nbind = [\n"), own());
        assert_eq!(found(b"observe.control = \"/x\" # caf\xe9\n"), own());
        assert_eq!(found(b"observe.control = false\nnonsense"), (None, true));
        assert_eq!(found(b"global.workers = \"x\"\n"), (default.clone(), true));
        assert_eq!(found(b""), (default.clone(), true));
        assert_eq!(found(b"observe.control = 5\n"), (default.clone(), false));
        assert_eq!(found(b"this is [ not TOML"), (default, false));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(control_socket(&path, true).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn frontends_and_servers_keep_the_order_of_the_file() {
        let names = ["z", "m", "a", "q"];
        let mut text = String::new();
        for (port, name) in (1..).zip(names) {
            let bind = format!("[frontend.{name}]\nbind = [\"127.0.0.1:{port}\"]\n");
            let server = format!("[[backend.web.server]]\nname = \"{name}\"\n");
            text.push_str(&format!("{bind}backend = \"web\"\n{server}address = \"{name}:1\"\n"));
        }
        let config = parse(&text, "x").unwrap();
        let frontends = config.frontends.iter().map(|frontend| &*frontend.name);
        assert!(frontends.eq(names));
        assert!(config.backends[0].servers.iter().map(|server| server.name.as_str()).eq(names));
        let span = config.backends[0].servers[1].span;
        assert_eq!(span, Span { line: 10, column: 1 });
    }

    #[test]
    fn ten_thousand_servers_are_read_and_one_more_is_refused() {
        let servers = |count| {
            let mut text = "[frontend.f]\nbind = [\"127.0.0.1:1\"]\nbackend = \"b\"\n".to_owned();
            for number in 0..count {
                let server = format!("name = \"s{number}\"\naddress = \"h{number}:80\"\n");
                text.push_str("[[backend.b.server]]\n");
                text.push_str(&server);
            }
            parse(&text, "x")
        };
        assert_eq!(servers(10_000).unwrap().backends[0].servers.len(), 10_000);
        let problems = servers(10_001).unwrap_err().to_string();
        assert!(problems.contains("more than 10000 servers"), "{problems}");
    }

    #[test]
    fn addresses_on_the_command_line_are_numbered_in_their_order() {
        let binds = ["127.0.0.1:8080".to_owned(), "[::1]:8080".to_owned()];
        let servers = ["127.0.0.1:9001".to_owned(), "Web2.lan.:9002".to_owned()];
        let config = from_arguments(&binds, &servers).unwrap();
        assert_eq!((&*config.frontends[0].name, config.frontends[0].bind.len()), ("main", 2));
        let backend = config.frontends[0].backend.as_ref();
        assert_eq!(backend.map(|(name, _)| name.as_str()), Some("servers"));
        let names = config.backends[0].servers.iter().map(|server| server.name.as_str());
        assert!(names.eq(["server1", "server2"]));
        let host = ServerAddress::Name { host: "web2.lan.".to_owned(), port: 9002 };
        assert_eq!(config.backends[0].servers[1].address, host);
        assert!(from_arguments(&[], &[]).is_err());
    }

    #[test]
    fn an_address_twice_on_the_command_line_is_an_error_without_a_line() {
        let twice = |address: &str| vec![address.to_owned(), address.to_owned()];
        let (bind, server) = ("127.0.0.1:8080", "127.0.0.1:9001");
        let error = from_arguments(&twice(bind), &twice(server)).unwrap_err().to_string();
        let servers = "server \"server2\" has the address of server \"server1\"; remove";
        assert!(error.contains(servers), "{error}");
        let binds = "127.0.0.1:8080 is already bound by frontend \"main\", as 127.0.0.1:8080;";
        assert!(error.contains(binds), "{error}");
        let error = from_arguments(&["127.0.0.1:8404".to_owned()], &[]).unwrap_err().to_string();
        assert!(error.contains("already bound by observe.bind, by default, as"), "{error}");
    }
}
