//! What fuzzing checks of probes and of DNS: responses are judged the same in whatever pieces they
//! come, and of an answer of DNS only what is usable is used.

use crate::config::{HttpCheck, Step};
use crate::control::probe_exchange::{Response, Verdict};
use crate::control::probe_failure::shown;
use crate::control::probe_http;

pub use crate::control::resolve::fuzzing::dns_answer;

/// A response to a probe. The first byte chooses how many bytes come at a time, the second one the
/// check: HTTP (even; the status range is from the next two bytes), or a dialogue (odd; four texts
/// that end with a zero byte: `expect` and `contains` of two steps).
pub fn probe_response(input: &[u8]) {
    let [step, kind, rest @ ..] = input else { return };
    let step = usize::from(*step).max(1);
    if kind % 2 == 1 {
        return exchange(rest, step);
    }
    let [first, last, answer @ ..] = rest else { return };
    let status = |byte: u8| 100 + 2 * u16::from(byte);
    let check = HttpCheck { status: (status(*first), status(*last)), ..HttpCheck::default() };
    http(&answer[..answer.len().min(probe_http::ANSWER_MAX)], &check, step);
}

fn http(answer: &[u8], check: &HttpCheck, step: usize) {
    let whole = probe_http::final_status(answer, check);
    let step = step.max(answer.len() / 256);
    let mut end = 0;
    let stepwise = loop {
        match probe_http::final_status(&answer[..end], check) {
            Ok(None) if end < answer.len() => end = (end + step).min(answer.len()),
            found => break found,
        }
    };
    assert_eq!(stepwise, whole, "in pieces of {step} bytes");
    let Ok(Some(status)) = whole else { return };
    assert!(status <= 999);
    let (first, last) = check.status;
    let is_final = !matches!(status, 100 | 102..=199);
    assert!(is_final || (first..=last).contains(&status), "{status} is interim");
    let written = format!("{status:03}");
    let is_there =
        answer.windows(4).any(|part| part[0] == b' ' && part[1..] == *written.as_bytes());
    assert!(is_there, "{status} is not in the response");
}

fn exchange(input: &[u8], step: usize) {
    let mut parts = input.splitn(5, |byte| *byte == 0);
    let mut text = || parts.next().unwrap_or_default();
    let steps: [Step; 2] = std::array::from_fn(|_| {
        let mut text = || Some(text()).filter(|text| !text.is_empty()).map(Into::into);
        Step { expect: text(), contains: text(), ..Step::default() }
    });
    let received = text();
    let received = &received[..received.len().min(4096)];
    let whole = dialogue(&steps, received, received.len());
    let stepwise = dialogue(&steps, received, step.max(received.len() / 256));
    assert_eq!(whole, stepwise, "in pieces of {step} bytes");
    assert_eq!(whole, expected(&steps, received));
    let shown = shown(received);
    assert!(!shown.contains(char::is_control) && shown.len() <= 4 * 80 + 5);
}

/// What is known of a dialogue: whether it is over well (or is wrong, or open), and in which step.
type Known = (Option<bool>, usize);

fn dialogue(steps: &[Step], received: &[u8], piece: usize) -> Known {
    let mut response = Response::default();
    let mut pieces = received.chunks(piece.max(1));
    for (step, number) in steps.iter().zip(0..) {
        response.begin_step();
        loop {
            match response.judge(step) {
                Verdict::Expected => break,
                Verdict::Wrong(_) => return (Some(false), number),
                Verdict::Open(_) => {}
            }
            let Some(piece) = pieces.next() else { return (None, number) };
            response.bytes.extend_from_slice(piece);
        }
    }
    (Some(true), steps.len())
}

/// The same, of all that was received.
fn expected(steps: &[Step], received: &[u8]) -> Known {
    let mut rest = received;
    for (step, number) in steps.iter().zip(0..) {
        let prefix = step.expect.as_deref().unwrap_or_default();
        if !rest.starts_with(prefix) {
            return (if prefix.starts_with(rest) { None } else { Some(false) }, number);
        }
        let behind = &rest[prefix.len()..];
        let contains = step.contains.as_deref().unwrap_or_default();
        if !contains.is_empty() && !behind.windows(contains.len()).any(|part| part == contains) {
            return (None, number);
        }
        rest = behind;
    }
    (Some(true), steps.len())
}
