//! Arrays of tables, as written.

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{Section, Value};
use super::problems::Span;
use super::reader::Field;

/// The endpoints of a backend are numbered with 16 bits, and a server may have several.
const SERVERS_MAX: usize = 10_000;

impl<'a> Field<'_, 'a> {
    /// The tables of an array, in the order of the file.
    pub(super) fn tables(
        &self,
        section: &'static Section,
        offset: usize,
        items: &'a [Spanned<DeValue<'a>>],
    ) -> Option<Value<'a>> {
        let path = self.path;
        if items.is_empty() {
            self.sink.push(offset, format!("no server; add [[{path}]] with name and address"));
        }
        if items.len() > SERVERS_MAX {
            let text = format!("more than {SERVERS_MAX} servers; write several backends");
            self.sink.push(offset, text);
        }
        Some(Value::List(self.items(section, items)))
    }

    /// A table, or an array of them.
    pub(super) fn one_or_more(
        &self,
        section: &'static Section,
        offset: usize,
        value: &'a DeValue<'a>,
    ) -> Option<Value<'a>> {
        let path = self.path;
        match value {
            DeValue::Table(table) => {
                let table = self.table(section, table, path.to_owned(), "", offset);
                Some(Value::List(vec![(Value::Table(table), self.sink.span(offset))]))
            }
            DeValue::Array(items) => {
                if items.is_empty() {
                    let text = format!("{path} is empty; write at least one table, or remove it");
                    self.sink.push(offset, text);
                }
                Some(Value::List(self.items(section, items)))
            }
            _ => None,
        }
    }

    fn items(
        &self,
        section: &'static Section,
        items: &'a [Spanned<DeValue<'a>>],
    ) -> Vec<(Value<'a>, Span)> {
        let path = self.path;
        let one = |item: &'a Spanned<DeValue<'a>>| {
            let offset = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                let text = format!("an item of {path} is not a table; write [[{path}]]");
                self.sink.push(offset, text);
                return None;
            };
            let table = self.table(section, table, path.to_owned(), "", offset);
            Some((Value::Table(table), self.sink.span(offset)))
        };
        items.iter().filter_map(one).collect()
    }
}
