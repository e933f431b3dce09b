//! Reads a configuration as written, and makes a [`Config`] of it or says every problem at once.
//!
//! The TOML is parsed into a tree of values that know where they stand; `sections` walks it and
//! goes on after each problem, so that an operator mends a file in one round.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use toml::de::DeTable;

use crate::control::config::{Config, Observe, Place};

mod problems;
mod reader;
mod sections;
mod values;
mod whole;

pub use problems::{Problem, Problems};
pub use sections::{KEYS, Keys};

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
    let text = std::str::from_utf8(&bytes).map_err(|error| not_utf8(&name, &bytes, error))?;
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
    let (tree, errors) = tree(text);
    let document = tree.get_ref();
    for error in &errors {
        sink.syntax(error.span().map_or(0, |span| span.start), error.message());
    }
    let config = sections::document(document, &sink);
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

/// `[observe]` where nothing is written.
#[must_use]
pub fn observe_default() -> Observe {
    sections::observe_default(&Sink::new("", ""))
}

type Tree<'a> = toml::Spanned<DeTable<'a>>;

/// What could be parsed, and what could not.
fn tree(text: &str) -> (Tree<'_>, Vec<toml::de::Error>) {
    if text.len() <= SYNTAX_ERRORS_FROM_MAX {
        return DeTable::parse_recoverable(text);
    }
    match DeTable::parse(text) {
        Ok(tree) => (tree, Vec::new()),
        Err(error) => (toml::Spanned::new(0..0, DeTable::new()), vec![error]),
    }
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
        io::ErrorKind::NotFound => "name an existing file with -c FILE, or use --bind and --server",
        io::ErrorKind::PermissionDenied => "make it readable for the user that evenkeel runs as",
        _ => "see that it is an ordinary file that can be read",
    };
    format!("cannot be read ({error}); {remedy}")
}

fn not_utf8(name: &str, bytes: &[u8], error: std::str::Utf8Error) -> Problems {
    let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
    let place = Sink::new(name, valid).place(valid.len());
    let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
    Problems::one(name, place, format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"))
}
