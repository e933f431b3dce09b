//! The part of JSON Schema (draft 2020-12) that `evenkeel schema` uses.

use regex_automata::meta::Regex;
use serde_json::Value;

/// Keywords that describe and do not restrict.
const ANNOTATIONS: [&str; 5] = ["$schema", "title", "description", "default", "examples"];

/// Collects the parts of `value` that `schema` refuses, as JSON pointers. `path` is that of
/// `value`.
pub(crate) fn validate(schema: &Value, value: &Value, path: &str, invalid: &mut Vec<String>) {
    let fits = |schema: &Value| {
        let mut invalid = Vec::new();
        validate(schema, value, path, &mut invalid);
        invalid.is_empty()
    };
    let mut valid = true;
    for (keyword, argument) in schema.as_object().unwrap() {
        valid &= match keyword.as_str() {
            "type" => match argument.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                other => panic!("type {other}"),
            },
            "const" => value == argument,
            "enum" => argument.as_array().unwrap().contains(value),
            "anyOf" => argument.as_array().unwrap().iter().any(fits),
            "minimum" => value.as_i64() >= argument.as_i64(),
            "maximum" => value.as_i64() <= argument.as_i64(),
            "minLength" => value.as_str().is_none_or(|text| !text.is_empty()),
            "minItems" => value.as_array().is_none_or(|items| !items.is_empty()),
            "pattern" => value.as_str().is_none_or(|text| matches(text, argument)),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(argument, item, &format!("{path}/{index}"), invalid);
                }
                true
            }
            "required" => {
                let names = argument.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                let missing = names.filter(|name| value.get(name).is_none());
                invalid.extend(missing.map(|name| format!("{path}/{name}")));
                true
            }
            "properties" => true, // with additionalProperties
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let path = format!("{path}/{name}");
                    match schema["properties"].get(name).unwrap_or(argument) {
                        Value::Bool(false) => invalid.push(path),
                        schema => validate(schema, value, &path, invalid),
                    }
                }
                true
            }
            keyword => ANNOTATIONS.contains(&keyword),
        };
    }
    if !valid {
        invalid.push(path.to_owned());
    }
}

fn matches(text: &str, pattern: &Value) -> bool {
    Regex::new(pattern.as_str().unwrap()).unwrap().is_match(text)
}
