//! The data types of a declaration: sections, their keys, and the types that a key can have.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeTable;

use super::addresses::{self, ServerAddress};
use super::bind_address::BindAddress;
use super::bytes::bytes;
use super::enums::Words;
use super::networks::Networks;
use super::problems::{Sink, Span, meant};
use super::sources::{self, Sources};
use super::values::{self, Parsed};

/// A section: a table of the configuration.
#[derive(Debug)]
pub struct Section {
    /// As its header, with NAME for what the user chooses: "frontend.NAME".
    pub path: &'static str,
    /// What it is for: lines of text.
    pub text: &'static [&'static str],
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name in its section.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// What an absent key means.
    pub presence: Presence,
    /// The default, or an example where there is none, as TOML.
    pub literal: &'static str,
    /// What it sets: lines of text.
    pub text: &'static [&'static str],
}

/// What an absent key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// An error.
    Required,
    /// An error, unless `sni` or `alpn` has a route.
    RequiredUnlessRouted,
    /// Not set.
    Optional,
    /// The default.
    Default,
}

/// The type of a key, with its range.
#[derive(Debug)]
pub enum Kind {
    /// true or false
    Flag,
    /// A whole number: smallest, largest.
    Number(u32, u32),
    /// A duration with its unit ("5m"): shortest, longest.
    Time(Duration, Duration),
    /// A number of bytes with its unit ("16MiB"): smallest, largest.
    Size(u64, u64),
    /// One of a few words.
    Words(&'static Words),
    /// A string of some syntax.
    Text(&'static Format),
    /// An array, not empty.
    List(&'static Self),
    /// An array of networks, which may be empty, or a file with them.
    Networks,
    /// An array of addresses to connect from, or "client".
    Sources,
    /// A table of names of this syntax, each with the name of a backend.
    Routes(&'static Format),
    /// A type, or a word that stands for "no value".
    Or(&'static Self, Alternative),
    /// A table.
    Table(&'static Section),
    /// A table of tables, each with a name that the user chooses.
    Named(&'static Section),
    /// An array of tables, not empty.
    Tables(&'static Section),
    /// A table, or an array of them, not empty.
    OneOrMore(&'static Section),
}

/// The syntax of a string.
#[derive(Debug)]
pub struct Format {
    /// What it is, for the reference: "IP address and port".
    pub name: &'static str,
    /// What to write, for an error: "a path in quotes".
    pub hint: &'static str,
    /// A regular expression that its values match, for the JSON schema.
    pub(super) pattern: Option<&'static str>,
    /// Checks it; the error is "what is wrong; what to do".
    pub(super) parse: fn(&str) -> Parsed<Value<'static>>,
}

/// What a key accepts instead of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alternative {
    /// The string "auto".
    Auto,
    /// The string "off".
    Off,
    /// The boolean false.
    False,
}

impl Alternative {
    /// As TOML and JSON.
    #[must_use]
    pub const fn literal(self) -> &'static str {
        match self {
            Self::Auto => "\"auto\"",
            Self::Off => "\"off\"",
            Self::False => "false",
        }
    }
}

macro_rules! formats {
    ($($name:ident = $what:literal, $hint:literal, $(matches $pattern:literal,)?
       |$it:ident| $value:expr;)*) => {$(
        pub(super) static $name: Format = Format { name: $what, hint: $hint,
            pattern: [$(Some($pattern),)? None][0], parse: |$it| $value };
    )*};
}

formats! {
    NAME = "name", "a name in quotes", |it| text(it, values::name(it));
    REFERENCE = "name of a backend", "the name of a backend in quotes", |it| text(it, Ok(()));
    ACCOUNT = "name", "a name in quotes", |it| text(it, values::account(it));
    SOCKET_PATH = "absolute path", "a path in quotes, such as \"/run/evenkeel/control.sock\"",
        |it| text(it, values::socket_path(it, "/run/evenkeel/control.sock"));
    BIND = "IP address and port or range of ports, or unix:PATH",
        "an address in quotes, such as \"0.0.0.0:80\"",
        |it| addresses::bind(it).map(Value::Bind);
    OBSERVE = "IP address and port", "an address in quotes, such as \"0.0.0.0:80\"",
        |it| addresses::observe(it).map(Value::Address);
    SERVER = "host or IP address, with or without a port, or unix:PATH",
        "host and port in quotes, such as \"web1.lan:80\"",
        |it| addresses::server(it).map(Value::Server);
    DNS_SERVER = "IP address, with or without port",
        "an IP address in quotes, such as \"192.0.2.53\"",
        |it| addresses::dns_server(it).map(Value::Address);
    SRV = "DNS SRV name", "an SRV name in quotes, such as \"_http._tcp.web.example\"",
        |it| addresses::srv_name(it).map(Value::Text);
    SERVER_NAME = "server name", "a server name in quotes, such as \"www.example.org\"",
        |it| values::server_name(it).map(Value::Text);
    PROTOCOL = "protocol", "a protocol in quotes, such as \"h2\"",
        |it| values::protocol(it).map(Value::Text);
    HTTP_METHOD = "HTTP method", "a method in quotes, such as \"GET\"",
        |it| text(it, values::http_method(it));
    HTTP_PATH = "path", "a path in quotes, such as \"/health\"",
        |it| text(it, values::http_path(it));
    HTTP_HOST = "Host header", "a host in quotes, such as \"www.example.org\"",
        |it| text(it, values::http_host(it));
    BYTES = "bytes, with escapes such as \\r, \\n and \\x00",
        "bytes in quotes, such as \"PING\\r\\n\"",
        |it| bytes(it).map(Value::Bytes);
    TLS_NAME = "host name or IP address", "a host name in quotes, such as \"www.example.org\"",
        |it| addresses::tls_name(it).map(Value::Text);
    RATE = "number and period", "a rate in quotes, such as \"1000/s\"",
        matches "^[0-9]+/(s|m|h|[0-9]+(ms|s|m|h|d))$",
        |it| values::rate(it).map(|(count, period)| Value::Rate(count, period));
    STATUS = "range of HTTP status codes", "a range in quotes, such as \"200-399\"",
        matches "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$",
        |it| values::status_range(it).map(|(first, last)| Value::Status(first, last));
}

fn text(text: &str, checked: Parsed<()>) -> Parsed<Value<'static>> {
    checked.map(|()| Value::Text(text.to_owned()))
}

/// A value of the file that has the type of its key.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Flag(bool),
    Number(u32),
    Time(Duration),
    Size(u64),
    Word(&'a str),
    Text(String),
    Bytes(Box<[u8]>),
    Address(SocketAddr),
    Bind(BindAddress),
    Server(ServerAddress),
    Status(u16, u16),
    List(Vec<(Self, Span)>),
    Networks(Networks),
    Sources(Sources),
    /// A name and its backend.
    Route(String, String),
    Rate(u32, Duration),
    Alternative,
    Table(Table<'a>),
}

/// A table of the file, or one that is not written and has only defaults.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) section: &'static Section,
    pub(super) written: Option<Written<'a>>,
}

/// Where a table is written.
#[derive(Debug)]
pub(super) struct Written<'a> {
    /// The section of the whole document.
    pub(super) root: &'static Section,
    pub(super) sink: &'a Sink<'a>,
    pub(super) table: &'a DeTable<'a>,
    /// As its header, without brackets: "frontend.http".
    pub(super) path: String,
    /// The last part of the path, as the user means it.
    pub(super) name: &'a str,
    pub(super) offset: usize,
}

impl Section {
    /// The key of that name, if this version has it.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// This section and every section below it, in the order of the documentation.
    #[must_use]
    pub fn all(&'static self) -> Vec<&'static Self> {
        let below = self.keys.iter().filter_map(Key::section);
        std::iter::once(self).chain(below.flat_map(Self::all)).collect()
    }
}

impl Key {
    /// Keys of the same section, each of which makes this required one optional.
    #[must_use]
    pub const fn alternatives(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Tables(_) => &["srv"],
            _ => &[],
        }
    }

    /// The section that it stands for, if it is no single value.
    #[must_use]
    pub const fn section(&self) -> Option<&'static Section> {
        match self.kind {
            Kind::Table(section)
            | Kind::Named(section)
            | Kind::Tables(section)
            | Kind::OneOrMore(section) => Some(section),
            _ => None,
        }
    }
}

impl Kind {
    /// The TOML type that is expected, with its article.
    pub(super) const fn toml_type(&self) -> &'static str {
        match self {
            Self::Flag => "a boolean",
            Self::Number(..) => "an integer",
            Self::Time(..) | Self::Size(..) | Self::Words(_) | Self::Text(_) => "a string",
            Self::List(_) | Self::Networks | Self::Sources => "an array",
            Self::Or(inner, _) => inner.toml_type(),
            Self::Table(_) | Self::Named(_) | Self::Routes(_) | Self::OneOrMore(_) => "a table",
            Self::Tables(_) => "an array of tables",
        }
    }

    /// What to write, for an error; none for tables, which depend on where they are.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Number(least, most) => format!("{least} to {most}, without quotes"),
            Self::Time(..) => "a duration in quotes, such as \"5s\"".to_owned(),
            Self::Size(..) => "a size in quotes, such as \"16MiB\"".to_owned(),
            Self::Words(words) => list(words.known),
            Self::Text(format) => format.hint.to_owned(),
            Self::Or(inner, other) => format!("{}, or {}", inner.hint(), other.literal()),
            Self::List(inner) => format!("an array of these: {}", inner.hint()),
            Self::Networks => "[\"192.0.2.0/24\"], or { file = \"PATH\" }".to_owned(),
            Self::Sources => sources::HINT.to_owned(),
            Self::Routes(_) => "{ NAME = \"BACKEND\" }".to_owned(),
            Self::Table(_) | Self::Named(_) | Self::Tables(_) | Self::OneOrMore(_) => String::new(),
        }
    }

    /// Whether a string is one of its values.
    pub(super) const fn is_string(&self) -> bool {
        matches!(self, Self::Time(..) | Self::Size(..) | Self::Words(_) | Self::Text(_))
    }

    /// The value that a string stands for.
    ///
    /// # Errors
    /// "what is wrong; what to do"
    pub(super) fn of_string<'a>(&self, text: &'a str) -> Parsed<Value<'a>> {
        match self {
            Self::Time(shortest, longest) => {
                values::duration(text, &(*shortest..=*longest)).map(Value::Time)
            }
            Self::Size(least, most) => values::size(text, &(*least..=*most)).map(Value::Size),
            Self::Words(words) => word(text, words).map(|()| Value::Word(text)),
            Self::Text(format) => (format.parse)(text),
            _ => Err(format!("not {}; write {}", self.toml_type(), self.hint())),
        }
    }

    /// The value of a default, which is declared as TOML.
    pub(super) fn of_literal(&self, literal: &'static str) -> Option<Value<'static>> {
        match self {
            Self::Or(_, other) if other.literal() == literal => Some(Value::Alternative),
            Self::Or(inner, _) => inner.of_literal(literal),
            Self::Flag => literal.parse().ok().map(Value::Flag),
            Self::Number(..) => literal.parse().ok().map(Value::Number),
            Self::Networks => Some(Value::Networks(Networks::default())),
            Self::Sources => Some(Value::Sources(Sources::default())),
            Self::Routes(_) => Some(Value::List(Vec::new())),
            _ => self.of_string(literal.trim_matches('"')).ok(),
        }
    }
}

fn word(text: &str, words: &Words) -> Parsed<()> {
    if words.known.contains(&text) {
        return Ok(());
    }
    let remedy = format!("write {}", list(words.known));
    Err(match meant(text, words.known) {
        Some(near) => format!("unknown value; did you mean {near:?}?"),
        None => format!("unknown value; {remedy}"),
    })
}

/// `"tcp", "http" or "off"`
fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
