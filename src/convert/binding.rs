//! Addresses to listen on: each is bound once.

use std::collections::{HashMap, HashSet};

use super::draft::{Bind, Draft, Frontend, LeftOut, Setting};
use super::report::{Place, Report};
use crate::config::PORTS_MAX;

/// Addresses, by what may overlap: a file can have thousands of them.
#[derive(Debug, Default)]
struct Index {
    binds: Vec<Bind>,
    /// Positions of those with one port.
    single: HashMap<u16, Vec<usize>>,
    /// Positions of those with several ports.
    ranges: Vec<usize>,
    /// Positions by path.
    paths: HashMap<String, Vec<usize>>,
}

impl Index {
    fn push(&mut self, bind: Bind) {
        let at = self.binds.len();
        match bind.ports {
            None => self.paths.entry(bind.host.clone()).or_default().push(at),
            Some((first, last)) if first == last => self.single.entry(first).or_default().push(at),
            Some(_) => self.ranges.push(at),
        }
        self.binds.push(bind);
    }

    /// Positions of the addresses that share a port or the path of one.
    fn sharing(&self, bind: &Bind) -> Vec<usize> {
        let Some((first, last)) = bind.ports else {
            return self.paths.get(&bind.host).cloned().unwrap_or_default();
        };
        let single = self.single.iter().filter(|(port, _)| (first..=last).contains(port));
        let mut found: Vec<usize> = if first == last {
            self.single.get(&first).cloned().unwrap_or_default()
        } else {
            single.flat_map(|(_, positions)| positions.clone()).collect()
        };
        found.extend(&self.ranges);
        found
    }

    fn overlaps(&self, bind: &Bind) -> bool {
        self.sharing(bind).into_iter().any(|at| overlap(&self.binds[at], bind))
    }
}

/// Merges addresses of one frontend, and leaves out those that another frontend has.
pub(super) fn merge(draft: &mut Draft, report: &Report) {
    let (mut taken, mut said) = (Index::default(), Index::default());
    // A frontend that is left out binds nothing, but says that it shared an address.
    for frontend in &mut draft.frontends {
        let binds = std::mem::take(&mut frontend.binds);
        let is_out = frontend.left_out.is_some();
        for bind in within(binds, report) {
            if bind.ports.is_some_and(|(first, last)| last - first >= PORTS_MAX) {
                let reason = format!(
                    "a range of more than {PORTS_MAX} ports, each of which costs a socket for each \
                     worker: left out"
                );
                report.urgent(bind.place, reason);
                continue;
            }
            if said.overlaps(&bind) {
                let reason = "another frontend has this address: clients are spread over both";
                report.urgent(bind.place, reason);
            }
            if is_out {
                frontend.binds.push(bind);
            } else if !taken.overlaps(&bind) {
                taken.push(bind.clone());
                frontend.binds.push(bind);
            }
        }
        if frontend.left_out != Some(LeftOut::Disabled) {
            frontend.binds.iter().for_each(|bind| said.push(bind.clone()));
        }
        if frontend.binds.is_empty() && frontend.left_out.is_none() {
            note_without_address(frontend, report);
        }
    }
    draft.frontends.retain(|frontend| !frontend.binds.is_empty());
}

/// Leaves out addresses that an earlier frontend has, and frontends without an address.
pub(super) fn bind_once(frontends: &mut Vec<Frontend>) {
    let mut taken = Index::default();
    for frontend in frontends.iter_mut() {
        for bind in std::mem::take(&mut frontend.binds) {
            if !taken.overlaps(&bind) {
                taken.push(bind.clone());
                frontend.binds.push(bind);
            }
        }
    }
    frontends.retain(|frontend| !frontend.binds.is_empty());
}

fn note_without_address(frontend: &mut Frontend, report: &Report) {
    report.urgent(frontend.origin.first, "no address that evenkeel can listen on: left out");
    frontend.left_out = Some(LeftOut::Unroutable);
}

/// The addresses of one frontend, without those that a wildcard includes.
fn within(binds: Vec<Bind>, report: &Report) -> Vec<Bind> {
    let mut all = Index::default();
    for bind in binds {
        all.push(bind);
    }
    let mut kept: Vec<Bind> = Vec::new();
    let mut seen: HashSet<&Bind> = HashSet::new();
    for (index, bind) in all.binds.iter().enumerate() {
        let is_included = all.sharing(bind).into_iter().any(|at| {
            let other = &all.binds[at];
            let first = at < index || !includes(bind, other);
            at != index && includes(other, bind) && first
        });
        if !is_included {
            kept.push(bind.clone());
            seen.insert(bind);
        } else if !seen.contains(bind) {
            report.near(bind.place, "another address of the frontend includes it");
        }
    }
    kept
}

fn is_wildcard(bind: &Bind) -> bool {
    matches!(bind.host.as_str(), "0.0.0.0" | "[::]")
}

fn is_v6(bind: &Bind) -> bool {
    bind.host.starts_with('[')
}

/// Whether every connection to `inner` is one to `outer`.
fn includes(outer: &Bind, inner: &Bind) -> bool {
    let hosts = outer.host == inner.host
        || (is_wildcard(outer) && is_v6(outer) == is_v6(inner) && inner.ports.is_some());
    let ports = match (outer.ports, inner.ports) {
        (Some((a, b)), Some((c, d))) => a <= c && d <= b,
        (None, None) => true,
        _ => false,
    };
    hosts && ports
}

/// Whether the kernel allows only one of them.
fn overlap(a: &Bind, b: &Bind) -> bool {
    let hosts = a.host == b.host || ((is_wildcard(a) || is_wildcard(b)) && is_v6(a) == is_v6(b));
    match (a.ports, b.ports) {
        (Some((a1, a2)), Some((b1, b2))) => hosts && a1 <= b2 && b1 <= a2,
        (None, None) => a.host == b.host,
        _ => false,
    }
}

/// The status page gives way to a frontend: also the one that evenkeel has by default.
pub(super) fn page(draft: &mut Draft, report: &Report) {
    const DEFAULT: &str = "127.0.0.1:8404";
    let setting = draft.settings.iter_mut().find(|it| it.table == "observe" && it.key == "bind");
    let text = setting.as_ref().map_or(DEFAULT, |it| it.value.trim_matches('"')).to_owned();
    let Some((host, port)) = text.rsplit_once(':') else { return };
    let Ok(port) = port.parse() else { return };
    let page = Bind { host: host.to_owned(), ports: Some((port, port)), place: Place::default() };
    let mut binds =
        draft.frontends.iter().filter(|it| it.left_out.is_none()).flat_map(|it| &it.binds);
    let Some(bind) = binds.find(|bind| overlap(bind, &page)) else { return };
    report.near(bind.place, format!("the status page cannot have {text} as well: it is off"));
    match setting {
        Some(setting) => "false".clone_into(&mut setting.value),
        None => draft.settings.push(Setting {
            table: "observe",
            key: "bind",
            value: "false".to_owned(),
        }),
    }
}
