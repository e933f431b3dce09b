//! What happens to a client that connects now: for `evenkeel explain`. Nothing is counted, and no
//! turn or token is taken.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::{Networks, ProxyProtocol, nearest};
use crate::control::controller::state::Controller;
use crate::shared::clients::{ClientKey, ClientRefusal, ClientRules};
use crate::shared::explanation::{Explanation, RuleExplanation, Verdict};
use crate::shared::limit::Limit;
use crate::shared::phase::Phase;
use crate::shared::table::{Backend, Frontend};

/// Names that an error lists.
const NAMES_SHOWN: usize = 20;

/// Routes that are named for each backend.
const ROUTES_SHOWN: usize = 5;

impl Controller {
    /// What happens to a client of a frontend. None: any client.
    ///
    /// # Errors
    /// There is no such frontend; the error has the nearest name.
    pub(super) fn explain(
        &self,
        frontend: &str,
        client: Option<IpAddr>,
    ) -> Result<Explanation, String> {
        let table = self.shared.table.load();
        let names = || table.frontends.iter().map(|one| &*one.shared.name);
        let Some(found) = table.frontends.iter().find(|one| *one.shared.name == *frontend) else {
            let remedy = match nearest(frontend, names()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => {
                    let names: Vec<&str> = names().take(NAMES_SHOWN).collect();
                    format!("the frontends are: {}", names.join(", "))
                }
            };
            return Err(format!("there is no frontend {frontend:?}; {remedy}"));
        };
        let rules = self.rules(found, client.map(|client| client.to_canonical()));
        let mut backends = self.cluster.explain(&reachable(found), client);
        if let Some(refusal) = rules.iter().find(|rule| rule.verdict == Verdict::Refused) {
            backends.iter_mut().for_each(|backend| backend.refuse(&refusal.key));
        }
        Ok(Explanation {
            frontend: frontend.to_owned(),
            client,
            verdict: rules.iter().map(|rule| rule.verdict).max().unwrap_or(Verdict::Admitted),
            backends,
            rules,
        })
    }

    /// The rules of a frontend, in the order in which a worker checks them (`proxy/access.rs`).
    fn rules(&self, frontend: &Frontend, client: Option<IpAddr>) -> Vec<RuleExplanation> {
        let settings = &frontend.settings;
        let now = self.shared.phase.since_start(Instant::now());
        let mut rules = Vec::new();
        rules.extend(self.phase_rule());
        // A session is counted before its PROXY header is read, which has the client.
        let reads_header = settings.proxy_protocol == ProxyProtocol::Required;
        if reads_header {
            rules.push(peer_rule(&settings.proxy_protocol_from));
            rules.extend(self.limit_rules(frontend));
        }
        rules.extend(list_rule("deny", &settings.deny, client, false));
        rules.extend(list_rule("allow", &settings.allow, client, true));
        if let Some(rate) = settings.rate.sessions {
            let (verdict, why) = match frontend.shared.rate.has_token(rate, now) {
                true => (Verdict::Admitted, format!("below {rate} of all clients")),
                false => (Verdict::Refused, format!("all clients together have reached {rate}")),
            };
            rules.push(rule("rate.sessions", verdict, why));
        }
        rules.extend(client_rules(frontend, client, now));
        if !reads_header {
            rules.extend(self.limit_rules(frontend));
        }
        if frontend.backend.is_none() {
            let why = "not set: a connection that no sni or alpn matches is reset";
            rules.push(rule("backend", Verdict::Depends, why.to_owned()));
        }
        rules
    }

    fn limit_rules(&self, frontend: &Frontend) -> Vec<RuleExplanation> {
        let mut rules = vec![limit_rule("global.sessions_max", &self.shared.sessions)];
        if frontend.settings.sessions_max.is_some() {
            rules.push(limit_rule("sessions_max", &frontend.shared.sessions));
        }
        rules
    }

    fn phase_rule(&self) -> Option<RuleExplanation> {
        let (verdict, why) = match self.shared.phase.load() {
            Phase::Running if self.drain_at.is_some() => {
                (Verdict::Admitted, "the drain begins soon; clients are still accepted")
            }
            Phase::Running => return None,
            Phase::Draining(_) | Phase::Stopped => {
                (Verdict::Refused, "evenkeel drains: it accepts no new connections")
            }
        };
        Some(rule("drain", verdict, why.to_owned()))
    }
}

/// The backends that a frontend can reach by name, each with the clients that are sent there.
fn reachable(frontend: &Frontend) -> HashMap<&str, (&Backend, String)> {
    let settings = &frontend.settings;
    let mut clients: HashMap<&str, Clients<'_>> = HashMap::new();
    for route in &settings.sni {
        clients.entry(&*route.backend).or_default().server_names.push(&*route.name);
    }
    for route in &settings.alpn {
        clients.entry(&*route.backend).or_default().protocols.push(&*route.name);
    }
    if let Some(backend) = &frontend.backend {
        clients.entry(&*backend.settings.name).or_default().others = true;
    }
    let is_routed = settings.is_routed();
    let text = |backend: &str| {
        clients.get(backend).map_or_else(String::new, |clients| clients.text(is_routed))
    };
    let mut reachable = HashMap::new();
    for backend in frontend.backends() {
        let name = &*backend.settings.name;
        reachable.entry(name).or_insert_with(|| (&**backend, text(name)));
    }
    reachable
}

/// The clients of a backend.
#[derive(Debug, Default)]
struct Clients<'a> {
    server_names: Vec<&'a str>,
    protocols: Vec<&'a str>,
    /// Those that no route matches.
    others: bool,
}

impl Clients<'_> {
    /// `is_routed`: whether the frontend has routes.
    fn text(&self, is_routed: bool) -> String {
        let mut room = ROUTES_SHOWN;
        let mut parts = Vec::new();
        for (what, names) in [("server name", &self.server_names), ("protocol", &self.protocols)] {
            let shown = &names[..names.len().min(room)];
            room -= shown.len();
            let list = match (shown.len(), names.len()) {
                (_, 0) => continue,
                (0, _) => "...".to_owned(),
                (shown_count, all) if shown_count < all => format!("{}, ...", shown.join(", ")),
                _ => shown.join(", "),
            };
            parts.push(format!("clients with the {what} {list}"));
        }
        if self.others {
            let all = if is_routed { "all other clients" } else { "every client" };
            parts.push(all.to_owned());
        }
        parts.join("; ")
    }
}

fn rule(key: &str, verdict: Verdict, why: String) -> RuleExplanation {
    RuleExplanation { key: key.to_owned(), verdict, why }
}

/// `deny` or `allow`; `wanted`: whether the client must be in it.
fn list_rule(
    key: &str,
    list: &Networks,
    client: Option<IpAddr>,
    wanted: bool,
) -> Option<RuleExplanation> {
    if !list.is_listed() {
        return None;
    }
    let networks = networks_of(list);
    let Some(client) = client else {
        return Some(rule(key, Verdict::Depends, format!("{networks} decide: give CLIENT")));
    };
    let (is_in, word) = match list.contains(client) {
        true => (true, "one"),
        false => (false, "none"),
    };
    let verdict = if is_in == wanted { Verdict::Admitted } else { Verdict::Refused };
    Some(rule(key, verdict, format!("{client} is in {word} of {networks}")))
}

fn networks_of(list: &Networks) -> String {
    let file = list.file.as_ref().map(|(path, _)| format!(" of {}", path.display()));
    format!("its networks{}", file.unwrap_or_default())
}

/// `proxy_protocol_from`. The peer is not given.
fn peer_rule(list: &Networks) -> RuleExplanation {
    let networks = networks_of(list);
    let why =
        format!("the peer must be in one of {networks}; CLIENT is the address in its PROXY header");
    rule("proxy_protocol_from", Verdict::Depends, why)
}

/// `clients_max` and `rate.per_client`.
fn client_rules(
    frontend: &Frontend,
    client: Option<IpAddr>,
    now: Duration,
) -> Vec<RuleExplanation> {
    let settings = &frontend.settings;
    let limits = ClientRules {
        sessions_max: settings.clients_max.map(Into::into),
        rate: settings.rate.per_client,
    };
    let state = client.map(|client| {
        let key = ClientKey::from(client);
        frontend.shared.clients.would_begin(key, limits, now)
    });
    let mut rules = Vec::new();
    if let Some(max) = limits.sessions_max {
        let (verdict, why) = match state {
            None => (Verdict::Depends, format!("{max} sessions of each client: give CLIENT")),
            Some((sessions, outcome)) => {
                let full = outcome == Err(ClientRefusal::Sessions);
                let verdict = if full { Verdict::Refused } else { Verdict::Admitted };
                (verdict, format!("{sessions} of {max} sessions of this client are open"))
            }
        };
        rules.push(rule("clients_max", verdict, why));
    }
    if let Some(rate) = limits.rate {
        let (verdict, why) = match state {
            None => (Verdict::Depends, format!("{rate} of each client: give CLIENT")),
            Some((_, Err(ClientRefusal::Rate))) => {
                (Verdict::Refused, format!("this client has reached {rate}"))
            }
            Some((_, Err(ClientRefusal::Sessions))) => {
                (Verdict::Admitted, format!("{rate}; not checked: clients_max refuses"))
            }
            Some((_, Ok(()))) => (Verdict::Admitted, format!("this client is below {rate}")),
        };
        rules.push(rule("rate.per_client", verdict, why));
    }
    rules
}

/// A limit of sessions: at the limit, clients wait in the backlog of the kernel.
fn limit_rule(key: &str, limit: &Limit) -> RuleExplanation {
    let verdict = if limit.room() == 0 { Verdict::Waits } else { Verdict::Admitted };
    rule(key, verdict, format!("{} of {} sessions are open", limit.active(), limit.max()))
}
