//! A keyword of another balancer, as the tables of `haproxy` and `nginx` declare it.

use crate::config::nearest;

/// The treatment of a line in a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Writes a key with the same meaning.
    Keep,
    /// Writes a key and says how the meaning differs.
    Near,
    /// Says that there is no equivalent.
    Report,
    /// The same, if the proxy is in mode http; without effect otherwise.
    Http,
    /// Nothing: it has no effect on the connections.
    Drop,
}

/// A keyword, or several with the same treatment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyword {
    /// Separated by commas.
    pub(super) name: &'static str,
    pub(super) treatment: Treatment,
    /// Keys of evenkeel.
    pub(super) key: &'static str,
    /// How the meaning differs, or why there is no equivalent.
    pub(super) text: &'static str,
    /// Words that follow a parameter.
    pub(super) arguments: usize,
}

/// A table of the documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) keywords: &'static [Keyword],
}

impl Keyword {
    /// Each name.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.name.split(", ")
    }

    /// The same with words that follow it.
    pub(super) const fn with(self, arguments: usize) -> Self {
        Self { arguments, ..self }
    }
}

/// The keyword of that name.
pub(super) fn find(table: &'static [Keyword], name: &str) -> Option<&'static Keyword> {
    table.iter().find(|keyword| keyword.names().any(|one| one == name))
}

/// What to do about a word that none of these tables has.
pub(super) fn remedy(word: &str, tables: &[&'static [Keyword]]) -> String {
    let names = tables.iter().flat_map(|table| table.iter()).flat_map(Keyword::names);
    match nearest(word, names.filter(|name| !name.ends_with('*'))) {
        Some(known) => format!("did you mean {known:?}?"),
        None => "correct it".to_owned(),
    }
}

const fn new(
    name: &'static str,
    treatment: Treatment,
    key: &'static str,
    text: &'static str,
) -> Keyword {
    Keyword { name, treatment, key, text, arguments: 0 }
}

pub(super) const fn keep(name: &'static str, key: &'static str, text: &'static str) -> Keyword {
    new(name, Treatment::Keep, key, text)
}

pub(super) const fn near(name: &'static str, key: &'static str, text: &'static str) -> Keyword {
    new(name, Treatment::Near, key, text)
}

pub(super) const fn report(name: &'static str, text: &'static str) -> Keyword {
    new(name, Treatment::Report, "", text)
}

pub(super) const fn http(name: &'static str, text: &'static str) -> Keyword {
    new(name, Treatment::Http, "", text)
}

pub(super) const fn drop(name: &'static str, text: &'static str) -> Keyword {
    new(name, Treatment::Drop, "", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_nearly_a_keyword_is_told_from_one_that_is_not() {
        static TABLE: &[Keyword] = &[keep("maxconn, nbthread", "", ""), drop("tune.*", "")];
        assert_eq!(remedy("maxcon", &[TABLE]), "did you mean \"maxconn\"?");
        assert_eq!(remedy("nonsense", &[TABLE]), "correct it");
    }
}
