//! What fuzzing checks of `evenkeel convert`: a result is a configuration that `evenkeel check`
//! accepts, and each note names a line of the input.

#![expect(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what does not hold is found by a panic"
)]

use std::path::Path;

use super::{Format, convert_text};
use crate::config;

/// A file of HAProxy or of nginx.
pub fn conversion(input: &[u8]) {
    let text = String::from_utf8_lossy(&input[..input.len().min(16 * 1024)]);
    let format = Format::of(&text);
    if format == Format::Nginx && text.contains("include") {
        return; // It reads files of this machine.
    }
    let variables = |name: &str| (name == "WEB").then(|| "web1".to_owned());
    let lines = text.lines().count().max(1);
    match convert_text(format, &text, Path::new("none/x.cfg"), &variables) {
        Ok(conversion) => {
            if let Err(problems) = config::parse(&conversion.toml, "x") {
                panic!("{problems}\n{}", conversion.toml);
            }
            for note in &conversion.report {
                assert!((1..=lines).contains(&note.line), "{note}");
                let line = note.to_string();
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
        Err(refused) => {
            assert!(!refused.problems.is_empty());
            for problem in &refused.problems {
                assert!(!problem.contains(char::is_control), "{problem:?}");
            }
        }
    }
}
