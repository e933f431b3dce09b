//! Variables that `proxy_pass` names: maps of the TLS server name, of ALPN, and constants.

use super::lexer::Directive;
use crate::config;
use crate::convert::haproxy::names_of_pattern;
use crate::convert::report::Report;

/// Of a name that is not ASCII, has an empty label, or is too long.
const NO_NAME: &str = "not a valid server name: such a client goes to the default backend";

/// Where a `proxy_pass` leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// For connections that match nothing; none: they are refused.
    pub(super) backend: Option<String>,
    pub(super) sni: Vec<(String, String)>,
    pub(super) alpn: Vec<(String, String)>,
}

impl Route {
    /// Whether any client can be served.
    pub(super) fn leads_somewhere(&self) -> bool {
        self.backend.is_some() || !self.sni.is_empty() || !self.alpn.is_empty()
    }

    /// Every target that it names.
    pub(super) fn targets_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let named = self.sni.iter_mut().chain(&mut self.alpn).map(|(_, target)| target);
        self.backend.iter_mut().chain(named)
    }
}

/// After a host: the port that the client connected to.
pub(super) const CLIENT_PORT: &str = ":$server_port";

/// Maps that name each other end here.
const DEPTH_MAX: usize = 5;

/// What variables stand for in a server.
#[derive(Debug)]
pub(super) struct Variables<'a> {
    /// The directives around it, and its own.
    pub(super) lines: Vec<&'a Directive>,
    /// Whether nginx reads the `ClientHello`.
    pub(super) has_preread: bool,
}

/// The route of a target; none: it cannot be converted, which is reported.
pub(super) fn route(target: &Directive, scope: &Variables<'_>, report: &Report) -> Option<Route> {
    let mut route = Route::default();
    let is_known = resolve(target.word(0), target, scope, &mut route, 0, report);
    is_known.then_some(route)
}

/// Adds a value: a target, or a variable that stands for one. False: it is unknown.
fn resolve(
    value: &str,
    user: &Directive,
    scope: &Variables<'_>,
    route: &mut Route,
    depth: usize,
    report: &Report,
) -> bool {
    if value.is_empty() {
        return true;
    }
    // A port that is the client's is one that a server of evenkeel may have.
    if !value.trim_end_matches(CLIENT_PORT).contains('$') {
        route.backend = Some(value.to_owned());
        return true;
    }
    let name = value.trim_start_matches('$').trim_start_matches('{').trim_end_matches('}');
    let is_plain = value.matches('$').count() == 1 && value.starts_with('$');
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_plain || !is_word || depth > DEPTH_MAX {
        report.urgent(user.place, reason(value));
        return false;
    }
    let variable = format!("${name}");
    let defines = |it: &&&Directive| match it.name.as_str() {
        "map" | "geo" | "split_clients" => it.arguments.last() == Some(&variable),
        "set" => it.word(0) == variable,
        _ => false,
    };
    let Some(definition) = scope.lines.iter().rev().find(defines) else {
        if is_builtin(name) {
            report.urgent(user.place, reason(value));
        } else {
            let problem = format!("there is no variable {variable}; define it with map");
            report.refuse(user.place, problem);
        }
        return false;
    };
    match definition.name.as_str() {
        "set" => resolve(definition.word(1), user, scope, route, depth + 1, report),
        "map" => map(definition, user, scope, route, depth, report),
        _ => {
            let reason = "variables: evenkeel routes by port, TLS server name and ALPN";
            report.urgent(definition.place, reason);
            report.urgent(user.place, reason);
            false
        }
    }
}

fn reason(value: &str) -> &'static str {
    if value.contains("ssl_preread_server_name") {
        "the destination comes from the ClientHello: evenkeel's servers are in its file"
    } else {
        "the destination is made from the connection: evenkeel's servers are in its file"
    }
}

/// Whether nginx itself sets a variable.
fn is_builtin(name: &str) -> bool {
    const FAMILIES: &[&str] = &[
        "ssl_",
        "proxy_protocol_",
        "realip_",
        "geoip",
        "upstream_",
        "time_",
        "session_",
        "bytes_",
        "remote_",
        "binary_",
        "server_",
        "js_",
        "mqtt_",
        "host",
        "hostname",
        "protocol",
        "pid",
        "msec",
        "status",
        "connection",
        "nginx_",
        "limit_conn_",
        "arg_",
        "http_",
        "request",
        "env_",
    ];
    FAMILIES.iter().any(|family| name.starts_with(family))
}

fn map(
    map: &Directive,
    user: &Directive,
    scope: &Variables<'_>,
    route: &mut Route,
    depth: usize,
    report: &Report,
) -> bool {
    let key = map.word(0);
    let is_sni = matches!(key, "$ssl_preread_server_name" | "${ssl_preread_server_name}");
    let is_alpn = matches!(key, "$ssl_preread_alpn_protocols" | "${ssl_preread_alpn_protocols}");
    if !is_sni && !is_alpn {
        let reason = match key {
            "$ssl_preread_protocol" => {
                "routing by whether the client begins TLS: evenkeel routes by port, TLS server \
                name and ALPN"
            }
            _ => "variables: evenkeel routes by port, TLS server name and ALPN",
        };
        report.urgent(map.place, reason);
        report.urgent(user.place, reason);
        return false;
    }
    if !scope.has_preread {
        return without_name(map, user, scope, route, depth, report);
    }
    let has_hostnames = map.inside().iter().any(|entry| entry.name == "hostnames");
    let mut is_known = true;
    let mut entries: Vec<(String, String, bool)> = Vec::new();
    for entry in map.inside() {
        let value = entry.word(0);
        match entry.name.as_str() {
            "hostnames" | "volatile" => {}
            "include" => report.urgent(
                entry.place,
                "another file: its content is needed; convert it where the file is",
            ),
            "default" => is_known &= resolve(value, user, scope, route, depth + 1, report),
            key => {
                let mut inner = Route::default();
                if value.contains('$')
                    && !resolve(value, entry, scope, &mut inner, depth + 1, report)
                {
                    continue;
                }
                let target =
                    if value.contains('$') { inner.backend } else { Some(value.to_owned()) };
                let Some(target) = target.filter(|target| !target.is_empty()) else {
                    report.urgent(
                        entry.place,
                        "a name that is refused: evenkeel sends it where other names go",
                    );
                    continue;
                };
                for (name, is_pattern) in keys(key, is_sni, has_hostnames, entry, report) {
                    let name =
                        if is_sni { config::server_name(&name) } else { config::protocol(&name) };
                    match name {
                        Ok(name) => entries.push((name, target.clone(), is_pattern)),
                        Err(_) => report.urgent(entry.place, NO_NAME),
                    }
                }
            }
        }
    }
    // nginx looks at exact names first, then at wildcards, then at expressions in their order.
    entries.sort_by_key(|(_, _, is_pattern)| *is_pattern);
    let list = if is_sni { &mut route.sni } else { &mut route.alpn };
    for (name, target, _) in entries {
        if !list.iter().any(|(other, _)| *other == name) {
            list.push((name, target));
        }
    }
    is_known
}

/// A map of what nginx does not read: the value for an empty text, which every client has.
fn without_name(
    map: &Directive,
    user: &Directive,
    scope: &Variables<'_>,
    route: &mut Route,
    depth: usize,
    report: &Report,
) -> bool {
    let reason = "ssl_preread is off: nginx has no name of any client, and all of them go to the \
                  default of the map";
    report.near(user.place, reason);
    for entry in map.inside() {
        // A name, or a domain, is not empty.
        let pattern = entry.name.strip_prefix('~').map(|it| it.trim_start_matches('*'));
        if pattern.is_some_and(|pattern| names_of_pattern(pattern).is_none()) {
            let reason = "an expression that is neither a name nor a domain: clients without a \
                          name go to the default";
            report.urgent(entry.place, reason);
        }
    }
    let value = |key: &str| map.inside().iter().find(|entry| entry.name == key);
    let value = value("").or_else(|| value("default")).map_or("", |entry| entry.word(0));
    resolve(value, user, scope, route, depth + 1, report)
}

/// The names that a key stands for, and whether it is an expression.
fn keys(
    key: &str,
    is_sni: bool,
    has_hostnames: bool,
    entry: &Directive,
    report: &Report,
) -> Vec<(String, bool)> {
    let lower = |name: &str| name.to_ascii_lowercase();
    if let Some(pattern) = key.strip_prefix('~') {
        let pattern = pattern.trim_start_matches('*');
        let names = if is_sni { names_of_pattern(pattern) } else { None };
        let names = names.or_else(|| {
            let is_word = !is_sni
                && pattern.chars().all(|c| c.is_ascii_alphanumeric() || "-/\\.".contains(c));
            // `~\bh2\b` and `~h2` look for a protocol in the list of the client.
            let bare =
                pattern.trim_start_matches("\\b").trim_end_matches("\\b").replace("\\.", ".");
            (is_word && !bare.contains('\\')).then(|| vec![bare])
        });
        return match names {
            Some(names) => names.into_iter().map(|name| (name, true)).collect(),
            None => {
                report.urgent(entry.place, "an expression that is neither a name nor a domain");
                Vec::new()
            }
        };
    }
    if !is_sni {
        // The protocols of a client, in its order: evenkeel compares each.
        return key
            .split(',')
            .filter(|it| !it.is_empty())
            .map(|it| (it.to_owned(), false))
            .collect();
    }
    if key.is_empty() {
        report.urgent(
            entry.place,
            "clients without a server name: evenkeel sends them where other names go",
        );
        return Vec::new();
    }
    match key.strip_prefix('.') {
        Some(domain) if has_hostnames => {
            vec![(lower(domain), false), (format!("*.{}", lower(domain)), false)]
        }
        _ if key.starts_with("*.") && has_hostnames => vec![(lower(key), false)],
        _ if key.contains('*') => {
            report.urgent(entry.place, "a name with * that is no domain");
            Vec::new()
        }
        _ => vec![(lower(key), false)],
    }
}
