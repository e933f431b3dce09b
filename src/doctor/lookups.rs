//! What a configuration needs of this machine: addresses, accounts and host names, each looked up.
//!
//! The configuration itself may be right and meant for another machine, so all of it are warnings;
//! those that `evenkeel run` would refuse here say so.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::config::{
    BackendSettings, Chains, Config, Server, ServerAddress, Span, missing_interfaces, not_a_server,
    on_this_machine,
};
use crate::control::listeners;
use crate::control::probe_tls;
use crate::control::reload::{Found, Names, resolve_within};
use crate::control::resolve::{Answer, Resolver, is_local};
use crate::control::sources;
use crate::doctor::{confinement, listening};
use crate::run::identity;
use crate::sys::address::Address;
use crate::sys::local_addresses::LocalAddresses;

/// How long the lookups of all names together may take: `check` is interactive. A name that
/// multicast DNS does not answer, which takes 2 s, is then asked for in DNS.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// Something that this machine does not have, or that is to be known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// "address", "account", "certificates", "control", "descriptors", "name", "server" or
    /// "source".
    pub subject: &'static str,
    /// Where the configuration asks for it.
    pub span: Span,
    /// "what is wrong; what to do"
    pub text: String,
    /// What it means for `evenkeel run` here.
    pub severity: Severity,
}

/// What a finding means for `evenkeel run` on this machine, as this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is wrong: the operator is only told.
    Note,
    /// It starts, and does not do all of what the configuration says.
    Warning,
    /// It does not start.
    Refused,
}

/// Looks up what `config` needs of this machine.
///
/// # Errors
/// Host names cannot be looked up.
pub fn look_up(config: &Config) -> io::Result<Vec<Warning>> {
    let mut warnings = addresses(config);
    let mut add = |subject, span, text, severity| {
        warnings.push(Warning { subject, span, text, severity });
    };
    for (span, problem) in confinement::needs_restart(config) {
        add("address", span, problem, Severity::Warning);
    }
    // Who is not root keeps the account.
    let of_account = if geteuid().is_root() { Severity::Refused } else { Severity::Warning };
    for (span, problem) in identity::missing(config) {
        add("account", span, problem, of_account);
    }
    if let Err(problems) = probe_tls::find_roots(config) {
        for (span, problem) in problems {
            add("certificates", span, problem, Severity::Refused);
        }
    }
    for (span, problem) in missing_interfaces(config) {
        add("server", span, problem, Severity::Refused);
    }
    let denied = sources::denied_all(config);
    for (span, problem) in config.backends.iter().flat_map(|backend| sources::problems(backend)) {
        let is_denied = denied.iter().any(|(_, text)| *text == problem);
        let severity = if is_denied { Severity::Refused } else { Severity::Warning };
        add("source", span, problem, severity);
    }
    let local = LocalAddresses::now();
    if let Err(problems) = on_this_machine(config, &local) {
        for problem in problems.iter() {
            add("server", problem.span, problem.text.clone(), Severity::Refused);
        }
    }
    let mut warn = |subject, span, text| add(subject, span, text, Severity::Warning);
    let Found { hosts: answers, srv } = found(config)?;
    let mut chains = Chains::new(&config.frontends, &config.backends, &local);
    for backend in &config.backends {
        if let Some(name) = backend.srv.as_ref().filter(|name| !srv.contains_key(*name)) {
            let seconds = RESOLVE_MAX.as_secs();
            let text = format!(
                "SRV name {name} has no usable record (DNS was asked, for {seconds} s at most); \
                 correct it, or expect it to supply no server"
            );
            warn("name", backend.span, text);
        }
        for server in &backend.servers {
            for text in name_problems(backend, server, &answers, &mut chains) {
                warn("name", server.span, text);
            }
        }
    }
    Ok(warnings)
}

/// The addresses of frontends and of `observe.bind` that cannot be bound here.
fn addresses(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let binds = config.frontends.iter().flat_map(|frontend| &frontend.bind);
    let binds = binds.map(|(bind, span)| (bind.clone(), *span));
    let observe = config.observe.bind.map(|(address, span)| (address.into(), span));
    for (bind, span) in binds.chain(observe) {
        // One problem for a range.
        let problem = |one: Address| {
            // A trial of a unix socket in use would be a session there.
            let user = if one.is_unix() { listening::evenkeel_at(&one) } else { None };
            if user.is_some() {
                return Some((one, String::new(), user));
            }
            let problem = listeners::try_bind(&one).err()?;
            let user = listening::evenkeel_at(&one);
            Some((one, problem, user))
        };
        let Some((address, problem, user)) = bind.addresses().find_map(problem) else { continue };
        let (text, severity) = match user {
            Some(pid) => {
                let text = format!("{address} is in use by the running evenkeel (process {pid})");
                (text, Severity::Note)
            }
            None => (problem, Severity::Refused),
        };
        warnings.push(Warning { subject: "address", span, text, severity });
    }
    warnings
}

/// What is wrong with the addresses of a server's host name. Those that can be used are added to
/// `chains`, as at the start of the balancer.
fn name_problems(
    backend: &BackendSettings,
    server: &Server,
    answers: &BTreeMap<String, Answer>,
    chains: &mut Chains<'_>,
) -> Vec<String> {
    let ServerAddress::Name { host, port } = &server.address else { return Vec::new() };
    let name = &server.name;
    let Some(answer) = answers.get(host) else {
        let seconds = RESOLVE_MAX.as_secs();
        let asked =
            if is_local(host) { "multicast DNS, DNS and /etc/hosts" } else { "DNS and /etc/hosts" };
        return vec![format!(
            "host name {host} has no address ({asked} were asked, for {seconds} s at most); \
             correct it, or expect server {name} to be down"
        )];
    };
    let mut problems = Vec::new();
    for found in &answer.addresses {
        let (ip, address) = (found.ip, Address::Ip(found.at(*port)));
        if let Some(what) = not_a_server(ip) {
            problems.push(format!(
                "host name {host} resolves to {ip}, {what}, which no server has; correct it, or \
                 expect server {name} not to use that address"
            ));
        } else if let Some(reached) = chains.cycle(&backend.name, &address) {
            problems.push(format!(
                "host name {host} resolves to {ip}, and {address} is frontend {}, which leads back \
                 to backend {}; correct it, or expect server {name} not to use that address",
                reached.frontend.name, backend.name
            ));
        } else {
            chains.add(&backend.name, &address);
        }
    }
    problems
}

fn found(config: &Config) -> io::Result<Found> {
    let names = Names::of(config);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let resolver = Resolver::with_servers(&config.global.resolver.0);
    let lookups = async { resolve_within(&resolver, names, RESOLVE_MAX).await };
    Ok(LocalSet::new().block_on(&runtime, lookups))
}
