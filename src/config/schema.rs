//! The JSON schema of the configuration (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::declare::joined;
use super::kinds::{Key, Kind, Presence, Section};
use super::settings::Config;

/// The schema. Keys of a later version are not in it: this version refuses them.
#[must_use]
pub fn schema() -> Value {
    let mut schema = object(Config::SECTION);
    if let Some(fields) = schema.as_object_mut() {
        let dialect = json!("https://json-schema.org/draft/2020-12/schema");
        fields.insert("$schema".to_owned(), dialect);
        fields.insert("title".to_owned(), json!("evenkeel configuration"));
    }
    schema
}

fn object(section: &Section) -> Value {
    let of = |key: &Key| (key.name.to_owned(), property(key));
    let properties: Map<String, Value> = section.keys.iter().map(of).collect();
    let required = section.keys.iter().filter(|key| key.presence == Presence::Required);
    let (alone, one_of): (Vec<&Key>, Vec<&Key>) =
        required.partition(|key| key.alternatives().is_empty());
    let required: Vec<&str> = alone.iter().map(|key| key.name).collect();
    let mut object = json!({
        "type": "object",
        "description": joined(section.text),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    for key in one_of {
        let names = std::iter::once(&key.name).chain(key.alternatives());
        object["anyOf"] = names.map(|name| json!({ "required": [name] })).collect();
    }
    let routed = |key: &&Key| key.presence == Presence::RequiredUnlessRouted;
    if let Some(key) = section.keys.iter().find(routed) {
        let any = [key.name, "sni", "alpn"].map(|name| json!({ "required": [name] }));
        object["anyOf"] = json!(any);
    }
    object
}

fn property(key: &Key) -> Value {
    let mut schema = of_kind(&key.kind);
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("description".to_owned(), json!(joined(key.text)));
        let value = || serde_json::from_str(key.literal).ok(); // a TOML literal that JSON shares
        let name = if key.presence == Presence::Default { "default" } else { "examples" };
        if let Some(value) = value() {
            let value = if name == "default" { value } else { Value::Array(vec![value]) };
            fields.insert(name.to_owned(), value);
        }
    }
    schema
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Time(..) => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Kind::Size(..) => json!({ "type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB)$" }),
        Kind::Words(words) => json!({ "enum": words.known }),
        Kind::Text(format) => match format.pattern {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string", "minLength": 1 }),
        },
        Kind::List(inner) => json!({ "type": "array", "minItems": 1, "items": of_kind(inner) }),
        Kind::Or(inner, other) => {
            let other: Option<Value> = serde_json::from_str(other.literal()).ok();
            json!({ "anyOf": [of_kind(inner), { "const": other }] })
        }
        Kind::Networks => {
            let file = json!({ "type": "object", "properties": { "file": { "type": "string" } },
                "required": ["file"], "additionalProperties": false });
            let list = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
            json!({ "anyOf": [list, file] })
        }
        Kind::Sources => {
            let one = json!({ "type": "string", "minLength": 1 });
            json!({ "anyOf": [one, { "type": "array", "items": one }] })
        }
        Kind::Routes(_) => json!({ "type": "object",
            "additionalProperties": { "type": "string", "minLength": 1 } }),
        Kind::Table(section) => object(section),
        Kind::Named(section) => {
            json!({ "type": "object", "additionalProperties": object(section) })
        }
        Kind::Tables(section) => {
            json!({ "type": "array", "minItems": 1, "items": object(section) })
        }
        Kind::OneOrMore(section) => {
            let list = json!({ "type": "array", "minItems": 1, "items": object(section) });
            json!({ "anyOf": [object(section), list] })
        }
    }
}
