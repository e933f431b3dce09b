//! A keyword of another balancer, as the tables of `haproxy` and `nginx` declare it.

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
