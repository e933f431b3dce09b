//! `use_backend` and `default_backend` as a backend, server names and ALPN protocols.

use std::collections::HashSet;
use std::rc::Rc;

use super::conditions::{self, Acls, Condition};
use super::lexer::{self, Line};
use super::sections::Proxy;
use super::terms::Term;
use crate::convert::report::Report;

/// Where the connections of one port go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// None: a connection that matches nothing is refused.
    pub(super) backend: Option<String>,
    pub(super) sni: Vec<(String, String)>,
    pub(super) alpn: Vec<(String, String)>,
    /// Backends of rules that are lost.
    lost: Vec<String>,
}

impl Route {
    /// Every backend that it names.
    pub(super) fn backends(&self) -> impl Iterator<Item = &str> {
        let named = self.sni.iter().chain(&self.alpn).map(|(_, backend)| backend.as_str());
        self.backend.as_deref().into_iter().chain(named)
    }

    /// Whether the input leads every client to one backend.
    pub(super) fn is_one(&self) -> bool {
        let mut names = self.backends().chain(self.lost.iter().map(String::as_str));
        let first = names.next();
        names.all(|name| Some(name) == first)
    }

    /// Whether any client can be served.
    pub(super) fn leads_somewhere(&self) -> bool {
        self.backends().next().is_some()
    }
}

struct Rule {
    backend: String,
    condition: Condition,
    line: Rc<Line>,
}

/// The rules of a frontend.
pub(super) struct Rules<'a> {
    report: &'a Report,
    rules: Vec<Rule>,
    default: Option<String>,
    /// Names of backends that are made from the connection.
    lost: Vec<String>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(frontend: &Proxy, report: &'a Report) -> Self {
        let acls = Acls::of(frontend);
        let (mut rules, mut lost) = (Vec::new(), Vec::new());
        for line in frontend.all("use_backend") {
            let backend = line.word(1);
            let condition = acls.condition(line, report).unwrap_or_else(|| vec![Vec::new()]);
            if backend.contains("%[") || lexer::unset(backend).is_some() {
                report.urgent(line.place, "the name of the backend is made from the connection");
                lost.push(backend.to_owned());
                continue;
            }
            rules.push(Rule { backend: backend.to_owned(), condition, line: Rc::clone(line) });
        }
        let default = frontend.last(&["default_backend"]).map(|line| line.word(1).to_owned());
        // A listen section that names no backend uses its own servers.
        let own = frontend.has_servers().then(|| frontend.name.clone());
        Self { report, rules, default: default.or(own), lost }
    }

    /// Every backend that a rule names.
    pub(super) fn backends(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.backend.as_str()).chain(self.default.as_deref())
    }

    /// The ports at which the answer may change.
    pub(super) fn port_bounds(&self) -> Vec<u16> {
        self.rules.iter().flat_map(|rule| conditions::port_bounds(&rule.condition)).collect()
    }

    /// The route of one port, or range of ports.
    pub(super) fn on(&self, port: Option<(u16, u16)>) -> Route {
        let (backend, lost) = (self.default.clone(), self.lost.clone());
        let mut route = Route { backend, lost, ..Route::default() };
        let mut seen = Seen::default();
        for rule in &self.rules {
            let mut clauses = rule.condition.iter().filter_map(|it| conditions::on_port(it, port));
            let settles = clauses.any(|clause| {
                let tests: Vec<(bool, &Term)> =
                    clause.iter().map(|test| (test.is_negated, &test.term)).collect();
                self.apply(rule, &tests, &mut route, &mut seen)
            });
            if settles {
                route.backend = Some(rule.backend.clone());
                break;
            }
        }
        route
    }

    /// Adds the routes of a clause; true: every connection goes to the backend.
    fn apply(
        &self,
        rule: &Rule,
        tests: &[(bool, &Term)],
        route: &mut Route,
        seen: &mut Seen,
    ) -> bool {
        let place = rule.line.place;
        // A server name is only there in a ClientHello, and is waited for.
        let is_neutral =
            |(negated, term): &&(bool, &Term)| !negated && matches!(term, Term::Hello | Term::Wait);
        let named =
            tests.iter().any(|(_, term)| matches!(term, Term::ServerName(..) | Term::Alpn(_)));
        let rest: Vec<&(bool, &Term)> = tests
            .iter()
            .filter(|test| !(is_neutral(test) && (named || *test.1 == Term::Wait)))
            .collect();
        match rest.as_slice() {
            [] => return true,
            [(false, Term::ServerName(names, is_wider))] => {
                if *is_wider {
                    let name = &names[0];
                    let text = format!(
                        "{name:?} and \"*.{name}\"; a name that only ends so (x{name}) is lost"
                    );
                    self.report.near(place, text);
                }
                for name in names {
                    if seen.is_first_name(name) {
                        route.sni.push((name.clone(), rule.backend.clone()));
                    }
                }
            }
            [(false, Term::Alpn(protocols))] => {
                for protocol in protocols {
                    if seen.protocols.insert(protocol.clone()) {
                        route.alpn.push((protocol.clone(), rule.backend.clone()));
                    }
                }
            }
            rest => {
                let reason = if rest.iter().any(|(_, term)| **term == Term::Http) {
                    "routing by HTTP: evenkeel does not look at requests"
                } else if rest.iter().any(|(_, term)| matches!(term, Term::Source(_))) {
                    "routing by client address: evenkeel routes by port, TLS server name and ALPN"
                } else if rest.iter().any(|(_, term)| matches!(term, Term::Payload | Term::Hello)) {
                    "routing by the first bytes: evenkeel routes by port, TLS server name and ALPN"
                } else if rest
                    .iter()
                    .all(|(_, term)| matches!(term, Term::ServerName(..) | Term::Alpn(_)))
                {
                    "several conditions on the ClientHello together"
                } else {
                    "evenkeel routes by port, TLS server name and ALPN only"
                };
                route.lost.push(rule.backend.clone());
                // A lost rule of mode tcp sends clients to another backend.
                if rest.iter().any(|(_, term)| **term == Term::Http) {
                    self.report.report(place, reason);
                } else {
                    self.report.urgent(place, reason);
                }
            }
        }
        false
    }
}

/// The names of earlier rules: the first rule acts.
#[derive(Debug, Default)]
struct Seen {
    names: HashSet<String>,
    protocols: HashSet<String>,
}

impl Seen {
    /// Whether no earlier rule has this name, or a domain around it.
    fn is_first_name(&mut self, name: &str) -> bool {
        let mut domains = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
        !domains.any(|domain| self.names.contains(&domain)) && self.names.insert(name.to_owned())
    }
}
