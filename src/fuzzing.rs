//! The fuzz targets: parts of the program that read what others write. Each takes an input and
//! asserts what must hold for it. The seeds, and every input that was found for which it did not,
//! are tests. `fuzz/run` searches for such inputs.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::{fs, io};

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

/// The seeds of a target, and files of other tests that are inputs of it.
///
/// # Errors
/// A file or a folder of them cannot be read.
pub fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut corpus = seeds(&fs::read_to_string(root.join("fuzz/seeds").join(target.name))?);
    let folders: &[&str] = match target.name {
        "configuration" => &["tests/config/valid", "tests/config/invalid"],
        "convert" => &["tests/convert"],
        _ => &[],
    };
    for folder in folders {
        let mut files = Vec::new();
        for entry in fs::read_dir(root.join(folder))? {
            let file = entry?.path();
            let kind = file.extension().unwrap_or_default();
            if ["toml", "cfg", "conf"].iter().any(|input| kind == *input) {
                files.push(file);
            }
        }
        files.sort();
        for file in files {
            corpus.push(fs::read(file)?);
        }
    }
    Ok(corpus)
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
    use std::env;
    use std::ops::Range;
    use std::panic::{catch_unwind, resume_unwind};
    use std::path::PathBuf;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

    /// A hundred inputs for each target; `fuzz/run` names one target and its time.
    #[test]
    fn mutated_seeds_hold_what_fuzzing_asserts() {
        let wanted = env::var("EVENKEEL_FUZZ").ok();
        let seconds = env::var("EVENKEEL_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        let time = seconds.map(Duration::from_secs);
        for target in TARGETS {
            if wanted.as_ref().is_none_or(|name| name == target.name) {
                mutate(target, &corpus(target).unwrap(), time);
            }
        }
    }

    /// Checks mutations of the seeds for this time, or a hundred that are the same in every run.
    fn mutate(target: &Target, corpus: &[Vec<u8>], time: Option<Duration>) {
        let begin = Instant::now();
        let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = if time.is_some() { u64::from(fresh.subsec_nanos()) } else { 1 };
        let (mut random, mut count) = (Random(seed), 0_u64);
        while time.map_or(count < 100, |time| begin.elapsed() < time) {
            let input = random.mutated(corpus);
            if let Err(panic) = catch_unwind(|| (target.check)(&input)) {
                println!("found, of seed {seed}; a line for fuzz/seeds/{}:", target.name);
                println!("{}", escaped(&input));
                resume_unwind(panic);
            }
            count += 1;
        }
        let a_second = count as f64 / begin.elapsed().as_secs_f64();
        println!("{:14} {count:10} executions {a_second:8.0} a second  ok", target.name);
    }

    /// Pseudo-random numbers (`SplitMix64`).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from(bits ^ (bits >> 31)).unwrap() % limit.max(1)
        }

        /// A part of some bytes, short ones more often.
        fn part(&mut self, length: usize) -> Range<usize> {
            let start = self.below(length + 1);
            let longest = if self.below(4) == 0 { length - start } else { 8.min(length - start) };
            start..start + self.below(longest + 1)
        }

        /// One of the seeds after one to six changes.
        fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
            // Bytes that grammars and binary formats give a meaning.
            const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\r\n\t \"'\\#;:,.*-+=/%$@{}[]()<>09azAZ";
            let mut input = corpus[self.below(corpus.len())].clone();
            for _ in 0..=self.below(6) {
                let part = self.part(input.len());
                let other = &corpus[self.below(corpus.len())];
                match self.below(8) {
                    0 => drop(input.drain(part)),
                    1 => input.truncate(part.start),
                    2 => {
                        let again = input[part.clone()].to_vec();
                        drop(input.splice(part.start..part.start, again));
                    }
                    3 => drop(input.splice(part, other[self.part(other.len())].to_vec())),
                    4 => input.insert(part.start, TELLING[self.below(TELLING.len())]),
                    5 => input.insert(part.start, u8::try_from(self.below(256)).unwrap()),
                    _ if input.is_empty() => {}
                    6 => {
                        let at = self.below(input.len());
                        input[at] = TELLING[self.below(TELLING.len())];
                    }
                    _ => {
                        let at = self.below(input.len());
                        input[at] ^= 1 << self.below(8);
                    }
                }
            }
            input.truncate(16 * 1024);
            input
        }
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
