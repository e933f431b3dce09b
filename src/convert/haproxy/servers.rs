//! `server`, `server-template` and `dispatch` lines, with the `default-server` lines before them.

use super::address::{self, Host, Port};
use super::keywords::{self, Treatment};
use super::lexer::{self, Environment, Line};
use super::sections::Proxy;
use crate::config;
use crate::convert::draft::Address;
use crate::convert::literal;
use crate::convert::report::{Place, Report};

/// A server of the input.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) place: Place,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone)]
struct Parameter {
    name: String,
    values: Vec<String>,
    place: Place,
}

impl Input {
    /// The first value of a parameter; empty for a switch. None: it is not set.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let parameter = self.parameter(name)?;
        Some(parameter.values.first().map_or("", String::as_str))
    }

    pub(super) fn values(&self, name: &str) -> &[String] {
        self.parameter(name).map_or(&[], |parameter| &parameter.values)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.parameter(name).is_some()
    }

    /// Where a parameter is: on the line of the server, or of its defaults.
    pub(super) fn place_of(&self, name: &str) -> Place {
        self.parameter(name).map_or(self.place, |parameter| parameter.place)
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().rfind(|parameter| parameter.name == name)
    }
}

/// The servers of a proxy, in order, and the SRV name of a template.
pub(super) fn servers(
    proxy: &Proxy,
    environment: &Environment<'_>,
    report: &Report,
) -> (Vec<Input>, Option<String>) {
    let mut defaults: Vec<Parameter> = Vec::new();
    let mut servers = Vec::new();
    let mut srv = None;
    for line in &proxy.lines {
        let start = match line.word(0) {
            "default-server" => {
                merge(&mut defaults, parameters(line, 1));
                continue;
            }
            "server" => 3,
            "server-template" => 4,
            "dispatch" => {
                report.near(line.place, "a server without health checks");
                2
            }
            _ => continue,
        };
        let mut own = defaults.clone();
        merge(&mut own, parameters(line, start));
        let (name, word) = match line.word(0) {
            "server" => (line.word(1), line.word(2)),
            "server-template" => (line.word(1), line.word(3)),
            _ => ("dispatch", line.word(1)),
        };
        if line.word(0) == "server-template" {
            let host = word.split(':').next().unwrap_or_default();
            if host.starts_with('_') && config::srv_name(host).is_ok() {
                report.near(line.place, "backend.srv: as many servers as DNS names");
                srv = Some(host.to_owned());
                servers.push(Input {
                    name: String::new(),
                    address: Address::default(),
                    place: line.place,
                    parameters: own,
                });
                continue;
            }
            let reason = "one server whose name has several addresses; the number of slots is lost";
            report.near(line.place, reason);
        }
        let address = server_address(word, line, environment, report);
        servers.push(Input { name: name.to_owned(), address, place: line.place, parameters: own });
    }
    for server in &servers {
        notes(server, report);
    }
    (servers, srv)
}

/// The parameters of a line; `no-NAME` has the name with its prefix.
fn parameters(line: &Line, start: usize) -> Vec<Parameter> {
    let mut found = Vec::new();
    let mut at = start;
    while at < line.words.len() {
        let name = line.word(at).to_owned();
        let count = keywords::server(&name).map_or(0, |keyword| keyword.arguments);
        let mut end = (at + 1 + count).min(line.words.len());
        while name == "source" && matches!(line.word(end), "usesrc" | "interface") {
            end = (end + 2).min(line.words.len());
        }
        let values = line.words[at + 1..end].to_vec();
        found.push(Parameter { name, values, place: line.place });
        at = end;
    }
    found
}

fn merge(parameters: &mut Vec<Parameter>, more: Vec<Parameter>) {
    for parameter in more {
        let cancelled = parameter.name.strip_prefix("no-");
        let cancels = cancelled.is_some_and(|name| {
            ["check", "backup", "ssl", "tfo", "agent-check"].contains(&name)
                || name.starts_with("send-proxy")
                || name.starts_with("check-")
        });
        if let Some(name) = cancelled.filter(|_| cancels) {
            parameters.retain(|other| other.name != name);
            continue;
        }
        if parameter.name == "enabled" {
            parameters.retain(|other| other.name != "disabled");
        }
        parameters.retain(|other| other.name != parameter.name);
        parameters.push(parameter);
    }
}

/// The address of a server; one that evenkeel cannot have is reported.
fn server_address(
    word: &str,
    line: &Line,
    environment: &Environment<'_>,
    report: &Report,
) -> Address {
    let (host, port) = match address::parse(word, environment) {
        Ok(parsed) => parsed,
        Err(problem) => {
            report.refuse(line.place, problem);
            return Address::default();
        }
    };
    let known = match port {
        Port::Range(first, _) => Some(first),
        Port::None | Port::Offset => None,
    };
    let unknown = |reason: &str| {
        report.urgent(line.place, reason);
        let words = match &host {
            Host::Unset(name) => name.clone(),
            _ => line.word(1).to_owned(),
        };
        Address::Unknown(words, known)
    };
    let name = match &host {
        Host::Path(path) => return Address::Path(path.clone()),
        Host::AnyV4 | Host::AnyV6 => {
            return unknown(
                "the address that the client connected to: evenkeel's servers have addresses of \
                their own",
            );
        }
        Host::Unsupported(reason) => return unknown(reason),
        Host::Unset(name) => {
            let reason = format!(
                "the environment variable {name} has no value here; set it and convert again"
            );
            return unknown(&reason);
        }
        Host::Ip(ip) => address::ip_text(*ip),
        Host::Name(name) if !literal::is_host(name) => {
            return unknown(if name.contains(['$', '{', '<', '%']) {
                "a placeholder of a template, not an address: fill it in and convert again"
            } else {
                "not an address of a server: correct it and convert again"
            });
        }
        Host::Name(name) => name.clone(),
    };
    match port {
        Port::Range(port, _) => Address::Port(name, port),
        Port::None => Address::ClientPort(name),
        Port::Offset => {
            report.urgent(
                line.place,
                "a port relative to the client's: evenkeel keeps the port or has one of its own",
            );
            Address::Unknown(line.word(1).to_owned(), None)
        }
    }
}

/// Parameters without an equivalent.
fn notes(server: &Input, report: &Report) {
    for parameter in &server.parameters {
        let name = parameter.name.as_str();
        if let Some(variable) = parameter.values.iter().find_map(|it| lexer::unset(it)) {
            let reason = format!("{name}: the environment variable {variable} has no value here");
            report.report(parameter.place, reason);
            continue;
        }
        let Some(keyword) = keywords::server(name) else { continue };
        if keyword.treatment == Treatment::Report
            && !(name == "socks4" && parameter.values.is_empty())
        {
            let reason = format!("{name}: {}", keyword.text);
            match name {
                // The probe of another address tells nothing of the server.
                "ssl" | "addr" => report.urgent(parameter.place, reason),
                _ => report.report(parameter.place, reason),
            }
        }
        if matches!(name, "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn") {
            report.near(parameter.place, keyword.text);
        }
    }
}
