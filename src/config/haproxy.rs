//! HAProxy keywords in a configuration of evenkeel, and what to write instead of each.

use toml::de::{DeTable, DeValue};

use super::kinds::Section;
use super::problems::Sink;

const NOT_HTTP: &str = "remove it: evenkeel does not look at requests";
const LOGGED: &str = "remove it: every session is logged";

/// Keywords with their parts joined by `_`, and what to do about each.
const KEYWORDS: &[(&str, &str)] = &[
    ("acl", "write allow, deny, sni or alpn, in a frontend: evenkeel does not look at requests"),
    ("check", "write check in [backend.NAME.health]"),
    ("chroot", "remove it: deploy/evenkeel.service isolates the process"),
    ("cookie", NOT_HTTP),
    ("daemon", "remove it: evenkeel stays in the foreground, as systemd expects"),
    ("default_backend", "write backend = \"NAME\", in a frontend"),
    ("default_server", "write it in each [[backend.NAME.server]], or in [backend.NAME.health]"),
    ("defaults", "write what differs from the defaults in each frontend and backend"),
    ("disabled", "write state = \"maint\", in a server"),
    ("errorfile", "remove it: if no server is available, the client is reset"),
    ("http_check", "write a [backend.NAME.health.http]"),
    ("http_request", NOT_HTTP),
    ("http_response", NOT_HTTP),
    ("inter", "write interval, in [backend.NAME.health]"),
    ("listen", "write a [frontend.NAME] and a [backend.NAME]"),
    ("maxconn", "write sessions_max, in [global], a frontend or a server"),
    ("maxqueue", "write queue_max, in a backend"),
    ("mode", "remove it: everything is TCP"),
    ("nbthread", "write workers, in [global]"),
    ("option", "write a key of its own; evenkeel.example.toml shows every key"),
    ("option_dontlognull", "write empty = false, in [observe.log]"),
    (
        "option_forwardfor",
        "write send_proxy = \"v2\", in a backend, for servers that read the PROXY protocol",
    ),
    ("option_httpchk", "write check = \"http\", in [backend.NAME.health]"),
    ("option_httplog", LOGGED),
    ("option_tcp_check", "write check = \"tcp\" or \"exchange\", in [backend.NAME.health]"),
    ("option_tcplog", LOGGED),
    ("send_proxy_v2", "write send_proxy = \"v2\", in a backend"),
    ("send_proxy", "write send_proxy = \"v1\", in a backend"),
    ("slowstart", "write slow_start = \"30s\", in a backend"),
    (
        "ssl",
        "remove it: evenkeel forwards TLS as it is; for probes with TLS write tls, in \
         [backend.NAME.health]",
    ),
    ("stats", "write bind, in [observe]"),
    ("stats_socket", "write control, in [observe]"),
    ("stick", "write balance = \"source\", in a backend"),
    ("stick_table", "write balance = \"source\", in a backend"),
    ("tcp_check", "write exchange, in [backend.NAME.health]"),
    ("timeout", "write idle_timeout, in a frontend, or connect_timeout, in a backend"),
    ("timeout_check", "write timeout = \"2s\", in [backend.NAME.health]"),
    ("timeout_client", "write idle_timeout = \"30s\", in a frontend"),
    ("timeout_client_fin", "write half_closed_timeout = \"30s\", in a frontend"),
    ("timeout_connect", "write connect_timeout = \"5s\", in a backend"),
    ("timeout_queue", "write queue_timeout = \"5s\", in a backend"),
    ("timeout_server", "write idle_timeout = \"30s\", in a frontend"),
    ("timeout_tunnel", "write idle_timeout = \"1h\", in a frontend"),
    (
        "use_backend",
        "write backend = \"NAME\", in a frontend, or sni and alpn for a choice by ClientHello",
    ),
];

/// What to do about a keyword, however its parts are joined; none: it is not one.
fn instead_of(keyword: &str) -> Option<&'static str> {
    let keyword = keyword.replace(['-', '.', ' '], "_");
    KEYWORDS.iter().find(|(theirs, _)| *theirs == keyword).map(|(_, remedy)| *remedy)
}

/// What to do about a key that evenkeel does not have; none: HAProxy does not have it either. The
/// value of `timeout.client = "30s"` is a table.
pub(super) fn keyword(name: &str, value: &DeValue<'_>) -> Option<&'static str> {
    if let ("check", DeValue::Boolean(wanted)) = (name, value) {
        return Some(if *wanted {
            "remove it: servers are probed unless [backend.NAME.health] sets check = \"off\""
        } else {
            "write check = \"off\" in [backend.NAME.health], for all servers of the backend"
        });
    }
    let below = value.as_table().and_then(|table| table.keys().next());
    let joined = below.and_then(|below| instead_of(&format!("{name}_{}", below.get_ref())));
    joined.or_else(|| instead_of(name))
}

/// Whether a keyword stands for a key that is required.
pub(super) fn means(keyword: &str, key: &str) -> bool {
    key == "backend" && matches!(keyword, "default_backend" | "use_backend" | "use-backend")
}

/// Reports a `[defaults]` section, and what to do about each key in it.
pub(super) fn defaults(
    root: &'static Section,
    offset: usize,
    table: &DeTable<'_>,
    sink: &Sink<'_>,
) {
    if table.is_empty() {
        sink.push(offset, "evenkeel has no [defaults] section; every key has a default");
    }
    for (key, value) in table {
        let name: &str = key.get_ref();
        let sections = root.all();
        let homes = sections.iter().skip(1).filter(|section| section.key(name).is_some());
        let homes: Vec<String> = homes.map(|section| format!("[{}]", section.path)).collect();
        let remedy = match keyword(name, value.get_ref()) {
            Some(remedy) => remedy.to_owned(),
            None if homes.is_empty() => "remove it".to_owned(),
            None => format!("write {name} in {}", homes.join(" or ")),
        };
        let place = key.span().start;
        sink.push(
            place,
            format!("evenkeel has no [defaults] section, so no {name} in it; {remedy}"),
        );
    }
}

/// What to do about a line of an HAProxy configuration; none: it is not one.
pub(super) fn line(root: &'static Section, line: &str) -> Option<String> {
    let line = line.split('#').next()?.trim();
    if let Some(header) = line.strip_prefix('[') {
        let (kind, name) = header.trim_end_matches(']').trim().split_once(' ')?;
        let is_section = matches!(kind, "frontend" | "backend") && !name.contains([' ', '"']);
        return is_section.then(|| format!("write [{kind}.{name}]"));
    }
    let mut words = line.split_whitespace();
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    if second.is_empty() || second.starts_with(['=', '"']) {
        let (key, has_value) = first.split_once('=').map_or((first, false), |(key, _)| (key, true));
        return match key {
            "global" if line == "global" => Some("write [global]".to_owned()),
            "defaults" | "daemon" => instead_of(key).map(str::to_owned),
            _ if is_key(root, key) || !(has_value || second.starts_with('=')) => None,
            _ => instead_of(key).map(str::to_owned),
        };
    }
    let remedy = match (first, second) {
        ("frontend" | "backend", name) => return Some(format!("write [{first}.{name}]")),
        ("balance", "roundrobin") => "write balance = \"roundrobin\"",
        ("balance", "leastconn") => "write balance = \"leastconn\"",
        ("balance", "source") => "write balance = \"source\"",
        ("balance", "first") => "write balance = \"first\"",
        ("balance", _) => {
            "write balance = \"roundrobin\", \"leastconn\", \"random\", \"source\" or \"first\""
        }
        ("bind", _) => "write bind = [\"0.0.0.0:PORT\", \"[::]:PORT\"]",
        ("log", _) => "remove it: records go to standard output, in the format of [observe.log]",
        ("server", _) => {
            "write [[backend.NAME.server]], and below it name and address; it is probed unless \
             [backend.NAME.health] sets check = \"off\""
        }
        _ => {
            let third = words.next().unwrap_or_default();
            let joined = [format!("{first}_{second}_{third}"), format!("{first}_{second}")];
            let remedy = joined.iter().find_map(|keyword| instead_of(keyword));
            match remedy.or_else(|| instead_of(first)) {
                Some(remedy) => remedy,
                None if is_key(root, first) && !line.contains('=') => "write it as KEY = VALUE",
                None => return None,
            }
        }
    };
    Some(remedy.to_owned())
}

fn is_key(root: &'static Section, word: &str) -> bool {
    let sections = root.all();
    sections.iter().skip(1).any(|section| section.key(word).is_some())
}
