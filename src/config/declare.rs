//! How a key is declared: `section!` makes of one declaration the struct of its settings, the
//! description of its keys (for the parser, the example, the reference and the JSON schema) and
//! the function that reads the struct.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::ServerAddress;
use super::bind_address::BindAddress;
use super::enums::{
    AdminState, AllDown, Backups, Balance, Check, LogFormat, OnDown, ProxyProtocol, SendProxy,
};
use super::kinds::Value;
use super::networks::Networks;
use super::problems::Span;
use super::sources::Sources;
use super::values::Rate;

/// The text of several lines of a doc comment.
pub(super) fn joined(lines: &[&str]) -> String {
    // A line of a doc comment begins with a space.
    lines.concat().trim().to_owned()
}

/// Declares a section. After the keys: `with`, fields that are not keys. `a as "b"` is the field
/// `a` of the key `b`.
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
    Box<[u8]>: Value::Bytes(bytes) => Some(bytes);
    SocketAddr: Value::Address(address) => Some(address);
    BindAddress: Value::Bind(address) => Some(address);
    ServerAddress: Value::Server(address) => Some(address);
    Networks: Value::Networks(networks) => Some(networks);
    Sources: Value::Sources(sources) => Some(sources);
    Rate: Value::Rate(count, period) => Some(Self { count, period });
    (u16, u16): Value::Status(first, last) => Some((first, last));
    Balance: Value::Word(word) => Self::of(word);
    AllDown: Value::Word(word) => Self::of(word);
    Backups: Value::Word(word) => Self::of(word);
    OnDown: Value::Word(word) => Self::of(word);
    Check: Value::Word(word) => Self::of(word);
    ProxyProtocol: Value::Word(word) => Self::of(word);
    SendProxy: Value::Word(word) => Self::of(word);
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
