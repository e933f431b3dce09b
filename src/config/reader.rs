//! The configuration as written: the tables of the TOML document, each read by its declaration.
//! Every problem goes to the sink, and reading continues with the default.

use std::cell::RefCell;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::declare::Setting;
use super::haproxy;
use super::kinds::{Alternative, Key, Kind, Presence, Section, Table, Value, Written};
use super::networks;
use super::problems::{Sink, Span, as_key, literal, nearest, shown, toml_type};
use super::sources;
use super::values;

type Entry<'a> = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>);

impl<'a> Table<'a> {
    /// The whole document, declared by `root`.
    pub(super) fn document(
        root: &'static Section,
        sink: &'a Sink<'a>,
        table: &'a DeTable<'a>,
    ) -> Self {
        let written = Written { root, sink, table, path: String::new(), name: "", offset: 0 };
        Self::new(root, written)
    }

    /// A table that is not written.
    pub(super) const fn absent(section: &'static Section) -> Self {
        Self { section, written: None }
    }

    fn new(section: &'static Section, written: Written<'a>) -> Self {
        for (key, value) in written.table {
            written.check_key(section, key, value.get_ref());
        }
        Self { section, written: Some(written) }
    }

    /// What a section that users name is called; empty for one that is not written.
    pub(super) fn name(&self) -> Arc<str> {
        self.written.as_ref().map_or("", |written| written.name).into()
    }

    /// Where it is written.
    pub(super) fn span(&self) -> Span {
        let span = |written: &Written<'_>| written.sink.span(written.offset);
        self.written.as_ref().map(span).unwrap_or_default()
    }

    /// Whether it has no key.
    pub(super) fn is_empty(&self) -> bool {
        self.written.as_ref().is_none_or(|written| written.table.is_empty())
    }

    /// The setting of a key: as written, or its default.
    pub(super) fn get<T: Setting + Default>(&self, name: &str) -> T {
        let key = self.section.key(name);
        let setting = key.and_then(|key| {
            let written = self.written.as_ref().and_then(|written| written.value(key));
            let (value, span) = written.or_else(|| Some((absent(key)?, Span::default())))?;
            let setting = T::of(value, span);
            debug_assert!(setting.is_some(), "the type of {name} fits its kind");
            setting
        });
        setting.unwrap_or_default()
    }
}

/// What an absent key stands for; none: nothing.
fn absent(key: &'static Key) -> Option<Value<'static>> {
    match key.kind {
        Kind::Table(section) if key.presence == Presence::Default => {
            Some(Value::Table(Table::absent(section)))
        }
        Kind::Named(_) | Kind::Tables(_) => Some(Value::List(Vec::new())),
        _ if key.presence == Presence::Default => key.kind.of_literal(key.literal),
        _ => None,
    }
}

impl<'a> Written<'a> {
    /// Reports a key that the section does not have.
    fn check_key(&self, section: &Section, key: &Spanned<DeString<'_>>, value: &DeValue<'_>) {
        let name: &str = key.get_ref();
        if section.key(name).is_some() {
            return;
        }
        let offset = key.span().start;
        let place = if self.path.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{}]", self.path)
        };
        if let (true, DeValue::Table(defaults)) = (name == "defaults", value) {
            haproxy::defaults(self.root, offset, defaults, self.sink);
        } else if let Some(remedy) = haproxy::keyword(name, value) {
            let text = format!("{name} {place} is an HAProxy keyword; {remedy}");
            self.sink.push(offset, text);
        } else {
            let remedy = if self.sink.is_full() { None } else { self.suggestion(name, section) };
            let remedy = remedy.unwrap_or_else(|| {
                let known: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
                format!("valid keys are {}", known.join(", "))
            });
            self.sink.push(offset, format!("unknown key {} {place}; {remedy}", shown(name)));
        }
    }

    /// What to do about an unknown key, if another key is meant.
    fn suggestion(&self, name: &str, section: &Section) -> Option<String> {
        let sections = self.root.all();
        let having = sections.iter().skip(1).filter(|section| section.key(name).is_some());
        let known: Vec<String> = having.map(|section| format!("[{}]", section.path)).collect();
        if !known.is_empty() {
            return Some(format!("it is a key of {}", known.join(" or ")));
        }
        let near = nearest(name, section.keys.iter().map(|key| key.name))?;
        Some(format!("did you mean {near}?"))
    }

    /// The value of a key; none: absent, or reported.
    fn value(&self, key: &'static Key) -> Option<(Value<'a>, Span)> {
        let Some(value) = self.table.get(key.name) else {
            if key.is_missing_in(self.table) {
                self.missing(key);
            }
            return None;
        };
        let path = match self.path.as_str() {
            "" => key.name.to_owned(),
            path => format!("{path}.{}", key.name),
        };
        let field =
            Field { root: self.root, sink: self.sink, key, path: &path, hint: RefCell::default() };
        let offset = value.span().start;
        Some((field.value(&key.kind, offset, value.get_ref())?, self.sink.span(offset)))
    }

    fn missing(&self, key: &Key) {
        let what = match key.kind {
            Kind::Named(_) if self.table.is_empty() => {
                "the file is empty; add [frontend.NAME] with bind and backend".to_owned()
            }
            Kind::Named(_) => "no frontend; add [frontend.NAME] with bind and backend".to_owned(),
            Kind::Tables(_) => {
                let path = format!("{}.{}", self.path, key.name);
                format!("[{}] has no server; add [[{path}]] with name and address", self.path)
            }
            _ if self.table.keys().any(|theirs| haproxy::means(theirs.get_ref(), key.name)) => {
                return; // reported as an HAProxy keyword
            }
            _ => {
                let Key { name, literal, .. } = key;
                format!("[{}] has no {name}; add {name} = {literal}", self.path)
            }
        };
        self.sink.push(self.offset, what);
    }
}

/// The value of one key.
pub(super) struct Field<'s, 'a> {
    root: &'static Section,
    pub(super) sink: &'a Sink<'a>,
    pub(super) key: &'static Key,
    /// With that of its section: "backend.web.server".
    pub(super) path: &'s str,
    /// What the key accepts besides the type at hand.
    hint: RefCell<Option<Alternative>>,
}

impl<'a> Field<'_, 'a> {
    fn wrong(&self, offset: usize, value: &DeValue<'_>, text: &str) {
        self.sink.push(offset, format!("{} = {}: {text}", self.key.name, literal(value)));
    }

    fn value(
        &self,
        kind: &'static Kind,
        offset: usize,
        value: &'a DeValue<'a>,
    ) -> Option<Value<'a>> {
        match (kind, value) {
            (Kind::Or(_, other), DeValue::String(text))
                if other.literal().trim_matches('"') == text =>
            {
                Some(Value::Alternative)
            }
            (Kind::Or(_, Alternative::False), DeValue::Boolean(false)) => Some(Value::Alternative),
            (Kind::Or(inner, other), _) => {
                self.hint.replace(Some(*other));
                self.value(inner, offset, value)
            }
            (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Kind::Number(least, most), DeValue::Integer(integer)) => {
                let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
                let number = number.and_then(|number| u32::try_from(number).ok());
                let number = number.filter(|number| (least..=most).contains(&number));
                if number.is_none() {
                    let other = self.alternative();
                    let text = format!("out of range; write {least} to {most}{other}");
                    self.wrong(offset, value, &text);
                }
                number.map(Value::Number)
            }
            (Kind::List(inner), DeValue::Array(items)) => {
                if items.is_empty() {
                    self.wrong(offset, value, &format!("empty; write {}", self.key.literal));
                }
                let item = |item: &'a Spanned<DeValue<'a>>| {
                    let offset = item.span().start;
                    Some((self.value(inner, offset, item.get_ref())?, self.sink.span(offset)))
                };
                Some(Value::List(items.iter().filter_map(item).collect()))
            }
            (Kind::Networks, DeValue::Array(_) | DeValue::Table(_)) => {
                let wrong =
                    |offset, value: &DeValue<'_>, text: &str| self.wrong(offset, value, text);
                networks::of_value((offset, value), &kind.hint(), self.sink, &wrong)
                    .map(Value::Networks)
            }
            (Kind::Sources, DeValue::Array(_) | DeValue::String(_)) => {
                Some(Value::Sources(sources::read(offset, value, self.sink)))
            }
            (Kind::Routes(format), DeValue::Table(table)) => Some(self.routes(format, table)),
            (Kind::Table(section), DeValue::Table(table)) => {
                Some(Value::Table(self.table(section, table, self.path.to_owned(), "", offset)))
            }
            (Kind::Named(section), DeValue::Table(table)) => self.named(section, offset, table),
            (Kind::Tables(section), DeValue::Array(items)) => self.tables(section, offset, items),
            (Kind::OneOrMore(section), value @ (DeValue::Table(_) | DeValue::Array(_))) => {
                self.one_or_more(section, offset, value)
            }
            (kind, DeValue::String(text)) if kind.is_string() => {
                let value_of = kind.of_string(text);
                value_of.map_err(|problem| self.wrong(offset, value, &problem)).ok()
            }
            _ => {
                let (expected, found) = (kind.toml_type(), toml_type(value));
                let remedy = match kind {
                    Kind::Table(_) | Kind::OneOrMore(_) => format!("[{}]", self.path),
                    Kind::Named(_) => format!("[{}.NAME]", self.path),
                    Kind::Tables(_) => format!("[[{}]]", self.path),
                    Kind::List(_) => self.key.literal.to_owned(),
                    kind => kind.hint() + &self.alternative(),
                };
                let text = format!("expected {expected}, found {found}; write {remedy}");
                self.wrong(offset, value, &text);
                // It is written, so that no other key misses it.
                matches!(kind, Kind::OneOrMore(_)).then(|| Value::List(Vec::new()))
            }
        }
    }

    fn alternative(&self) -> String {
        let other = *self.hint.borrow();
        other.map(|other| format!(", or {}", other.literal())).unwrap_or_default()
    }

    pub(super) fn table(
        &self,
        section: &'static Section,
        table: &'a DeTable<'a>,
        path: String,
        name: &'a str,
        offset: usize,
    ) -> Table<'a> {
        Table::new(section, Written { root: self.root, sink: self.sink, table, path, name, offset })
    }

    /// The tables in a table, in the order of the file.
    fn named(
        &self,
        section: &'static Section,
        offset: usize,
        table: &'a DeTable<'a>,
    ) -> Option<Value<'a>> {
        if table.is_empty() && self.key.presence == Presence::Required {
            self.sink.push(offset, "no frontend; add [frontend.NAME] with bind and backend");
        }
        let mut entries: Vec<Entry<'a>> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let one = |(key, value): Entry<'a>| {
            let offset = key.span().start;
            let name: &str = key.get_ref();
            if let Err(problem) = values::name(name) {
                self.sink.push(offset, format!("{} {}: {problem}", self.path, shown(name)));
            }
            let path = format!("{}.{}", self.path, as_key(name));
            let DeValue::Table(table) = value.get_ref() else {
                let remedy = format!("write [{}.NAME] and its keys below it", self.path);
                self.sink.push(offset, format!("{path} is not a table; {remedy}"));
                return None;
            };
            let table = self.table(section, table, path, name, offset);
            Some((Value::Table(table), self.sink.span(offset)))
        };
        Some(Value::List(entries.into_iter().filter_map(one).collect()))
    }
}
