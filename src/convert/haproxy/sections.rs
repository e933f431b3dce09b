//! Sections of an HAProxy configuration, and the lines that hold for each proxy.

use std::collections::HashMap;
use std::rc::Rc;

use super::keywords;
use super::lexer::Line;
use crate::convert::draft::Origin;
use crate::convert::report::{Place, Report};

/// The kind of a proxy section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Frontend,
    Backend,
    Listen,
}

/// A `frontend`, `backend` or `listen` section.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) origin: Origin,
    /// The lines of its defaults, then its own.
    pub(super) lines: Vec<Rc<Line>>,
    /// How many of them are from its defaults.
    pub(super) inherited: usize,
}

/// A section that is no proxy.
#[derive(Debug, Clone)]
pub(super) struct Other {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) lines: Vec<Rc<Line>>,
}

/// A `defaults` section.
#[derive(Debug)]
pub(super) struct Defaults {
    /// Empty: it has none.
    pub(super) name: String,
    pub(super) place: Place,
    /// The lines of the section that it is made from, then its own.
    pub(super) lines: Vec<Rc<Line>>,
    inherited: usize,
}

impl Defaults {
    /// Its own lines.
    pub(super) fn own(&self) -> &[Rc<Line>] {
        &self.lines[self.inherited..]
    }
}

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) global: Vec<Rc<Line>>,
    pub(super) proxies: Vec<Proxy>,
    pub(super) others: Vec<Other>,
    /// Positions in `proxies` by name.
    named: HashMap<String, Vec<usize>>,
    pub(super) defaults: Vec<Defaults>,
}

impl Proxy {
    pub(super) const fn takes_clients(&self) -> bool {
        matches!(self.role, Role::Frontend | Role::Listen)
    }

    pub(super) const fn has_servers(&self) -> bool {
        matches!(self.role, Role::Backend | Role::Listen)
    }

    pub(super) const fn place(&self) -> Place {
        self.origin.first
    }

    /// Its own lines.
    pub(super) fn own(&self) -> &[Rc<Line>] {
        &self.lines[self.inherited..]
    }

    /// Every line that begins with a word.
    pub(super) fn all<'a>(&'a self, first: &'a str) -> impl Iterator<Item = &'a Rc<Line>> {
        self.lines.iter().filter(move |line| line.word(0) == first)
    }

    /// The line that acts: the last one that begins with the words, unless `no` cancels it.
    pub(super) fn last(&self, words: &[&str]) -> Option<&Rc<Line>> {
        let begins =
            |line: &&Rc<Line>| words.iter().enumerate().all(|(at, it)| line.word(at) == *it);
        self.lines.iter().rfind(begins).filter(|line| !line.is_no)
    }

    /// An option that is on.
    pub(super) fn option(&self, name: &str) -> Option<&Rc<Line>> {
        self.last(&["option", name])
    }

    /// Whether requests were balanced.
    pub(super) fn is_http(&self) -> bool {
        self.last(&["mode"]).is_some_and(|line| line.word(1) == "http")
    }

    pub(super) fn is_disabled(&self) -> bool {
        let switch = |line: &&Rc<Line>| matches!(line.word(0), "disabled" | "enabled");
        self.lines.iter().rfind(switch).is_some_and(|line| line.word(0) == "disabled")
    }
}

impl Sections {
    pub(super) fn backend(&self, name: &str) -> Option<&Proxy> {
        self.named(name).find(|proxy| proxy.has_servers())
    }

    /// The proxies of a name, in order: a frontend and a backend may share one.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Proxy> {
        let positions = self.named.get(name).into_iter().flatten();
        positions.filter_map(|at| self.proxies.get(*at))
    }
}

/// Sorts lines into sections.
pub(super) fn sections(lines: Vec<Line>, report: &Report) -> Sections {
    let mut sections = Sections::default();
    let mut current = Current::None;
    for line in lines {
        let line = Rc::new(line);
        let word = line.word(0);
        if keywords::section(word).is_some() {
            current = begin(&mut sections, &line, report);
            continue;
        }
        match current {
            Current::None => report.refuse(
                line.place,
                format!(
                    "{word:?} is outside of a section; write global, defaults or a proxy first"
                ),
            ),
            Current::Global => sections.global.push(line),
            Current::Defaults => {
                if let Some(defaults) = sections.defaults.last_mut() {
                    defaults.lines.push(line);
                }
            }
            Current::Proxy => {
                if let Some(proxy) = sections.proxies.last_mut() {
                    proxy.origin.last = line.place.line;
                    proxy.lines.push(line);
                }
            }
            Current::Other => {
                if let Some(other) = sections.others.last_mut() {
                    other.lines.push(line);
                }
            }
        }
    }
    sections
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Current {
    None,
    Global,
    Defaults,
    Proxy,
    Other,
}

fn begin(sections: &mut Sections, line: &Rc<Line>, report: &Report) -> Current {
    let (word, name) = (line.word(0), line.word(1));
    let role = match word {
        "global" => return Current::Global,
        "defaults" => {
            // `defaults from NAME` has no name.
            let own = if name == "from" { "" } else { name };
            let lines = parent(sections, line, 1, report).unwrap_or_default();
            sections.defaults.push(Defaults {
                name: own.to_owned(),
                place: line.place,
                inherited: lines.len(),
                lines,
            });
            return Current::Defaults;
        }
        "frontend" => Role::Frontend,
        "backend" => Role::Backend,
        "listen" => Role::Listen,
        _ => {
            sections.others.push(Other {
                kind: word.to_owned(),
                name: name.to_owned(),
                place: line.place,
                lines: Vec::new(),
            });
            return Current::Other;
        }
    };
    if name.is_empty() {
        report.refuse(line.place, format!("{word} without a name; write one"));
    }
    let mut lines = parent(sections, line, 2, report)
        .or_else(|| sections.defaults.last().map(|defaults| defaults.lines.clone()))
        .unwrap_or_default();
    let inherited = lines.len();
    // HAProxy 1.4: the address stands after the name.
    let address = line.word(2);
    if !address.is_empty() && address != "from" && word != "backend" {
        let words = ["bind"].into_iter().map(ToOwned::to_owned);
        let words = words.chain(line.from(2).iter().cloned()).collect();
        lines.push(Rc::new(Line { place: line.place, words, is_no: false }));
    }
    let origin = Origin { first: line.place, last: line.place.line };
    sections.named.entry(name.to_owned()).or_default().push(sections.proxies.len());
    sections.proxies.push(Proxy { role, name: name.to_owned(), origin, lines, inherited });
    Current::Proxy
}

/// The lines of the `defaults` section that `from` names, at that word of the line or after it.
fn parent(
    sections: &Sections,
    line: &Line,
    start: usize,
    report: &Report,
) -> Option<Vec<Rc<Line>>> {
    let at = line.from(start).iter().position(|word| word == "from")?;
    let name = line.word(start + at + 1);
    let mut found = sections.defaults.iter().filter(|defaults| defaults.name == name);
    let Some(first) = found.next().filter(|_| !name.is_empty()) else {
        report.refuse(line.place, format!("there is no defaults section {name:?}; correct it"));
        return None;
    };
    if let Some(second) = found.next() {
        let (first, second) = (first.place.line, second.place.line);
        let problem =
            format!("defaults {name:?} is in lines {first} and {second}; rename one of them");
        report.refuse(line.place, problem);
    }
    Some(first.lines.clone())
}
