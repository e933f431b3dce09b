//! What differs between two texts of the configuration, key by key as they are written: for
//! `evenkeel reload --dry-run`.

use std::collections::BTreeSet;
use std::fmt;

use toml::{Table, Value};

use super::kinds::{Key, Kind, Presence, Section};
use super::settings::Config;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of what.
    pub item: Item,
    /// What differs.
    pub change: Change,
}

/// What differs about an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the new text has it, with these keys.
    Added(String),
    /// Only the old text has it.
    Removed,
    /// A key differs.
    Key {
        /// With that of its section: "health.interval".
        key: String,
        /// As TOML.
        old: String,
        /// As TOML.
        new: String,
    },
    /// Its servers are in another order.
    Reordered,
}

/// A part of the configuration that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `[global]` and `[observe]`.
    Process,
    /// A frontend.
    Frontend(String),
    /// A backend.
    Backend(String),
    /// A server: its backend, and its name.
    Server(String, String),
}

impl Difference {
    /// The key that differs, if it is one of `[global]` or `[observe]`.
    #[must_use]
    pub fn process_key(&self) -> Option<&str> {
        match (&self.item, &self.change) {
            (Item::Process, Change::Key { key, .. }) => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => out.write_str("process"),
            Self::Frontend(name) => write!(out, "frontend {name}"),
            Self::Backend(name) => write!(out, "backend {name}"),
            Self::Server(backend, name) => write!(out, "server {backend}/{name}"),
        }
    }
}

/// Characters of a value that are shown.
const SHOWN: usize = 120;

/// What differs between two valid texts. A text that is not valid counts as empty.
#[must_use]
pub fn differences(old: &str, new: &str) -> Vec<Difference> {
    let read =
        |text: &str| text.trim_start_matches('\u{feff}').parse::<Table>().unwrap_or_default();
    let mut comparison = Comparison { found: Vec::new() };
    comparison.section(Config::SECTION, "", &Item::Process, &read(old), &read(new));
    comparison.found
}

struct Comparison {
    found: Vec<Difference>,
}

impl Comparison {
    fn push(&mut self, item: &Item, change: Change) {
        self.found.push(Difference { item: item.clone(), change });
    }

    /// Compares the keys of a section that both texts have. `prefix`: where it is in its item.
    fn section(&mut self, section: &Section, prefix: &str, item: &Item, old: &Table, new: &Table) {
        let none = Table::new();
        for key in section.keys {
            let (was, is) = (old.get(key.name), new.get(key.name));
            let path = format!("{prefix}{}", key.name);
            let table = |value: Option<&Value>| {
                value.and_then(Value::as_table).cloned().unwrap_or_default()
            };
            match key.kind {
                // An empty table is a setting too.
                Kind::Table(_) if is_optional(key) && was.is_some() != is.is_some() => {
                    self.key(key, path, item, was, is);
                }
                Kind::Table(inner) => {
                    let (was, is) = (
                        was.and_then(Value::as_table).unwrap_or(&none),
                        is.and_then(Value::as_table).unwrap_or(&none),
                    );
                    self.section(inner, &format!("{path}."), item, was, is);
                }
                Kind::Named(inner) => {
                    let named = |table: Table| table.into_iter().collect::<Vec<_>>();
                    let items = [named(table(was)), named(table(is))];
                    self.items(inner, items, |name| match key.name {
                        "frontend" => Item::Frontend(name),
                        _ => Item::Backend(name),
                    });
                }
                Kind::Tables(inner) => {
                    let Item::Backend(backend) = item else { continue };
                    let (was, is) = (by_name(was), by_name(is));
                    if is_reordered(&was, &is) {
                        self.push(item, Change::Reordered);
                    }
                    self.items(inner, [was, is], |name| Item::Server(backend.clone(), name));
                }
                _ => self.key(key, path, item, was, is),
            }
        }
    }

    /// Compares items by their names.
    fn items(
        &mut self,
        section: &Section,
        [old, new]: [Vec<(String, Value)>; 2],
        item: impl Fn(String) -> Item,
    ) {
        let none = Table::new();
        let find = |items: &[(String, Value)], name: &str| {
            items.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        for (name, _) in old.iter().filter(|(name, _)| find(&new, name).is_none()) {
            self.push(&item(name.clone()), Change::Removed);
        }
        for (name, value) in &new {
            let Some(is) = value.as_table() else { continue };
            let item = item(name.clone());
            match find(&old, name) {
                Some(was) => {
                    self.section(section, "", &item, was.as_table().unwrap_or(&none), is);
                }
                None => {
                    let mut keys = Vec::new();
                    written(section, "", is, &mut keys);
                    self.push(&item, Change::Added(keys.join(", ")));
                    self.added_servers(section, &item, is);
                }
            }
        }
    }

    /// The servers of a new backend.
    fn added_servers(&mut self, section: &Section, item: &Item, new: &Table) {
        for key in section.keys {
            if let (Kind::Tables(inner), Item::Backend(backend)) = (&key.kind, item) {
                let servers = by_name(new.get(key.name));
                let item = |name| Item::Server(backend.clone(), name);
                self.items(inner, [Vec::new(), servers], item);
            }
        }
    }

    fn key(
        &mut self,
        key: &Key,
        path: String,
        item: &Item,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        let default = default_of(key);
        let (was, is) = (old.or(default.as_ref()), new.or(default.as_ref()));
        if !is_same(&key.kind, was, is) {
            let (old, new) = (shown(was), shown(is));
            self.push(item, Change::Key { key: path, old, new });
        }
    }
}

/// The tables of an array, by their names.
fn by_name(array: Option<&Value>) -> Vec<(String, Value)> {
    let items = array.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = |item: &Value| Some((item.get("name")?.as_str()?.to_owned(), item.clone()));
    items.iter().filter_map(named).collect()
}

/// Whether items of both are in another order.
fn is_reordered(old: &[(String, Value)], new: &[(String, Value)]) -> bool {
    fn names(items: &[(String, Value)]) -> impl Iterator<Item = &String> + Clone {
        items.iter().map(|(name, _)| name)
    }
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (names(old).collect(), names(new).collect());
    let stays = names(old).filter(|name| is.contains(name));
    !stays.eq(names(new).filter(|name| was.contains(name)))
}

/// The keys of a table as they are written, without those of its servers and without its name.
fn written(section: &Section, prefix: &str, table: &Table, found: &mut Vec<String>) {
    for key in section.keys {
        let path = format!("{prefix}{}", key.name);
        match (&key.kind, table.get(key.name)) {
            (Kind::Table(inner), Some(Value::Table(table)))
                if !(table.is_empty() && is_optional(key)) =>
            {
                written(inner, &format!("{path}."), table, found);
            }
            (Kind::Named(_) | Kind::Tables(_), _) | (_, None) => {}
            (Kind::Table(_), _) if !is_optional(key) => {}
            (_, Some(_)) if path == "name" => {}
            (_, value) => found.push(format!("{path} = {}", shown(value))),
        }
    }
}

fn is_optional(key: &Key) -> bool {
    key.presence == Presence::Optional
}

fn default_of(key: &Key) -> Option<Value> {
    let text = format!("default = {}", key.literal);
    let default = || text.parse::<Table>().ok()?.remove("default");
    if key.presence == Presence::Default { default() } else { None }
}

/// Whether two values mean the same: "60s" and "1m".
fn is_same(kind: &Kind, old: Option<&Value>, new: Option<&Value>) -> bool {
    match (kind, old, new) {
        _ if old == new => true,
        (Kind::Or(inner, _), ..) => is_same(inner, old, new),
        (Kind::List(inner), Some(Value::Array(old)), Some(Value::Array(new))) => {
            let pairs = || old.iter().zip(new);
            old.len() == new.len() && pairs().all(|(a, b)| is_same(inner, Some(a), Some(b)))
        }
        (kind, Some(Value::String(old)), Some(Value::String(new))) if kind.is_string() => {
            match (kind.of_string(old), kind.of_string(new)) {
                (Ok(old), Ok(new)) => format!("{old:?}") == format!("{new:?}"),
                _ => false,
            }
        }
        _ => false,
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "not set".to_owned() };
    let text = value.to_string();
    let mut start: String = text.chars().take(SHOWN).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
[global]
workers = 2
[frontend.f]
bind = ["127.0.0.1:80"]
backend = "b"
idle_timeout = "60s"
[frontend.old]
bind = ["127.0.0.1:81"]
backend = "b"
[backend.b.health]
interval = "2s"
[[backend.b.server]]
name = "s1"
address = "a:80"
[[backend.b.server]]
name = "s2"
address = "b:80"
"#;

    /// The lines of the differences between [`OLD`] and that text with replacements.
    fn lines(replacements: &[(&str, &str)]) -> Vec<String> {
        let mut new = OLD.to_owned();
        for (from, to) in replacements {
            assert!(new.contains(from), "{from}");
            new = new.replace(from, to);
        }
        let line = |Difference { item, change }: Difference| format!("{item}: {change:?}");
        differences(OLD, &new).into_iter().map(line).collect()
    }

    fn key(key: &str, old: &str, new: &str) -> String {
        let (key, old, new) = (key.to_owned(), old.to_owned(), new.to_owned());
        format!("{:?}", Change::Key { key, old, new })
    }

    #[test]
    fn what_means_the_same_is_no_difference() {
        assert!(lines(&[]).is_empty());
        let same = [
            ("\"60s\"", "\"1m\""),
            ("interval = \"2s\"", "# the default"),
            ("[frontend.f]", "\n\n[frontend.f]"),
        ];
        assert!(lines(&same).is_empty());
    }

    #[test]
    fn a_key_is_shown_with_both_values_and_its_default() {
        let lines = lines(&[
            ("workers = 2", ""),
            ("idle_timeout = \"60s\"", "idle_timeout = \"off\"\nsessions_max = 5"),
            ("interval = \"2s\"", "interval = \"3s\"\nhttp.path = \"/x\""),
            ("address = \"b:80\"", "address = \"b:80\"\nweight = 50"),
        ]);
        let expected = [
            format!("process: {}", key("global.workers", "2", "\"auto\"")),
            format!("frontend f: {}", key("sessions_max", "not set", "5")),
            format!("frontend f: {}", key("idle_timeout", "\"60s\"", "\"off\"")),
            format!("backend b: {}", key("health.interval", "\"2s\"", "\"3s\"")),
            format!("backend b: {}", key("health.http.path", "\"/\"", "\"/x\"")),
            format!("server b/s2: {}", key("weight", "100", "50")),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_optional_table_is_a_setting_even_if_it_is_empty() {
        let with = |rest: &str| lines(&[("interval = \"2s\"", rest)]);
        let tls = |new: &str| [format!("backend b: {}", key("health.tls", "not set", new))];
        assert_eq!(with("tls = {}"), tls("{}"));
        assert_eq!(with("tls = { verify = true }"), tls("{ verify = true }"));
        assert!(with("http = {}").is_empty(), "its default");
        let new = OLD.replace("interval = \"2s\"", "tls = {}");
        let found = differences(&new, OLD);
        let removed = ("health.tls".to_owned(), "{}".to_owned(), "not set".to_owned());
        let (key, old, new) = removed;
        assert_eq!(found[0].change, Change::Key { key, old, new });
        let backend = "[backend.c]\nhealth.tls = {}\n[backend.b.health]";
        let added = lines(&[("[backend.b.health]", backend)]);
        let keys = Change::Added("health.tls = {}".to_owned());
        assert_eq!(added, [format!("backend c: {keys:?}")]);
    }

    #[test]
    fn what_comes_and_goes_is_named() {
        let more = "[backend.c]\nbalance = \"first\"\nhealth.check = \"off\"\n\
                    [[backend.c.server]]\nname = \"s3\"\naddress = \"c:80\"\n[backend.b.health]";
        let lines = lines(&[
            ("[frontend.old]", "[frontend.new]"),
            ("[backend.b.health]", more),
            ("name = \"s1\"", "name = \"s0\""),
        ]);
        let added = |keys: &str| format!("{:?}", Change::Added(keys.to_owned()));
        let expected = [
            "frontend old: Removed".to_owned(),
            format!("frontend new: {}", added("bind = [\"127.0.0.1:81\"], backend = \"b\"")),
            "server b/s1: Removed".to_owned(),
            format!("server b/s0: {}", added("address = \"a:80\"")),
            format!("backend c: {}", added("balance = \"first\", health.check = \"off\"")),
            format!("server c/s3: {}", added("address = \"c:80\"")),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn another_order_of_the_servers_is_a_difference() {
        let swapped = [("s1", "x"), ("s2", "s1"), ("\"x\"", "\"s2\""), ("a:80", "x:80")];
        let swapped = [&swapped[..], &[("b:80", "a:80"), ("x:80", "b:80")]].concat();
        assert_eq!(lines(&swapped), ["backend b: Reordered"]);
    }
}
