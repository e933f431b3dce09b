//! Conditions of rules: ACLs by name and in braces, joined by `or`, negated by `!` and `unless`.

use std::collections::HashMap;

use super::keywords;
use super::lexer::{self, Line};
use super::sections::Proxy;
use super::terms::{self, Term};
use crate::convert::networks::{Clients, Network};
use crate::convert::report::{Place, Report};

/// A term, or its opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) is_negated: bool,
    pub(super) term: Term,
    /// The `acl` line that defines it; none: it is in braces.
    pub(super) place: Option<Place>,
}

/// All tests hold.
pub(super) type Clause = Vec<Test>;

/// One of the clauses holds.
pub(super) type Condition = Vec<Clause>;

/// More clauses are not worth reading: the rule is reported.
const CLAUSES_MAX: usize = 256;

/// The ACLs of a proxy.
#[derive(Debug, Default)]
pub(super) struct Acls {
    named: HashMap<String, Vec<(Term, Place)>>,
}

impl Acls {
    /// Reads the `acl` lines of a proxy.
    pub(super) fn of(proxy: &Proxy) -> Self {
        let mut acls = Self::default();
        for line in proxy.all("acl") {
            let term = terms::term(line.from(2));
            let same = acls.named.entry(line.word(1).to_owned()).or_default();
            same.push((term, line.place));
        }
        acls
    }

    /// The `acl` lines without an equivalent, each with its term.
    pub(super) fn unusable(&self) -> impl Iterator<Item = (Place, &Term)> {
        let all = self.named.values().flatten().map(|(term, place)| (*place, term));
        all.filter(|(_, term)| matches!(term, Term::Http | Term::Payload | Term::Other(_)))
    }

    /// The condition after `if` or `unless` on a line; none: there is none, so it always holds.
    ///
    /// An ACL that nothing defines is refused, as HAProxy does.
    pub(super) fn condition(&self, line: &Line, report: &Report) -> Option<Condition> {
        let at = line.words.iter().position(|word| matches!(word.as_str(), "if" | "unless"))?;
        // Of each alternative of the condition: the ways in which it can hold.
        let mut groups: Vec<Condition> = Vec::new();
        let mut begins = true;
        let mut words = line.from(at + 1).iter();
        let mut is_negated = false;
        while let Some(word) = words.next() {
            let mut word = word.as_str();
            while let Some(rest) = word.strip_prefix('!') {
                (word, is_negated) = (rest, !is_negated);
            }
            let alternatives = match word {
                "" => continue,
                "or" | "||" | "OR" => {
                    begins = true;
                    continue;
                }
                "and" | "&&" => continue,
                "{" => {
                    let inside: Vec<String> =
                        words.by_ref().take_while(|word| *word != "}").cloned().collect();
                    known(&inside, line, report);
                    vec![(terms::term(&inside), None)]
                }
                name => self.named(name, line, report),
            };
            // Nothing but `if`, or nothing after `or`, never holds.
            if std::mem::take(&mut begins) {
                groups.push(vec![Vec::new()]);
            }
            let group = groups.pop().unwrap_or_default();
            let each = group.iter().flat_map(|clause| joined(clause, &alternatives, is_negated));
            groups.push(each.collect());
            is_negated = false;
            if groups.iter().map(Vec::len).sum::<usize>() > CLAUSES_MAX {
                return Some(vec![vec![other("a long condition")]]);
            }
        }
        let clauses: Condition = groups.into_iter().flatten().collect();
        let condition = if line.word(at) == "unless" { negated(&clauses) } else { clauses };
        Some(condition)
    }

    fn named(&self, name: &str, line: &Line, report: &Report) -> Vec<(Term, Option<Place>)> {
        if let Some(terms) = self.named.get(name) {
            return terms.iter().map(|(term, place)| (term.clone(), Some(*place))).collect();
        }
        let term = match name {
            "TRUE" => Term::Constant(true),
            "FALSE" => Term::Constant(false),
            "WAIT_END" => Term::Wait,
            "LOCALHOST" => {
                let networks = ["127.0.0.0/8", "::1"].into_iter().filter_map(Network::parse);
                Term::Source(networks.map(Clients::Network).collect())
            }
            "REQ_CONTENT" | "RDP_COOKIE" => Term::Payload,
            _ if name == "HTTP" || name.starts_with("HTTP_") || name.starts_with("METH_") => {
                Term::Http
            }
            _ => {
                report.refuse(line.place, format!("there is no acl {name:?}; define it"));
                Term::Other(name.to_owned())
            }
        };
        vec![(term, None)]
    }
}

/// Refuses a criterion that HAProxy does not have.
fn known(words: &[String], line: &Line, report: &Report) {
    let Some(first) = words.first() else { return };
    let end = first.find(['(', ',']).unwrap_or(first.len());
    if !keywords::is_sample(&first[..end]) {
        report.refuse(line.place, format!("HAProxy has no criterion {first:?}; correct it"));
    }
    if let Some(word) = terms::refused(words).filter(|word| lexer::unset(word).is_none()) {
        report.refuse(line.place, format!("{word:?} is no value of {first}; correct it"));
    }
}

fn other(text: &str) -> Test {
    Test { is_negated: false, term: Term::Other(text.to_owned()), place: None }
}

/// The clauses of "all of `clause`, and one of the alternatives". Terms of one kind are one term.
fn joined(clause: &Clause, alternatives: &[(Term, Option<Place>)], is_negated: bool) -> Condition {
    let mut merged: Vec<(Term, Option<Place>)> = Vec::new();
    for (term, place) in alternatives {
        let same = merged.iter_mut().find_map(|(other, _)| match (other, term) {
            (Term::Source(all), Term::Source(more)) => {
                all.extend(more.iter().cloned());
                Some(())
            }
            (Term::ServerName(all, wide), Term::ServerName(more, wider)) => {
                all.extend(more.iter().cloned());
                *wide |= wider;
                Some(())
            }
            (Term::Port(all), Term::Port(more)) => {
                all.extend(more.iter().copied());
                Some(())
            }
            _ => None,
        });
        if same.is_none() {
            merged.push((term.clone(), *place));
        }
    }
    let tests = merged.into_iter().map(|(term, place)| Test { is_negated, term, place });
    if is_negated {
        return vec![clause.iter().cloned().chain(tests).collect()];
    }
    tests.map(|test| clause.iter().cloned().chain([test]).collect()).collect()
}

/// The opposite of a condition: one test of each clause fails.
fn negated(condition: &Condition) -> Condition {
    let mut clauses: Condition = vec![Vec::new()];
    for clause in condition {
        let mut longer = Vec::new();
        for start in &clauses {
            for test in clause {
                let test = Test { is_negated: !test.is_negated, ..test.clone() };
                longer.push(start.iter().cloned().chain([test]).collect());
            }
        }
        clauses = longer;
        if clauses.len() > CLAUSES_MAX {
            return vec![vec![other("a long condition")]];
        }
    }
    clauses
}

/// A clause on a port of the frontend, without tests that always hold there; none: it never holds.
pub(super) fn on_port(clause: &Clause, port: Option<(u16, u16)>) -> Option<Clause> {
    let mut left = Vec::new();
    for test in clause {
        let holds = match &test.term {
            Term::Constant(holds) => *holds,
            Term::Port(ranges) => port.is_some_and(|(first, last)| {
                ranges.iter().any(|(from, to)| *from <= first && last <= *to)
            }),
            _ => {
                left.push(test.clone());
                continue;
            }
        };
        if holds == test.is_negated {
            return None;
        }
    }
    Some(left)
}

/// The ports at which the answer of a condition may change: the first port of each part.
pub(super) fn port_bounds(condition: &Condition) -> impl Iterator<Item = u16> {
    condition.iter().flatten().flat_map(|test| match &test.term {
        Term::Port(ranges) => {
            ranges.iter().flat_map(|(first, last)| [*first, last.saturating_add(1)]).collect()
        }
        _ => Vec::new(),
    })
}
