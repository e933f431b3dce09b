//! The syntax of bytes that a health check sends or expects. Pure; each error is "what is wrong;
//! what to do".

use super::values::{Parsed, wrong};

/// The longest text of one step: as long as a line of any protocol with lines (SMTP: 512, HTTP:
/// 8,000 in practice, of which a health check needs a part).
const LENGTH_MAX: usize = 4096;

/// Text with escapes. TOML knows some of them itself; here they also hold in '...', and for every
/// byte: `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN`. TOML turns "\xff" into the character U+00FF, so
/// that each character up to that one is a byte.
pub(super) fn bytes(text: &str) -> Parsed<Box<[u8]>> {
    const ESCAPES: &str = "write \\r, \\n, \\t, \\0, \\xNN, or \\\\ for a backslash";
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let byte = if c == '\\' { escaped(&mut chars) } else { u8::try_from(c).ok() };
        match byte {
            Some(byte) => bytes.push(byte),
            None if c == '\\' => return Err(format!("an unknown escape; {ESCAPES}")),
            None => {
                let mut utf8 = String::new();
                for byte in c.to_string().bytes() {
                    utf8.push_str(&format!("\\x{byte:02x}"));
                }
                return Err(format!("{c:?} is not one byte; write its bytes, '{utf8}' in UTF-8"));
            }
        }
    }
    match bytes.len() {
        0 => wrong("empty; remove it, or write the bytes in quotes, such as \"PING\\r\\n\""),
        1..=LENGTH_MAX => Ok(bytes.into()),
        _ => Err(format!("longer than {LENGTH_MAX} bytes; write a shorter text")),
    }
}

/// What stands after a backslash.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<u8> {
    match chars.next()? {
        'r' => Some(b'\r'),
        'n' => Some(b'\n'),
        't' => Some(b'\t'),
        '0' => Some(0),
        '\\' => Some(b'\\'),
        'x' => {
            let digits = [chars.next()?, chars.next()?];
            let [high, low] = digits.map(|digit| digit.to_digit(16));
            u8::try_from(16 * high? + low?).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_can_be_written() {
        let every: String = (0..=255).map(|byte| format!("\\x{byte:02X}")).collect();
        assert_eq!(*bytes(&every).unwrap(), *(0..=255).collect::<Vec<u8>>());
        assert_eq!(*bytes(r"PING\r\n\t\0\\x41").unwrap(), *b"PING\r\n\t\0\\x41");
        // As TOML delivers "\r\n\u0000\xff".
        assert_eq!(*bytes("\r\n\0\u{ff}").unwrap(), *b"\r\n\0\xff");
    }

    #[test]
    fn what_is_no_byte_is_refused() {
        for bad in ["\\", "\\x", "\\x1", "\\xg0", "\\q", "a\\", "", "\u{20ac}"] {
            let problem = bytes(bad).unwrap_err();
            assert!(problem.contains("; "), "{bad}: {problem}");
        }
        assert!(bytes("\u{20ac}").unwrap_err().contains(r"'\xe2\x82\xac'"));
        assert!(bytes(&"a".repeat(LENGTH_MAX)).is_ok());
        assert!(bytes(&"a".repeat(LENGTH_MAX + 1)).is_err());
    }
}
