//! The crates that the project is built from, and the rules of `deny.toml` for them.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::root;

/// A crate, as `cargo metadata` describes it.
#[derive(Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression; empty: not declared.
    pub(crate) licence: String,
    /// Where it comes from; empty: it is part of this project.
    pub(crate) source: String,
}

/// The rules that are checked here too.
pub(crate) struct Rules {
    /// Licences.
    pub(crate) allowed: Vec<String>,
    /// Versions that a crate may have beside another one: its name, and how the version begins.
    pub(crate) skipped: Vec<(String, String)>,
}

impl Rules {
    /// Those of `deny.toml`.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
        let rules: toml::Table = toml::from_str(&text).unwrap();
        let list = |section: &str, key: &str| rules[section][key].as_array().unwrap().clone();
        let allowed = list("licenses", "allow");
        let skipped = list("bans", "skip").into_iter().map(|skip| {
            let (name, version) = skip["crate"].as_str().unwrap().split_once(':').unwrap();
            (name.to_owned(), version.to_owned())
        });
        Self {
            allowed: allowed.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
            skipped: skipped.collect(),
        }
    }

    /// Crates whose licence is not allowed.
    pub(crate) fn licences(&self, packages: &[Package]) -> Vec<String> {
        let wrong = packages.iter().filter(|one| !self.allows(&one.licence));
        wrong.map(|one| format!("{} {}: {:?}", one.name, one.version, one.licence)).collect()
    }

    /// Whether an SPDX expression can be satisfied by allowed licences.
    pub(crate) fn allows(&self, expression: &str) -> bool {
        // "MIT/Apache-2.0" is the form of old crates.
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = &words[..];
        self.any_of(&mut rest) && rest.is_empty()
    }

    fn any_of(&self, words: &mut &[&str]) -> bool {
        let mut allowed = self.all_of(words);
        while take(words, "OR") {
            allowed |= self.all_of(words);
        }
        allowed
    }

    fn all_of(&self, words: &mut &[&str]) -> bool {
        let mut allowed = self.one(words);
        while take(words, "AND") {
            allowed &= self.one(words);
        }
        allowed
    }

    fn one(&self, words: &mut &[&str]) -> bool {
        if take(words, "(") {
            let allowed = self.any_of(words);
            return take(words, ")") && allowed;
        }
        let [licence, rest @ ..] = *words else { return false };
        *words = rest;
        let mut licence = (*licence).to_owned();
        if take(words, "WITH")
            && let [exception, rest @ ..] = *words
        {
            licence += &format!(" WITH {exception}");
            *words = rest;
        }
        self.allowed.contains(&licence)
    }

    /// Crates with more than one version that the rules do not name, and rules for a version that
    /// no crate has.
    pub(crate) fn duplicates(&self, packages: &[Package]) -> Vec<String> {
        let is = |one: &Package, (name, version): &(String, String)| {
            one.name == *name && format!("{}.", one.version).starts_with(&format!("{version}."))
        };
        let unused = self.skipped.iter().filter(|skip| !packages.iter().any(|one| is(one, skip)));
        let unused = unused.map(|(name, version)| format!("{name} {version} is not used"));
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for one in packages.iter().filter(|one| !self.skipped.iter().any(|skip| is(one, skip))) {
            versions.entry(&one.name).or_default().push(&one.version);
        }
        let several = versions.iter().filter(|(_, versions)| versions.len() > 1);
        let several = several.map(|(name, versions)| format!("{name}: {}", versions.join(", ")));
        unused.chain(several).collect()
    }
}

/// Takes `word` from the beginning of `words`, if it stands there.
fn take(words: &mut &[&str], word: &str) -> bool {
    let rest = words.split_first().filter(|(first, _)| **first == word).map(|(_, rest)| rest);
    *words = rest.unwrap_or(*words);
    rest.is_some()
}

/// Crates that come from elsewhere than crates.io.
pub(crate) fn foreign(packages: &[Package]) -> Vec<String> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let foreign = packages.iter().filter(|one| !["", REGISTRY].contains(&&*one.source));
    foreign.map(|one| format!("{}: {}", one.name, one.source)).collect()
}

/// Every crate that is built here: of the program, of its tests, and of both at build time.
pub(crate) fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform"]);
    command.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH)).current_dir(root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |value: &Value| Package {
        name: text(&value["name"]),
        version: text(&value["version"]),
        licence: text(&value["license"]),
        source: text(&value["source"]),
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}
