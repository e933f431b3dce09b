//! Keys whose values are a few words, and what those mean.

use super::problems::nearest;
use crate::control::config::{AdminState, AllDown, Balance, LogFormat};

/// The words that a key may have.
#[derive(Debug)]
pub(super) struct Words<T: 'static> {
    /// What holds when the key is not written.
    pub(super) default: T,
    /// Those that work.
    pub(super) known: &'static [(&'static str, T)],
    /// Those of a later version.
    pub(super) later: &'static [&'static str],
}

impl<T: Copy> Words<T> {
    /// `"tcp", "http" or "off"`
    pub(super) fn list(&self) -> String {
        let mut list = String::new();
        for (index, (word, _)) in self.known.iter().enumerate() {
            let separator = match self.known.len() - index {
                _ if index == 0 => "",
                1 => " or ",
                _ => ", ",
            };
            list.push_str(&format!("{separator}{word:?}"));
        }
        list
    }

    /// What `text` means.
    ///
    /// # Errors
    /// "what is wrong; what to do"
    pub(super) fn find(&self, text: &str) -> Result<T, String> {
        if let Some((_, meaning)) = self.known.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        if self.later.contains(&text) {
            return Err(format!("not supported yet; write {}", self.list()));
        }
        Err(match nearest(text, self.known.iter().map(|(word, _)| *word)) {
            Some(near) => format!("unknown word; did you mean {near:?}?"),
            None => format!("unknown word; write {}", self.list()),
        })
    }
}

pub(super) const BALANCE: Words<Balance> = Words {
    default: Balance::RoundRobin,
    known: &[("roundrobin", Balance::RoundRobin)],
    later: &["leastconn", "random", "source", "first"],
};
pub(super) const ALL_DOWN: Words<AllDown> = Words {
    default: AllDown::Refuse,
    known: &[("refuse", AllDown::Refuse), ("try", AllDown::Try)],
    later: &[],
};
pub(super) const FORMAT: Words<LogFormat> = Words {
    default: LogFormat::Text,
    known: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    later: &[],
};
pub(super) const STATE: Words<AdminState> = Words {
    default: AdminState::Ready,
    known: &[
        (AdminState::Ready.word(), AdminState::Ready),
        (AdminState::Drain.word(), AdminState::Drain),
        (AdminState::Maint.word(), AdminState::Maint),
    ],
    later: &[],
};

/// What a probe does, before its details are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckWord {
    Off,
    Tcp,
    Http,
}

pub(super) const CHECK: Words<CheckWord> = Words {
    default: CheckWord::Tcp,
    known: &[("tcp", CheckWord::Tcp), ("http", CheckWord::Http), ("off", CheckWord::Off)],
    later: &["exchange"],
};
