//! `sni` and `alpn` of a frontend: which name leads to which backend.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::declare::Setting;
use super::kinds::{Format, Key, Presence, Value};
use super::problems::{Span, literal, shown};
use super::reader::Field;

/// One name, and the backend that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// A server name or "*.name", in lower case and without the dot at its end; or a protocol.
    pub name: String,
    /// The name of the backend.
    pub backend: String,
    /// Where it is in the file.
    pub span: Span,
}

impl Setting for Route {
    fn of(value: Value<'_>, span: Span) -> Option<Self> {
        let Value::Route(name, backend) = value else { return None };
        Some(Self { name, backend, span })
    }
}

impl Key {
    /// Whether `table`, which does not have this key, must have it.
    pub(super) fn is_missing_in(&self, table: &DeTable<'_>) -> bool {
        let is_empty =
            |value: &DeValue<'_>| matches!(value, DeValue::Table(routes) if routes.is_empty());
        let has_routes = |key: &str| table.get(key).is_some_and(|value| !is_empty(value.get_ref()));
        match self.presence {
            Presence::Required => !self.alternatives().iter().any(|name| table.contains_key(*name)),
            Presence::RequiredUnlessRouted => !has_routes("sni") && !has_routes("alpn"),
            Presence::Optional | Presence::Default => false,
        }
    }
}

impl<'a> Field<'_, 'a> {
    /// Names of this syntax with their backends, in the order of the file.
    pub(super) fn routes(&self, format: &Format, table: &DeTable<'_>) -> Value<'a> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut known: BTreeMap<String, Span> = BTreeMap::new();
        let mut routes = Vec::new();
        for (name, value) in entries {
            let (offset, written): (usize, &str) = (name.span().start, name.get_ref());
            if let Some(whole) = dotted(written, value.get_ref()) {
                let key = self.key.name;
                let text = format!(
                    "{key} {whole}: a dot of a key without quotes begins a table; write {whole:?}"
                );
                self.sink.push(offset, text);
                continue;
            }
            let span = self.sink.span(offset);
            let problem = |text: &str| {
                let text = format!("{} {}: {text}", self.key.name, shown(written));
                self.sink.push(offset, text);
            };
            let name = match (format.parse)(written) {
                Ok(Value::Text(name)) => name,
                Ok(_) => continue,
                Err(text) => {
                    problem(&text);
                    continue;
                }
            };
            if let Some(Span { line, .. }) = known.insert(name.clone(), span) {
                problem(&format!("the same name as in line {line}; remove one of them"));
            }
            match value.get_ref() {
                DeValue::String(backend) if !backend.is_empty() => {
                    routes.push((Value::Route(name, backend.to_string()), span));
                }
                other => {
                    let other = literal(other);
                    problem(&format!("{other} is no backend; write the name of one in quotes"));
                }
            }
        }
        Value::List(routes)
    }
}

/// Bytes of a name at which no further level is added to it.
const NAME_SHOWN_MAX: usize = 100;

/// The name that was probably meant by a key without quotes, whose dots TOML takes for tables:
/// `www.example.org`. None: the value is no table.
fn dotted(first: &str, value: &DeValue<'_>) -> Option<String> {
    let DeValue::Table(first_table) = value else { return None };
    let mut table = first_table;
    let mut name = shown(first).trim_matches('"').to_owned();
    // Each level of the file is one; a name has few.
    while let Some((next, value)) = table.iter().next()
        && name.len() < NAME_SHOWN_MAX
    {
        name = format!("{name}.{}", shown(next.get_ref()).trim_matches('"'));
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use crate::config::{self, Config};

    fn parse(frontend: &str) -> Result<Config, String> {
        let text = format!(
            "[frontend.f]\nbind = [\"127.0.0.1:1\"]\n{frontend}\n\
             [[backend.a.server]]\nname = \"s\"\naddress = \"192.0.2.1:1\"\n\
             [[backend.b.server]]\nname = \"s\"\naddress = \"192.0.2.1:2\"\n"
        );
        config::parse(&text, "x").map_err(|problems| problems.to_string())
    }

    #[test]
    fn names_are_kept_in_the_order_of_the_file_and_as_they_are_compared() {
        let sni = "sni = { \"WWW.Example.org.\" = \"b\", \"*.a-b.TEST\" = \"a\" }\n";
        let alpn = "[frontend.f.alpn]\nh2 = \"a\"\n\"http/1.1\" = \"b\"";
        let config = parse(&format!("{sni}{alpn}")).unwrap();
        let frontend = &config.frontends[0];
        let names: Vec<_> = frontend.sni.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["www.example.org", "*.a-b.test"]);
        let names: Vec<_> = frontend.alpn.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["h2", "http/1.1"]);
        assert_eq!(frontend.backend, None);
        let backends: Vec<_> = frontend.backends().map(|(name, _)| name).collect();
        assert_eq!(backends, ["b", "a", "a", "b"]);
    }

    #[test]
    fn what_is_no_route_is_reported_with_a_remedy() {
        for (lines, part) in [
            ("sni = { \"*\" = \"a\" }", "x:3:9: sni \"*\": every name; write this backend as"),
            ("sni = { \"a..b\" = \"a\" }", "not a server name; write one such as"),
            ("sni = { \"www.*.test\" = \"a\" }", "not a server name"),
            ("sni = { \"\" = \"a\" }", "not a server name"),
            ("sni = { \"b\u{fc}cher.test\" = \"a\" }", "not ASCII"),
            (
                "sni.www.a.test = \"a\"",
                "x:3:5: sni www.a.test: a dot of a key without quotes begins a table; write \
                 \"www.a.test\"",
            ),
            ("[frontend.f.sni]\ngit.\"a.b\" = \"a\"", "write \"git.a.b\""),
            ("[frontend.f.sni]\ngit = {}", "sni git: a dot"),
            ("sni = { \"a.test\" = 5 }", "5 is no backend; write the name of one"),
            ("sni = { \"a.test\" = \"a\", \"A.TEST.\" = \"b\" }", "the same name as in line 3"),
            ("sni = { \"a.test\" = \"c\" }", "sni \"a.test\" = \"c\": no such backend; did you"),
            ("backend = \"a\"\nalpn = { \"\" = \"a\" }", "not a protocol"),
            ("backend = \"a\"\nsni = [\"a.test\"]", "expected a table"),
            ("sni = {}", "[frontend.f] has no backend; add backend = \"web\""),
        ] {
            let problems = parse(lines).unwrap_err();
            assert!(problems.contains(part), "{lines}\n{problems}");
        }
    }
}
