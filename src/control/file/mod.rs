//! Reads a configuration as written, and makes a [`Config`] of it or says every problem at once.
//!
//! The TOML is parsed into a tree of values that know where they stand; `sections` walks it and
//! goes on after each problem, so that an operator mends a file in one round.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use toml::de::DeTable;

use crate::control::config::{Config, Observe, Place};

mod keys;
mod mend;
mod problems;
mod reader;
mod sections;
mod values;
mod whole;
mod words;

pub use keys::{KEYS, Keys};
pub use problems::{Problem, Problems};

use problems::Sink;

/// The largest file that is read. Ten thousand servers need about 1 MiB; what is larger is not a
/// configuration, and the parser takes 70 times its size before it can say so.
pub const FILE_MAX: u64 = 2 * 1024 * 1024;

/// Above this, a file that is no TOML is answered with its first error alone: a megabyte of
/// something else has a million of them.
const SYNTAX_ERRORS_FROM_MAX: usize = 256 * 1024;

/// Reads and checks the file at `path`.
///
/// # Errors
/// The file cannot be read, or every problem that it has.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|problem| Problems::one(&name, Place::default(), problem))?;
    let text = text_of(&bytes).map_err(|valid| no_text(&name, &bytes, valid))?;
    let mut config = parse(text, &name)?;
    config.file = Some(path.to_owned());
    Ok(config)
}

/// Checks the `text` of a configuration; problems call it `name`.
///
/// # Errors
/// Every problem that it has.
pub fn parse(text: &str, name: &str) -> Result<Config, Problems> {
    // A byte order mark, as some editors leave; it is no part of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let sink = Sink::new(name, text);
    let config = with_tree(text, |tree, errors| {
        for error in errors {
            sink.syntax(error.offset, &error.message);
        }
        sections::document(tree, &sink)
    });
    whole::check(&config, &sink);
    sink.finish().map(|()| config)
}

/// The configuration of `run --bind A --server B`: frontend "main", backend "servers", servers
/// "server1" and so on, in the order given; everything else has its default.
///
/// # Errors
/// Every problem that the arguments have.
pub fn from_arguments(binds: &[String], servers: &[String]) -> Result<Config, Problems> {
    let sink = Sink::new("", "");
    let config = sections::arguments(binds, servers, &sink);
    whole::check(&config, &sink);
    sink.finish().map(|()| config)
}

/// `observe.control` of the file at `path`, whatever else is wrong with it: a running balancer can
/// be asked while its file is bad. The default where the file names none that could be; none: it is
/// off.
///
/// # Errors
/// The file cannot be read.
pub fn control_socket(path: &Path) -> Result<Option<PathBuf>, Problems> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|problem| Problems::one(&name, Place::default(), problem))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(with_tree(text, |tree, _| sections::control_socket(tree, &Sink::new("", text))))
}

/// `[observe]` where nothing is written.
#[must_use]
pub fn observe_default() -> Observe {
    sections::observe_default(&Sink::new("", ""))
}

/// Has somebody look at what of `text` is TOML, and where it is not; of a large one that is none,
/// there is nothing to look at.
fn with_tree<T>(text: &str, look: impl FnOnce(&DeTable<'_>, &[mend::Error]) -> T) -> T {
    let error = match DeTable::parse(text) {
        Ok(tree) => return look(tree.get_ref(), &[]),
        Err(error) => error,
    };
    let (mended, errors) = if text.len() <= SYNTAX_ERRORS_FROM_MAX {
        mend::mend(text)
    } else {
        (String::new(), vec![mend::Error::from(&error)])
    };
    let (tree, _) = DeTable::parse_recoverable(&mended);
    look(tree.get_ref(), &errors)
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
    // One byte more than allowed tells a file that is too long, also one that grows meanwhile.
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(&error))?;
    if bytes.len() as u64 > FILE_MAX {
        let mebibytes = FILE_MAX / 1024 / 1024;
        return Err(format!("is longer than {mebibytes} MiB; is it the right file?"));
    }
    Ok(bytes)
}

/// Opens without waiting, which a FIFO without a writer would make us do for ever.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn cannot_read(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => {
            "name an existing file with -c FILE, or `run` without one by --bind and --server"
        }
        io::ErrorKind::PermissionDenied => "make it readable for the user that evenkeel runs as",
        _ => "see that it is an ordinary file that can be read",
    };
    format!("cannot be read ({error}); {remedy}")
}

/// UTF-8 without a NUL, or the length of what is.
fn text_of(bytes: &[u8]) -> Result<&str, usize> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.valid_up_to())?;
    text.find('\0').map_or(Ok(text), Err)
}

fn no_text(name: &str, bytes: &[u8], valid: usize) -> Problems {
    let text = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
    let place = Sink::new(name, text).place(text.len());
    let byte = bytes.get(valid).copied().unwrap_or_default();
    Problems::one(name, place, format!("byte 0x{byte:02x} is no text; save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::ServerAddress;

    /// A document with `key = value` in one section, whatever that section is.
    fn document(section: &str, key: &str, value: &str) -> String {
        let header = section.replace("NAME", "x");
        match section {
            "" => format!("{key} = {value}\n"),
            "backend.NAME.server" => format!("[[{header}]]\n{key} = {value}\n"),
            _ => format!("[{header}]\n{key} = {value}\n"),
        }
    }

    #[test]
    fn every_known_key_is_read() {
        for keys in KEYS {
            for key in keys.known {
                // No key takes a date: what is silent about one has not looked.
                let text = document(keys.section, key, "1979-05-27");
                let problems = parse(&text, "x").unwrap_err().to_string();
                let complains = |line: &str| line.contains(&format!("{key} = 1979-05-27: a date"));
                assert!(problems.lines().any(complains), "{text}{problems}");
            }
        }
    }

    #[test]
    fn every_later_key_is_refused_whatever_its_value() {
        for keys in KEYS {
            for key in keys.later {
                let text = document(keys.section, key, "false");
                let problems = parse(&text, "x").unwrap_err().to_string();
                let refuses = |line: &str| line.contains("is not supported yet; remove it");
                assert!(problems.lines().any(refuses), "{text}{problems}");
            }
        }
    }

    #[test]
    fn a_file_that_breaks_off_anywhere_is_refused_or_read_and_never_a_panic() {
        let whole = include_str!("../../../tests/config/valid/every-form.toml");
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
            control_socket(&path).unwrap().map(|path| path.display().to_string())
        };
        let default = observe_default().control.map(|(path, _)| path.display().to_string());
        let own = Some("/x".to_owned());
        assert_eq!(found(b"[observe]\ncontrol = \"/x\"\nbund = 1\n[frontend.f]\n"), own);
        assert_eq!(found(b"observe.control = \"/x\"\n[frontend.f\nbind = [\n"), own);
        assert_eq!(found(b"observe.control = \"/x\" # caf\xe9\n"), own);
        assert_eq!(found(b"observe.control = false\nnonsense"), None);
        assert_eq!(found(b"observe.control = 5\n"), default);
        assert_eq!(found(b"this is [ not TOML"), default);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(control_socket(&path).unwrap_err().to_string().contains("cannot be read"));
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
        let frontends = config.frontends.iter().map(|frontend| frontend.name.as_str());
        assert!(frontends.eq(names));
        assert!(config.backends[0].servers.iter().map(|server| server.name.as_str()).eq(names));
        let place = config.backends[0].servers[1].place;
        assert_eq!(place, Place { line: 10, column: 1 });
    }

    #[test]
    fn ten_thousand_servers_are_read_and_one_more_is_refused() {
        let servers = |count| {
            let mut text = "[frontend.f]\nbind = [\"127.0.0.1:1\"]\nbackend = \"b\"\n".to_owned();
            for number in 0..count {
                let server = format!("name = \"s{number}\"\naddress = \"192.0.2.1:80\"\n");
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
        assert_eq!(
            (config.frontends[0].name.as_str(), config.frontends[0].bind.len()),
            ("main", 2)
        );
        assert_eq!(config.frontends[0].backend, "servers");
        let names = config.backends[0].servers.iter().map(|server| server.name.as_str());
        assert!(names.eq(["server1", "server2"]));
        let host = ServerAddress::Name { host: "web2.lan".to_owned(), port: 9002 };
        assert_eq!(config.backends[0].servers[1].address, host);
        assert!(from_arguments(&[], &[]).is_err());
    }
}
