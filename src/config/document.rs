//! The example file and the reference, made of the declaration of the keys.

use std::fmt::Write;

use super::declare::joined;
use super::kinds::{Key, Kind, Presence, Section};
use super::settings::Config;
use super::values::duration_text;

/// Columns of the example.
const COLUMNS: usize = 100;

/// Columns of the text of the reference.
const REFERENCE_COLUMNS: usize = 120;

/// `deploy/evenkeel.example.toml`: every key with its default.
#[must_use]
pub fn example() -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "Every key of evenkeel with its default. If a line is a comment such as \"# key = value\", \
         the key has no default, or is valid only together with another value; remove the \"# \" \
         to set it.",
    );
    comment(&mut out, "");
    comment(&mut out, &joined(Config::SECTION.text));
    comment(&mut out, "`evenkeel schema --example` prints this file.");
    for key in Config::SECTION.keys {
        section(&mut out, key, "", key.name);
    }
    out
}

/// A section with its keys, then the sections below it.
fn section(out: &mut String, key: &Key, parent: &str, name: &str) {
    let Some(section) = key.section() else { return };
    let path = match key.kind {
        Kind::Named(_) if name == "frontend" => "frontend.http".to_owned(),
        Kind::Named(_) => format!("{name}.web"),
        _ if parent.is_empty() => name.to_owned(),
        _ => format!("{parent}.{name}"),
    };
    // Sections that are not set, and the one that is only valid together with another value.
    let is_set = key.presence != Presence::Optional && !path.ends_with(".health.http");
    let mark = if is_set { "" } else { "# " };
    out.push('\n');
    comment(out, &joined(section.text));
    let header = if matches!(key.kind, Kind::Tables(_)) {
        format!("[[{path}]]")
    } else {
        format!("[{path}]")
    };
    out.push_str(&format!("{mark}{header}\n"));
    for key in section.keys.iter().filter(|key| key.section().is_none()) {
        let required = if key.presence == Presence::Required { "Required. " } else { "" };
        comment(out, &format!("{required}{}", joined(key.text)));
        let mark = if key.presence == Presence::Optional { "# " } else { mark };
        out.push_str(&format!("{mark}{} = {}\n", key.name, key.literal));
    }
    for key in section.keys {
        self::section(out, key, &path, key.name);
    }
}

/// A comment, wrapped.
fn comment(out: &mut String, text: &str) {
    for line in wrapped(text, COLUMNS - "# ".len()) {
        out.push_str(format!("# {line}").trim_end());
        out.push('\n');
    }
}

/// A text as lines of at most so many columns; an empty text is one line.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A paragraph of the reference.
fn paragraph(text: &str) -> String {
    wrapped(text, REFERENCE_COLUMNS).join("\n")
}

/// `docs/configuration.md`: every key with its type, its default and its text.
#[must_use]
pub fn reference() -> String {
    let mut out = format!("# Configuration\n\n{}\n\n", paragraph(&joined(Config::SECTION.text)));
    out.push_str(&paragraph(
        "`evenkeel schema --reference` prints this page. If the default is `-`, the key is not \
         set. [evenkeel.example.toml](../deploy/evenkeel.example.toml) is a file with every key. \
         `evenkeel schema` prints a JSON schema for editors.",
    ));
    out.push('\n');
    for section in Config::SECTION.all().iter().skip(1) {
        write_section(&mut out, section).ok();
    }
    out
}

fn write_section(out: &mut String, section: &Section) -> std::fmt::Result {
    let Section { path, text, keys } = section;
    writeln!(
        out,
        "\n## {path}\n\n{}\n\n| key | type | default | meaning |",
        paragraph(&joined(text))
    )?;
    writeln!(out, "|---|---|---|---|")?;
    for key in keys.iter().filter(|key| key.section().is_none()) {
        let default = match key.presence {
            Presence::Required | Presence::RequiredUnlessRouted => {
                format!("required, such as `{}`", key.literal)
            }
            Presence::Optional => "-".to_owned(),
            Presence::Default => format!("`{}`", key.literal),
        };
        writeln!(
            out,
            "| {} | {} | {default} | {} |",
            key.name,
            describe(&key.kind),
            joined(key.text)
        )?;
    }
    Ok(())
}

/// A type with its range.
fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Flag => "boolean".to_owned(),
        Kind::Number(least, most) => format!("integer, {least} to {most}"),
        Kind::Time(shortest, longest) => {
            format!("duration, {} to {}", duration_text(*shortest), duration_text(*longest))
        }
        Kind::Size(least, most) => format!("size, \"{}KiB\" to \"{}GiB\"", least >> 10, most >> 30),
        Kind::Words(words) => {
            words.known.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
        }
        Kind::Text(format) => format.name.to_owned(),
        Kind::List(inner) => format!("array of: {}", describe(inner)),
        Kind::Networks => "array of networks, or a file with them".to_owned(),
        Kind::Sources => "array of IP addresses, or \"client\"".to_owned(),
        Kind::Routes(format) => format!("table of: {} = name of a backend", format.name),
        Kind::Or(inner, other) => format!("{}, or {}", describe(inner), other.literal()),
        Kind::Table(_) | Kind::Named(_) | Kind::Tables(_) | Kind::OneOrMore(_) => {
            kind.toml_type().to_owned()
        }
    }
}
