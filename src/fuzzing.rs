//! The fuzz targets: parts of the program that read what others write. Each takes an input and
//! asserts what must hold for it. The seeds, and every input that was found for which it did not,
//! are tests.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use crate::observe::admin;
use crate::{config, control, convert, observe, proxy};

/// A part of the program that reads what others write.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its seeds are in `fuzz/seeds/NAME`.
    pub name: &'static str,
    /// Reads an input, and panics if something does not hold.
    pub check: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("configuration", config::fuzzing::configuration),
    target("networks", config::fuzzing::networks),
    target("convert", convert::fuzzing::conversion),
    target("proxy-header", proxy::fuzzing::proxy_header),
    target("client-hello", proxy::fuzzing::client_hello),
    target("probe", control::fuzzing::probe_response),
    target("dns", control::fuzzing::dns_answer),
    target("http", observe::fuzzing::http_request),
    target("control", admin::fuzzing::control_request),
    target("output", observe::fuzzing::output),
];

const fn target(name: &'static str, check: fn(&[u8])) -> Target {
    Target { name, check }
}

/// The seeds in a text: one on each line, with the escapes `\n`, `\r`, `\t`, `\\` and `\x00`.
/// `#` begins a line that is a comment.
///
/// # Panics
/// An escape is none of these.
#[must_use]
pub fn seeds(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(unescape).collect()
}

/// A seed as a line of such a text.
#[must_use]
pub fn escaped(seed: &[u8]) -> String {
    let mut line = String::new();
    for (index, byte) in seed.iter().enumerate() {
        match byte {
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            b'#' if index == 0 => line.push_str("\\x23"),
            b' ' if index + 1 == seed.len() => line.push_str("\\x20"),
            b' '..=b'~' => line.push(char::from(*byte)),
            _ => line.push_str(&format!("\\x{byte:02x}")),
        }
    }
    line
}

fn unescape(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.bytes());
    while let Some(byte) = rest.next() {
        let value = match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: Vec<u8> = rest.by_ref().take(2).collect();
                    let digits = str::from_utf8(&digits).unwrap_or_default();
                    match u8::from_str_radix(digits, 16) {
                        Ok(value) => value,
                        Err(_) => panic!("\\x and two digits in {line}"),
                    }
                }
                other => panic!("\\{other:?} in {line}"),
            },
            byte => byte,
        };
        bytes.push(value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
    }

    #[test]
    fn every_seed_holds_what_fuzzing_asserts() {
        for target in TARGETS {
            let text = fs::read_to_string(folder().join(target.name)).unwrap();
            let seeds = seeds(&text);
            assert!(seeds.len() >= 3, "{}: {} seeds", target.name, seeds.len());
            for seed in seeds {
                for end in [seed.len(), seed.len() / 2] {
                    (target.check)(&seed[..end]);
                }
            }
        }
        let files = fs::read_dir(folder()).unwrap().count();
        assert_eq!(files, TARGETS.len(), "a file of seeds for each target and no other");
    }

    #[test]
    fn a_seed_is_a_line_with_escapes() {
        let found = seeds("# comment\nplain # text\n\n\\x00\\xff\\r\\n\\t\\\\n\n");
        assert_eq!(found, [b"plain # text".to_vec(), b"\0\xff\r\n\t\\n".to_vec()]);
        let every: Vec<u8> = (0..=255).chain(*b" ").collect();
        assert_eq!(seeds(&escaped(&every)), [every]);
        assert_eq!(seeds(&escaped(b"# no comment")), [b"# no comment"]);
    }
}
