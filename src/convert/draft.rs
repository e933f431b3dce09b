//! The configuration that is going to be written, before and after the rules of `finish`.

use super::report::Place;

/// Lines of the input that a section comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Origin {
    /// The line that begins it.
    pub(super) first: Place,
    /// The number of its last line.
    pub(super) last: usize,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Keys of `[global]`, `[observe]` and `[observe.log]`.
    pub(super) settings: Vec<Setting>,
    pub(super) frontends: Vec<Frontend>,
    pub(super) backends: Vec<Backend>,
}

/// A key of a table that exists once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    /// As TOML.
    pub(super) value: String,
}

/// A key and its value as TOML.
pub(super) type Entry = (&'static str, String);

/// An address to listen on, or a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bind {
    /// "0.0.0.0", "[::]", "192.0.2.1"; or "unix:PATH".
    pub(super) host: String,
    /// First and last port; none for a path.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) place: Place,
}

impl Bind {
    /// As evenkeel writes it.
    pub(super) fn text(&self) -> String {
        match self.ports {
            None => self.host.clone(),
            Some((first, last)) if first == last => format!("{}:{first}", self.host),
            Some((first, last)) => format!("{}:{first}-{last}", self.host),
        }
    }
}

/// Why a frontend is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// It ends TLS.
    Tls,
    /// Its destinations cannot be converted.
    Unroutable,
    /// It is switched off in the input.
    Disabled,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Frontend {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) binds: Vec<Bind>,
    pub(super) backend: Option<String>,
    /// TLS server name to backend.
    pub(super) sni: Vec<(String, String)>,
    /// ALPN protocol to backend.
    pub(super) alpn: Vec<(String, String)>,
    pub(super) entries: Vec<Entry>,
    pub(super) left_out: Option<LeftOut>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) entries: Vec<Entry>,
    /// Keys of `health`.
    pub(super) health: Vec<Entry>,
    pub(super) servers: Vec<Server>,
}

impl Backend {
    /// Whether it has nothing to connect to.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty() && !self.entries.iter().any(|(key, _)| *key == "srv")
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    pub(super) name: String,
    /// As evenkeel writes it; or why evenkeel cannot have it.
    pub(super) address: Address,
    pub(super) weight: Option<u32>,
    pub(super) is_backup: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) place: Place,
}

impl Server {
    /// Whether it is switched off.
    pub(super) fn is_out(&self) -> bool {
        self.entries.iter().any(|(key, _)| *key == "state")
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A host and a port.
    Port(String, u16),
    /// A host alone: the port is the one that the client connected to.
    ClientPort(String),
    /// `unix:PATH`
    Path(String),
    /// It cannot be said; the letters of the input that remain, for a name that never resolves.
    Unknown(String, Option<u16>),
}

impl Default for Address {
    fn default() -> Self {
        Self::Unknown(String::new(), None)
    }
}

impl Address {
    /// As evenkeel writes it. A name under `.invalid` never resolves (RFC 6761, 6.4), so a server
    /// that cannot be converted is one that is down.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Port(host, port) => format!("{host}:{port}"),
            Self::ClientPort(host) => host.clone(),
            Self::Path(path) => format!("unix:{path}"),
            Self::Unknown(words, port) => {
                let label = label(words);
                format!("{label}.invalid:{}", port.unwrap_or(1))
            }
        }
    }

    pub(super) const fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(..))
    }
}

/// Letters and digits of a text, as a label of a host name.
fn label(words: &str) -> String {
    let parts = words.split(|c: char| !c.is_ascii_alphanumeric());
    let parts: Vec<String> =
        parts.filter(|part| !part.is_empty()).map(str::to_ascii_lowercase).collect();
    let label: String = parts.join("-").chars().take(60).collect();
    let label = label.trim_end_matches('-');
    if label.is_empty() { "unknown".to_owned() } else { label.to_owned() }
}
