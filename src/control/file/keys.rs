//! The keys of each section: those that work, and those that a later version brings.

/// The keys of one section.
#[derive(Debug)]
pub struct Keys {
    /// Its path: "frontend.NAME".
    pub section: &'static str,
    /// Keys that work, sections below it too.
    pub known: &'static [&'static str],
    /// Keys of a later version: refused, never ignored.
    pub later: &'static [&'static str],
}

pub(super) const TOP: Keys =
    Keys { section: "", known: &["global", "observe", "frontend", "backend"], later: &[] };
pub(super) const GLOBAL: Keys = Keys {
    section: "global",
    known: &["workers", "pin", "sessions_max", "buffers", "drain_timeout", "user", "group"],
    later: &[],
};
pub(super) const OBSERVE: Keys =
    Keys { section: "observe", known: &["bind", "control", "log"], later: &[] };
pub(super) const LOG: Keys =
    Keys { section: "observe.log", known: &["format", "sessions"], later: &[] };
pub(super) const FRONTEND: Keys = Keys {
    section: "frontend.NAME",
    known: &["bind", "backend", "sessions_max", "idle_timeout", "half_closed_timeout", "backlog"],
    later: &[
        "sni",
        "keepalive",
        "allow",
        "deny",
        "rate",
        "clients_max",
        "proxy_protocol",
        "proxy_protocol_from",
        "fast_open",
        "defer_accept",
    ],
};
pub(super) const BACKEND: Keys = Keys {
    section: "backend.NAME",
    known: &["balance", "connect_timeout", "retries", "all_down", "health", "server"],
    later: &[
        "queue_timeout",
        "queue_max",
        "on_down",
        "slow_start",
        "send_proxy",
        "source",
        "fast_open",
        "srv",
        "keepalive",
    ],
};
pub(super) const HEALTH: Keys = Keys {
    section: "backend.NAME.health",
    known: &["check", "interval", "interval_down", "timeout", "rise", "fall", "port", "http"],
    later: &["exchange", "errors"],
};
pub(super) const HTTP: Keys = Keys {
    section: "backend.NAME.health.http",
    known: &["method", "path", "host", "status"],
    later: &[],
};
pub(super) const SERVER: Keys = Keys {
    section: "backend.NAME.server",
    known: &["name", "address", "weight", "sessions_max", "backup", "state"],
    later: &[],
};

/// Words of HAProxy's configuration, and what to do about each here.
const OF_HAPROXY: [(&str, &str); 36] = [
    ("maxconn", "write sessions_max, in [global], a frontend or a server"),
    ("nbthread", "write workers, in [global]"),
    ("listen", "write a [frontend.NAME] and a [backend.NAME]"),
    ("default_backend", "write backend, in a frontend"),
    ("use_backend", "write backend, in a frontend; by what a request says, none is chosen"),
    ("check", "write a [backend.NAME.health]"),
    ("option_httpchk", "write check = \"http\", in [backend.NAME.health]"),
    ("option_tcplog", "remove it: each session is logged"),
    ("option_httplog", "remove it: each session is logged"),
    ("option_dontlognull", "remove it: each session is logged"),
    ("option_forwardfor", "remove it: no byte of a request is looked at or changed"),
    ("http_request", "remove it: no byte of a request is looked at or changed"),
    ("http_response", "remove it: no byte of an answer is looked at or changed"),
    ("http_check", "write a [backend.NAME.health.http]"),
    ("cookie", "remove it: no byte of a request is looked at or changed"),
    ("stick_table", "remove it: connections go to servers in turn"),
    ("stick", "remove it: connections go to servers in turn"),
    ("errorfile", "remove it: whom no server can serve is reset"),
    ("chroot", "remove it: deploy/evenkeel.service fences the process in"),
    ("stats_socket", "write control, in [observe]"),
    ("option", "write a key of its own; evenkeel.example.toml has them all"),
    ("inter", "write interval, in [backend.NAME.health]"),
    ("timeout", "write idle_timeout, in a frontend, or connect_timeout, in a backend"),
    ("timeout_client", "write idle_timeout = \"30s\", in a frontend"),
    ("timeout_server", "write idle_timeout = \"30s\", in a frontend"),
    ("timeout_connect", "write connect_timeout = \"5s\", in a backend"),
    ("timeout_check", "write timeout = \"2s\", in [backend.NAME.health]"),
    ("stats", "write bind, in [observe]"),
    ("mode", "remove it: everything is TCP"),
    ("daemon", "remove it: evenkeel stays in the foreground, as systemd wants it"),
    ("default_server", "write it below each [[backend.NAME.server]], or in [backend.NAME.health]"),
    ("defaults", "write what differs from the defaults in each frontend and backend"),
    ("slowstart", "remove it: slow_start, of a backend, is not supported yet"),
    ("maxqueue", "remove it: queue_max, of a backend, is not supported yet"),
    ("timeout_queue", "remove it: queue_timeout, of a backend, is not supported yet"),
    ("acl", "write another frontend for another backend: no byte of a request is looked at"),
];

/// What to do about a word of HAProxy's: for the message; none for one that is not HAProxy's.
pub(super) fn instead_of(word: &str) -> Option<&'static str> {
    let word = plain(word);
    OF_HAPROXY.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours)
}

/// Whether it is a key of some section.
pub(super) fn is_key(word: &str) -> bool {
    KEYS.iter().any(|keys| !keys.section.is_empty() && keys.known.contains(&word))
}

/// Whether a word of HAProxy's stands for `key`, one that must be written: then it is not missing
/// as well.
pub(super) fn stands_for(word: &str, key: &str) -> bool {
    key == "backend" && ["default_backend", "use_backend"].contains(&&*plain(word))
}

/// A word of HAProxy's, however its parts are joined.
fn plain(word: &str) -> String {
    word.replace(['-', '.', ' '], "_")
}

/// What to do with a key that is one of other sections: for the message; none if it is nowhere.
pub(super) fn elsewhere(key: &str) -> Option<String> {
    let homes = |of: fn(&Keys) -> &'static [&'static str]| {
        let homes = KEYS.iter().filter(|keys| !keys.section.is_empty() && of(keys).contains(&key));
        homes.map(|keys| format!("[{}]", keys.section)).collect::<Vec<_>>()
    };
    let (known, later) = (homes(|keys| keys.known), homes(|keys| keys.later));
    if !known.is_empty() {
        return Some(format!("it is a key of {}", known.join(" or ")));
    }
    let remedy = || format!("{} will have it and does not yet; remove it", later.join(" or "));
    (!later.is_empty()).then(remedy)
}

/// Every section, in the order of the documentation.
pub const KEYS: [&Keys; 9] =
    [&TOP, &GLOBAL, &OBSERVE, &LOG, &FRONTEND, &BACKEND, &HEALTH, &HTTP, &SERVER];
