//! The result as text: sections in the order of the input, and a comment for each line that has
//! no equivalent or another meaning.

use super::draft::{Backend, Draft, Entry, Frontend, LeftOut, Origin};
use super::literal;
use super::report::{Kind, Note, Place};

/// The result.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) toml: String,
    /// The keys in it, each with the number of its line.
    pub(super) keys: Vec<(usize, Owner, &'static str)>,
}

/// The part of the draft that a key belongs to: positions in its lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The table of settings with this name.
    Settings(&'static str),
    Frontend(usize),
    Backend(usize),
    Health(usize),
    /// Of a backend, one of its servers.
    Server(usize, usize),
}

/// Lines of the result.
#[derive(Debug, Default)]
struct Text {
    out: String,
    /// How many.
    count: usize,
    keys: Vec<(usize, Owner, &'static str)>,
    /// Written as comments.
    is_comment: bool,
}

impl Text {
    fn line(&mut self, line: &str) {
        for line in line.lines() {
            if self.is_comment {
                self.out.push_str("# ");
            }
            self.out.push_str(line);
            self.out.push('\n');
            self.count += 1;
        }
    }

    fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
            self.count += 1;
        }
    }

    fn key(&mut self, owner: Owner, key: &'static str, value: &str) {
        self.line(&format!("{key} = {value}"));
        self.keys.push((self.count, owner, key));
    }

    /// Of a key that the input sets more than once, the last value is in force there.
    fn entries(&mut self, owner: Owner, entries: &[Entry]) {
        for (index, (key, value)) in entries.iter().enumerate() {
            if entries[index + 1..].iter().all(|(later, _)| later != key) {
                self.key(owner, key, value);
            }
        }
    }

    fn notes(&mut self, notes: &[&Note]) {
        for note in notes {
            let kind = match note.kind {
                Kind::Near => "differs",
                Kind::Report => "not converted",
            };
            self.out.push_str(&format!(
                "# line {}: {kind}: {}: {}\n",
                note.line, note.text, note.reason
            ));
            self.count += 1;
        }
    }
}

/// One section of the result.
enum Section<'a> {
    Frontend(usize, &'a Frontend),
    Backend(usize, &'a Backend),
}

impl Section<'_> {
    const fn origin(&self) -> Origin {
        match self {
            Self::Frontend(_, frontend) => frontend.origin,
            Self::Backend(_, backend) => backend.origin,
        }
    }
}

/// Writes the configuration. `name` is the input.
pub(super) fn write(draft: &Draft, notes: &[(Place, Note)], name: &str) -> Written {
    let mut text = Text::default();
    head(&mut text, notes, name);
    let frontends = draft.frontends.iter().enumerate();
    let backends = draft.backends.iter().enumerate();
    let mut sections: Vec<Section<'_>> = frontends
        .map(|(index, one)| Section::Frontend(index, one))
        .chain(backends.map(|(index, one)| Section::Backend(index, one)))
        .collect();
    sections
        .sort_by_key(|section| (section.origin().first, matches!(section, Section::Backend(..))));
    let mut pending = notes.iter().peekable();
    let mut until = |end: Place| -> Vec<&Note> {
        std::iter::from_fn(|| pending.next_if(|(place, _)| *place < end))
            .map(|(_, note)| note)
            .collect()
    };
    let first =
        sections.first().map_or(Place { file: usize::MAX, line: 0 }, |it| it.origin().first);
    let before = until(first);
    if !before.is_empty() {
        text.gap();
        text.notes(&before);
    }
    settings(&mut text, draft);
    for section in &sections {
        let Origin { first, last } = section.origin();
        let between = until(first);
        if !between.is_empty() {
            text.gap();
            text.notes(&between);
        }
        text.gap();
        let own = until(Place { file: first.file, line: last + 1 });
        text.notes(&own);
        match section {
            Section::Frontend(index, it) => frontend(&mut text, *index, it),
            Section::Backend(index, it) => backend(&mut text, *index, it),
        }
    }
    let rest = until(Place { file: usize::MAX, line: usize::MAX });
    if !rest.is_empty() {
        text.gap();
        text.notes(&rest);
    }
    Written { toml: text.out, keys: text.keys }
}

/// The origin of the file, and the urgent notes.
fn head(text: &mut Text, notes: &[(Place, Note)], name: &str) {
    text.line(&format!("# Converted from {name} by `evenkeel convert`."));
    let urgent: Vec<&Note> = notes.iter().map(|(_, note)| note).filter(|it| it.is_urgent).collect();
    if !urgent.is_empty() {
        text.line("#");
        text.line("# Read this before use:");
        text.notes(&urgent);
    }
    let lost = notes.iter().filter(|(_, note)| note.kind == Kind::Report).count();
    if lost > urgent.len() {
        text.line("#");
        text.line("# Lines without an equivalent stand as comments below, each with its reason.");
    }
}

fn settings(text: &mut Text, draft: &Draft) {
    for table in ["global", "observe", "observe.log"] {
        let own: Vec<_> = draft.settings.iter().filter(|it| it.table == table).collect();
        if own.is_empty() {
            continue;
        }
        text.gap();
        text.line(&format!("[{table}]"));
        for setting in own {
            text.key(Owner::Settings(table), setting.key, &setting.value);
        }
    }
}

fn frontend(text: &mut Text, index: usize, frontend: &Frontend) {
    if let Some(left_out) = frontend.left_out {
        text.line(match left_out {
            LeftOut::Tls => "# Left out, because evenkeel does not end TLS:",
            LeftOut::Unroutable => "# Left out, because evenkeel cannot tell where its clients go:",
            LeftOut::Disabled => "# Left out, because it is disabled:",
        });
        text.is_comment = true;
    }
    text.line(&format!("[frontend.{}]", literal::key(&frontend.name)));
    let binds: Vec<String> = frontend.binds.iter().map(super::draft::Bind::text).collect();
    text.line(&format!("bind = {}", literal::list(&binds)));
    if let Some(backend) = &frontend.backend {
        text.line(&format!("backend = {}", literal::quoted(backend)));
    }
    text.entries(Owner::Frontend(index), &frontend.entries);
    for (key, routes) in [("sni", &frontend.sni), ("alpn", &frontend.alpn)] {
        if routes.is_empty() {
            continue;
        }
        text.line(&format!("[frontend.{}.{key}]", literal::key(&frontend.name)));
        for (name, backend) in routes {
            text.line(&format!("{} = {}", literal::quoted(name), literal::quoted(backend)));
        }
    }
    text.is_comment = false;
    if frontend.left_out.is_some() {
        text.gap();
    }
}

fn backend(text: &mut Text, index: usize, backend: &Backend) {
    let name = literal::key(&backend.name);
    text.line(&format!("[backend.{name}]"));
    text.entries(Owner::Backend(index), &backend.entries);
    if !backend.health.is_empty() {
        text.line(&format!("[backend.{name}.health]"));
        text.entries(Owner::Health(index), &backend.health);
    }
    for (at, server) in backend.servers.iter().enumerate() {
        text.line(&format!("[[backend.{name}.server]]"));
        text.line(&format!("name = {}", literal::quoted(&server.name)));
        let unknown = if server.address.is_known() { "" } else { " # a name that never resolves" };
        text.line(&format!("address = {}{unknown}", literal::quoted(&server.address.text())));
        if let Some(weight) = server.weight {
            text.line(&format!("weight = {weight}"));
        }
        if server.is_backup {
            text.line("backup = true");
        }
        text.entries(Owner::Server(index, at), &server.entries);
    }
}
