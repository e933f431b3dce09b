//! The declaration of the configuration keys, and the checked configuration, with every default
//! filled in: here those of the process, in `frontend_settings`, `backend_settings` and
//! `health_settings` the others.
//!
//! These files alone list keys: the parser, the suggestion for a misspelled key, the example file,
//! the reference and the JSON schema come from them (`declare::section!`).

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::backend_settings::BackendSettings;
use super::declare::{Setting, section};
use super::enums::LogFormat;
use super::frontend_settings::FrontendSettings;
use super::kinds::{
    ACCOUNT, Alternative, DNS_SERVER, Key, Kind, OBSERVE, Presence, SOCKET_PATH, Section, Table,
    Value,
};
use super::problems::Span;
use super::ranges::{SESSIONS, TIME_MAX};

/// More than the cores of any machine that evenkeel is meant for.
const WORKERS: Kind = Kind::Number(1, 256);
/// From four buffers of 16 KiB to the largest number of buffers: a buffer id has 16 bits.
const BUFFERS: Kind = Kind::Size(64 << 10, 1 << 30);

section! {
    /// The configuration of evenkeel. Durations have a unit: "500ms", "30s", "5m", "1h", "1d".
    /// Sizes have one too: "64KiB", "16MiB", "1GiB". `evenkeel check -c FILE` reports every problem
    /// of a file, and `evenkeel reload` applies a changed file to a running balancer.
    "" => Config {
        /// The process.
        global: Global = Default(Kind::Table(Global::SECTION), "");
        /// Metrics, status page, control socket and logs.
        observe: Observe = Default(Kind::Table(Observe::SECTION), "");
        /// In the order of the file; never empty.
        frontends as "frontend": Vec<Arc<FrontendSettings>> =
            Required(Kind::Named(FrontendSettings::SECTION), "");
        /// In the order of the file; the backend of each frontend is one of them.
        backends as "backend": Vec<Arc<BackendSettings>> =
            Default(Kind::Named(BackendSettings::SECTION), "");
    }
    with |_table| {
        /// The file; none: the configuration comes from `run --bind --server`.
        file: Option<PathBuf> = None;
        /// Its text.
        text: Arc<str> = Arc::default();
    }
}

section! {
    /// The process. A reload applies `drain_delay`, `drain_timeout` and `resolver`. A change of any
    /// other key takes effect after a restart or `evenkeel upgrade`. An upgrade cannot turn
    /// `landlock` or `seccomp` off, or leave `user` for another one.
    "global" => Global {
        /// Worker threads. "auto": one for each core that this process may use.
        workers: Option<NonZeroU32> = Default(Kind::Or(&WORKERS, Alternative::Auto), r#""auto""#);
        /// Pin each worker thread to one core: worker n to the nth core that this process may use.
        pin: bool = Default(Kind::Flag, "false");
        /// Maximum number of sessions of all frontends together. "auto": as many as the limit of
        /// file descriptors allows, at most 1,048,576. At the limit, new connections wait in the
        /// kernel's backlog.
        sessions_max: Option<(NonZeroU32, Span)> =
            Default(Kind::Or(&SESSIONS, Alternative::Auto), r#""auto""#);
        /// Memory of each worker for bytes that it has received and not yet sent, in buffers and
        /// pipes: a hard limit. "auto": 16 KiB for each session of `sessions_max`, at least 8 MiB,
        /// and 32 MiB of pipes, but for all workers together at most a quarter of the memory of the
        /// machine or cgroup.
        buffers: Option<u64> = Default(Kind::Or(&BUFFERS, Alternative::Auto), r#""auto""#);
        /// How long SIGTERM keeps accepting clients while /readyz already answers 503, so that a
        /// balancer in front takes this one out. Then the drain begins.
        drain_delay: Duration = Default(Kind::Time(Duration::ZERO, TIME_MAX), r#""0s""#);
        /// How long sessions may continue after SIGTERM. At its end, evenkeel closes those that are
        /// still open.
        drain_timeout: Duration = Default(Kind::Time(Duration::ZERO, TIME_MAX), r#""30s""#);
        /// User to switch to after binding, if started as root.
        user: Option<(String, Span)> = Optional(Kind::Text(&ACCOUNT), r#""evenkeel""#);
        /// Group to switch to. Not set: the group of `user`.
        group: Option<(String, Span)> = Optional(Kind::Text(&ACCOUNT), r#""evenkeel""#);
        /// Confine the process with Landlock, if the kernel has it: every file can be read, but
        /// none written, created or removed, except unix sockets in the directories that
        /// `observe.control` and `bind` name at the start, and only programs in the directory of
        /// evenkeel can be executed.
        landlock: bool = Default(Kind::Flag, "true");
        /// Confine the process with a seccomp filter, if the kernel has it: system calls that
        /// evenkeel does not make fail.
        seccomp: bool = Default(Kind::Flag, "true");
        /// DNS servers, instead of those of /etc/resolv.conf; port 53 if none is written. The
        /// search list and the options of that file still apply. If one fails, the next is asked.
        resolver: (Vec<SocketAddr>, Span) =
            Optional(Kind::List(&Kind::Text(&DNS_SERVER)), r#"["192.0.2.53"]"#);
    }
}

section! {
    /// Metrics, status page and control socket. A change of any key takes effect after a restart or
    /// `evenkeel upgrade`.
    "observe" => Observe {
        /// Address of /metrics, /healthz, /readyz and the status page; false turns them off.
        bind: Option<(SocketAddr, Span)> =
            Default(Kind::Or(&Kind::Text(&OBSERVE), Alternative::False), r#""127.0.0.1:8404""#);
        /// Absolute path of the control socket (mode 0600), which `evenkeel status`, `evenkeel
        /// drain` and similar commands connect to; false turns it off.
        control: Option<(PathBuf, Span)> =
            Default(
                Kind::Or(&Kind::Text(&SOCKET_PATH), Alternative::False),
                r#""/run/evenkeel/control.sock""#
            );
        /// The logs.
        log: Log = Default(Kind::Table(Log::SECTION), "");
    }
}

section! {
    /// The application log (standard error) and the session log (standard output).
    "observe.log" => Log {
        /// Format of both logs.
        format: LogFormat = Default(Kind::Words(LogFormat::WORDS), r#""text""#);
        /// Write one record for each session.
        sessions: bool = Default(Kind::Flag, "true");
        /// Also log sessions without a byte that no server or limit ended, such as the probes of a
        /// balancer in front.
        empty: bool = Default(Kind::Flag, "true");
    }
}

impl Config {
    /// `FILE:LINE:COLUMN: `, the beginning of a message; `evenkeel: ` for what comes from the
    /// command line.
    #[must_use]
    pub fn locate(&self, span: Span) -> String {
        match (&self.file, span) {
            (None, _) => "evenkeel: ".to_owned(),
            (Some(file), Span { line: 0, .. }) => format!("{}: ", file.display()),
            (Some(file), Span { line, column }) => format!("{}:{line}:{column}: ", file.display()),
        }
    }
}
