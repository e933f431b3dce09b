//! What fuzzing checks of the configuration: a text is a configuration, or has problems that name
//! their places; a file of networks means the same as each of its lines.

#![expect(clippy::missing_panics_doc, reason = "what does not hold is found by a panic")]

use std::net::IpAddr;

use super::networks::{Networks, network};
use super::{Problems, control_of, differences, from_arguments, parse};

/// A configuration. Its lines are also the arguments of `run --bind A --server B`.
pub fn configuration(input: &[u8]) {
    let text = String::from_utf8_lossy(&input[..input.len().min(16 * 1024)]);
    drop(control_of(&text, true));
    match parse(&text, "x.toml") {
        Ok(config) => {
            assert!(!config.frontends.is_empty());
            assert!(differences(&text, &text).is_empty());
        }
        Err(problems) => {
            let lines = text.split('\n').count();
            places(&problems, 1..=lines);
        }
    }
    let words: Vec<String> = text.lines().take(6).map(str::to_owned).collect();
    let (binds, servers) = words.split_at(words.len() / 2);
    match from_arguments(binds, servers) {
        Ok(config) => assert_eq!(config.frontends[0].bind.len(), binds.len()),
        Err(problems) => places(&problems, 0..=0),
    }
}

/// Each problem is one line of text at a place that exists.
fn places(problems: &Problems, lines: std::ops::RangeInclusive<usize>) {
    assert!(problems.iter().count() > 0);
    for problem in problems.iter() {
        let line = problem.span.line as usize;
        assert!(line == 0 || lines.contains(&line), "{problem:?}");
        assert!(line == 0 || problem.span.column > 0, "{problem:?}");
    }
    for line in problems.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.len() < 2000, "{} bytes: {line}", line.len());
    }
}

/// A file of `allow` or `deny`.
pub fn networks(input: &[u8]) {
    let text = String::from_utf8_lossy(&input[..input.len().min(16 * 1024)]);
    let mut list = Networks::default();
    let read = list.read(&text);
    let mark = '\u{feff}';
    let lines = text.strip_prefix(mark).unwrap_or(&text).lines();
    let lines: Vec<&str> = lines.map(|line| line.split('#').next().unwrap_or(line)).collect();
    let written: Vec<&str> =
        lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    let ranges: Vec<(u128, u128)> = written.iter().filter_map(|line| range(line)).collect();
    if let Err(bad) = read {
        assert_eq!(bad.shown.len() + bad.more, written.len() - ranges.len(), "{bad:?}");
        for (line, problem) in bad.shown {
            assert!(range(lines[line - 1].trim()).is_none(), "line {line}: {problem}");
        }
        return;
    }
    assert_eq!(ranges.len(), written.len(), "every line is a network");
    let edges = ranges.iter().flat_map(|(first, last)| {
        [*first, *last, first.wrapping_sub(1), last.wrapping_add(1), first / 2 + last / 2]
    });
    for edge in edges.take(500) {
        let is_in = ranges.iter().any(|(first, last)| (*first..=*last).contains(&edge));
        let address = IpAddr::V6(edge.into());
        assert_eq!(list.contains(address), is_in, "{address}");
        assert_eq!(list.contains(address.to_canonical()), is_in, "{address}");
    }
}

/// The addresses of a network, counted bit by bit.
fn range(text: &str) -> Option<(u128, u128)> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let (bits, offset) = match address {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped().to_bits(), 96),
        IpAddr::V6(ip) => (ip.to_bits(), 0),
    };
    let length = match (text.contains('/'), length) {
        (false, _) => 128 - offset,
        (true, digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            digits.parse::<u32>().ok()?
        }
        (true, _) => return None,
    };
    let host_bits = (128 - offset).checked_sub(length)?;
    let (mut first, mut last) = (bits, bits);
    for bit in 0..host_bits {
        first &= !(1 << bit);
        last |= 1 << bit;
    }
    let found = network(text).ok();
    assert_eq!(found, (first == bits).then_some((first, last)), "{text}");
    found
}
