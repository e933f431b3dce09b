//! How a key is declared: `section!` makes of one declaration the struct of its settings, the
//! description of its keys (for the parser, the example, the reference and the JSON schema) and
//! the function that reads the struct.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::enums::{AdminState, AllDown, Balance, Check, LogFormat};
use super::kinds::{Kind, Value};
use super::problems::Span;
use super::values::ServerAddress;

/// A section: a table of the configuration.
#[derive(Debug)]
pub struct Section {
    /// As its header, with NAME for what the user chooses: "frontend.NAME".
    pub path: &'static str,
    /// What it is for: lines of text.
    pub text: &'static [&'static str],
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
    /// Keys of a later version: this one refuses them.
    pub planned: &'static [Planned],
}

/// A key of this version.
#[derive(Debug)]
pub struct Key {
    /// Its name in its section.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// What an absent key means.
    pub presence: Presence,
    /// The default, or an example where there is none, as TOML.
    pub literal: &'static str,
    /// What it sets: lines of text.
    pub text: &'static [&'static str],
}

/// What an absent key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// An error.
    Required,
    /// Not set.
    Optional,
    /// The default.
    Default,
}

/// A key of a later version.
#[derive(Debug)]
pub struct Planned {
    /// Its name in its section.
    pub name: &'static str,
    /// The default, as TOML; "-": not set.
    pub literal: &'static str,
    /// What it will set: lines of text.
    pub text: &'static [&'static str],
}

/// The text of several lines of a doc comment.
pub(super) fn joined(lines: &[&str]) -> String {
    // A line of a doc comment begins with a space.
    lines.concat().trim().to_owned()
}

impl Section {
    /// The key of that name, if this version has it.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Whether it is a key of a later version.
    #[must_use]
    pub fn plans(&self, name: &str) -> bool {
        self.planned.iter().any(|key| key.name == name)
    }

    /// This section and every section below it, in the order of the documentation.
    #[must_use]
    pub fn all(&'static self) -> Vec<&'static Self> {
        let below = self.keys.iter().filter_map(Key::section);
        std::iter::once(self).chain(below.flat_map(Self::all)).collect()
    }
}

impl Key {
    /// The section that it stands for, if it is no single value.
    #[must_use]
    pub const fn section(&self) -> Option<&'static Section> {
        match self.kind {
            Kind::Table(section) | Kind::Named(section) | Kind::Tables(section) => Some(section),
            _ => None,
        }
    }
}

/// Declares a section. After the keys: `with`, fields that are not keys; `planned`, keys of a
/// later version. `a as "b"` is the field `a` of the key `b`.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $path:literal => $settings:ident {$(
            $(#[doc = $text:literal])+
            $field:ident $(as $name:literal)?: $type:ty =
                $presence:ident($kind:expr, $literal:literal);
        )*}
        $(with |$table:ident| {$(
            $(#[doc = $extra_text:literal])+
            $extra:ident: $extra_type:ty = $value:expr;
        )*})?
        $(planned {$(
            $(#[doc = $later_text:literal])+
            $later:ident = $later_literal:literal;
        )*})?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $settings {
            $($( $(#[doc = $extra_text])+ pub $extra: $extra_type, )*)?
            $( $(#[doc = $text])+ pub $field: $type, )*
        }

        impl $settings {
            /// The declaration of its keys.
            pub const SECTION: &'static Section = &Section {
                path: $path,
                text: &[$($about),+],
                keys: &[$( Key {
                    name: section!(@name $field $($name)?),
                    kind: $kind,
                    presence: Presence::$presence,
                    literal: $literal,
                    text: &[$($text),+],
                } ),*],
                planned: &[$($( Planned {
                    name: stringify!($later),
                    literal: $later_literal,
                    text: &[$($later_text),+],
                } ),*)?],
            };

            /// Reads a table of the file. A key that is absent or wrong has its default.
            pub(super) fn read(table: &Table<'_>) -> Self {
                $(let $table = table;)?
                Self {
                    $($( $extra: $value, )*)?
                    $( $field: table.get(section!(@name $field $($name)?)), )*
                }
            }
        }

        /// As if nothing were written; what is required is empty.
        impl Default for $settings {
            fn default() -> Self {
                Self::read(&Table::absent(Self::SECTION))
            }
        }

        impl Setting for $settings {
            fn of(value: Value<'_>, _: Span) -> Option<Self> {
                if let Value::Table(table) = value { Some(Self::read(&table)) } else { None }
            }
        }
    };
    (@name $field:ident $name:literal) => { $name };
    (@name $field:ident) => { stringify!($field) };
}

pub(super) use section;

/// The type of a setting, made of a value of the file.
pub(super) trait Setting: Sized {
    /// None: the type does not fit the kind that the key is declared with.
    fn of(value: Value<'_>, span: Span) -> Option<Self>;
}

macro_rules! settings {
    ($($type:ty: $value:pat => $setting:expr;)*) => {
        $(impl Setting for $type {
            fn of(value: Value<'_>, _: Span) -> Option<Self> {
                if let $value = value { $setting } else { None }
            }
        })*
    };
}

settings! {
    bool: Value::Flag(flag) => Some(flag);
    u32: Value::Number(number) => Some(number);
    NonZeroU32: Value::Number(number) => Self::new(number);
    u16: Value::Number(number) => Self::try_from(number).ok();
    Duration: Value::Time(time) => Some(time);
    u64: Value::Size(bytes) => Some(bytes);
    String: Value::Text(text) => Some(text);
    Arc<str>: Value::Text(text) => Some(text.into());
    PathBuf: Value::Text(text) => Some(text.into());
    SocketAddr: Value::Bind(address) => Some(address);
    ServerAddress: Value::Server(address) => Some(address);
    (u16, u16): Value::Status(first, last) => Some((first, last));
    Balance: Value::Word(word) => Self::of(word);
    AllDown: Value::Word(word) => Self::of(word);
    Check: Value::Word(word) => Self::of(word);
    LogFormat: Value::Word(word) => Self::of(word);
    AdminState: Value::Word(word) => Self::of(word);
}

impl<T: Setting> Setting for Option<T> {
    fn of(value: Value<'_>, span: Span) -> Option<Self> {
        match value {
            Value::Alternative => Some(None),
            value => T::of(value, span).map(Some),
        }
    }
}

impl<T: Setting> Setting for (T, Span) {
    fn of(value: Value<'_>, span: Span) -> Option<Self> {
        Some((T::of(value, span)?, span))
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn of(value: Value<'_>, _: Span) -> Option<Self> {
        let Value::List(items) = value else { return None };
        items.into_iter().map(|(item, span)| T::of(item, span)).collect()
    }
}

impl<T: Setting> Setting for Arc<T> {
    fn of(value: Value<'_>, span: Span) -> Option<Self> {
        T::of(value, span).map(Self::new)
    }
}
