//! A section of the file and its fields, read one by one: each problem goes to the sink, and the
//! reading goes on with the default.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{Keys, elsewhere, instead_of, stands_for};
use super::problems::{Sink, nearest, shown};
use super::values;
use super::words::Words;
use crate::control::config::Place;

/// A table of the file, or one that is not written and has only defaults.
#[derive(Debug)]
pub(super) struct Section<'a> {
    sink: &'a Sink<'a>,
    keys: &'static Keys,
    table: Option<&'a DeTable<'a>>,
    /// As its header has it, without brackets: "frontend.http".
    path: String,
    offset: usize,
}

impl<'a> Section<'a> {
    /// A table; its keys are checked at once.
    pub(super) fn new(
        sink: &'a Sink<'a>,
        keys: &'static Keys,
        table: &'a DeTable<'a>,
        path: String,
        offset: usize,
    ) -> Self {
        let section = Self { sink, keys, table: Some(table), path, offset };
        for key in table.keys() {
            section.check_key(key.span().start, key.get_ref());
        }
        section
    }

    /// What holds where nothing is written.
    pub(super) const fn absent(sink: &'a Sink<'a>, keys: &'static Keys) -> Self {
        Self { sink, keys, table: None, path: String::new(), offset: 0 }
    }

    fn check_key(&self, offset: usize, key: &str) {
        let Keys { known, later, .. } = self.keys;
        if known.contains(&key) {
            return;
        }
        let place = if self.path.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{}]", self.path)
        };
        if later.contains(&key) {
            self.sink.wrong(offset, format!("{key} {place} is not supported yet; remove it"));
            return;
        }
        if let Some(remedy) = instead_of(key) {
            let text = format!("{key} {place} is a word of HAProxy's; {remedy}");
            self.sink.wrong(offset, text);
            return;
        }
        let remedy = elsewhere(key).unwrap_or_else(|| match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the keys here are {}", known.join(", ")),
        });
        self.sink.wrong(offset, format!("unknown key {} {place}; {remedy}", shown(key)));
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        self.sink.place(self.offset)
    }

    /// Something is missing in it: "what; what to do".
    pub(super) fn missing(&self, text: &str) {
        self.sink.missing(self.offset, text);
    }

    /// Something is wrong with it as a whole: "what; what to do".
    pub(super) fn wrong(&self, text: &str) {
        self.sink.wrong(self.offset, text);
    }

    /// As its header has it, without brackets.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A field, if it is written.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(self.keys.known.contains(&key), "{key} is read, so it is known");
        let value = self.table?.get(key)?;
        Some(Field { sink: self.sink, key, offset: value.span().start, value: value.get_ref() })
    }

    /// A field that must be there; `example` is how it is written.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<Field<'a>> {
        let field = self.field(key);
        if field.is_none() && !self.has_haproxys(key) {
            let text = format!("[{}] has no {key}; add {key} = {example}", self.path);
            self.sink.missing(self.offset, text);
        }
        field
    }

    /// Whether it is there by HAProxy's name, which has been found wrong.
    fn has_haproxys(&self, key: &str) -> bool {
        let mut keys = self.table.into_iter().flat_map(DeTable::keys);
        keys.any(|theirs| stands_for(theirs.get_ref(), key))
    }

    /// true or false.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let Some(field) = self.field(key) else { return default };
        if let DeValue::Boolean(flag) = field.value {
            return *flag;
        }
        field.wrong(&format!("{}, not true or false; write true or false", field.kind()));
        default
    }

    /// A whole number of a range.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        self.field(key)?.number(range, "")
    }

    /// A time of a range, "5m".
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let parsed = self.field(key).and_then(|field| {
            field.parsed("a time in quotes, such as \"5s\"", |text| values::duration(text, &range))
        });
        parsed.unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &Words<T>) -> T {
        let Some(field) = self.field(key) else { return words.default };
        let hint = words.list();
        field.parsed(&hint, |text| words.find(text)).unwrap_or(words.default)
    }

    /// The table `key` in it, written or not.
    pub(super) fn section(&self, key: &'static str, keys: &'static Keys) -> Self {
        let sink = self.sink;
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let Some(field) = self.field(key) else { return Section::absent(sink, keys) };
        match field.value {
            DeValue::Table(table) => Section::new(sink, keys, table, path, field.offset),
            _ => {
                field.wrong(&format!("{}, not a table; write [{path}]", field.kind()));
                Section::absent(sink, keys)
            }
        }
    }

    /// The tables in the table `key`, by their names, in the order of the file; none, if it is or
    /// has something else.
    pub(super) fn named(
        &self,
        key: &'static str,
        keys: &'static Keys,
    ) -> Option<Vec<(&'a str, Self)>> {
        let Some(field) = self.field(key) else { return Some(Vec::new()) };
        let DeValue::Table(table) = field.value else {
            field.wrong(&format!("{}, not a table; write [{key}.NAME]", field.kind()));
            return None;
        };
        let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'a>>)> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let section = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            self.named_one(key, name, value, keys)
        };
        let sections: Vec<_> = entries.into_iter().filter_map(section).collect();
        (table.is_empty() || !sections.is_empty()).then_some(sections)
    }

    fn named_one(
        &self,
        key: &'static str,
        name: &'a Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
        keys: &'static Keys,
    ) -> Option<(&'a str, Self)> {
        let offset = name.span().start;
        let name: &str = name.get_ref();
        if let Err(problem) = values::name(name) {
            self.sink.wrong(offset, format!("{key} {}: {problem}", shown(name)));
        }
        let path = format!("{key}.{}", as_key(name));
        let DeValue::Table(table) = value.get_ref() else {
            let remedy = format!("write [{key}.NAME] with its keys below");
            self.sink.wrong(offset, format!("{path} is not a table; {remedy}"));
            return None;
        };
        Some((name, Section::new(self.sink, keys, table, path, offset)))
    }

    /// The tables of the list `key`, in the order of the file; none, if it is something else.
    pub(super) fn list(&self, key: &'static str, keys: &'static Keys) -> Option<Vec<Self>> {
        let path = format!("{}.{key}", self.path);
        let Some(field) = self.field(key) else { return Some(Vec::new()) };
        let DeValue::Array(items) = field.value else {
            field.wrong(&format!("{}, not a list of tables; write [[{path}]]", field.kind()));
            return None;
        };
        let section = |item: &'a Spanned<DeValue<'a>>| {
            let offset = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                let text = format!("{key} has an item that is not a table; write [[{path}]]");
                self.sink.wrong(offset, text);
                return None;
            };
            Some(Section::new(self.sink, keys, table, path.clone(), offset))
        };
        let tables = items.iter().filter_map(section).collect::<Vec<_>>();
        (tables.len() == items.len()).then_some(tables)
    }
}

/// A key with its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    sink: &'a Sink<'a>,
    key: &'static str,
    offset: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Field<'a> {
    /// Where its value stands.
    pub(super) fn place(&self) -> Place {
        self.sink.place(self.offset)
    }

    /// The value is wrong: "what is wrong; what to do".
    pub(super) fn wrong(&self, text: &str) {
        self.sink.wrong(self.offset, self.said(text));
    }

    /// What the value names is not there.
    pub(super) fn missing(&self, text: &str) {
        self.sink.missing(self.offset, self.said(text));
    }

    fn said(&self, text: &str) -> String {
        let value = match self.value {
            DeValue::String(text) => shown(text),
            DeValue::Integer(number) => limited(number),
            DeValue::Float(number) => limited(number.as_str()),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => "[...]".to_owned(),
            DeValue::Table(_) => "{...}".to_owned(),
        };
        format!("{} = {value}: {text}", self.key)
    }

    /// What sort of value it is, with its article.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "a truth value",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// Whether it is the word `word`.
    pub(super) fn is(&self, word: &str) -> bool {
        self.value.as_str() == Some(word)
    }

    /// Whether it is `false`.
    pub(super) const fn is_off(&self) -> bool {
        matches!(self.value, DeValue::Boolean(false))
    }

    /// A string that `parse` understands; `wanted` says what it should be.
    pub(super) fn parsed<T>(
        &self,
        wanted: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let DeValue::String(text) = self.value else {
            self.wrong(&format!("{}, not a string; write {wanted}", self.kind()));
            return None;
        };
        parse(text).map_err(|problem| self.wrong(&problem)).ok()
    }

    /// A whole number of `range`; `or` says what else may stand there.
    pub(super) fn number(&self, range: RangeInclusive<u32>, or: &str) -> Option<u32> {
        let (least, most) = (range.start(), range.end());
        let DeValue::Integer(integer) = self.value else {
            let remedy = format!("write {least} to {most}, without quotes{or}");
            self.wrong(&format!("{}, not a whole number; {remedy}", self.kind()));
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong(&format!("out of range; write {least} to {most}{or}"));
        }
        number
    }

    /// The items of a list; none if it is none.
    pub(super) fn items(&self, wanted: &str) -> Option<Vec<Self>> {
        let DeValue::Array(items) = self.value else {
            self.wrong(&format!("{}, not a list; write {wanted}", self.kind()));
            return None;
        };
        let Self { sink, key, .. } = *self;
        let field = |item: &'a Spanned<DeValue<'a>>| Field {
            sink,
            key,
            offset: item.span().start,
            value: item.get_ref(),
        };
        Some(items.iter().map(field).collect())
    }
}

/// A key as TOML has it: in quotes unless it is bare.
fn as_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(bare) { limited(name) } else { shown(name) }
}

/// A number as written, not endless.
fn limited(number: impl Display) -> String {
    number.to_string().chars().take(40).collect()
}
