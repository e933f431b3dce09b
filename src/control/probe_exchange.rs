//! The dialogue of a probe: each step sends bytes, then waits until the response is as expected.

use std::mem;
use std::time::Duration;

use crate::config::Step;
use crate::control::probe_failure::{Failure, StreamError, shown};
use crate::control::probe_stream::ProbeStream;
use crate::shared::snapshot::ProbeResult;

/// The longest response to a step: as HAProxy's `tune.bufsize`.
const RESPONSE_MAX: usize = 16 * 1024;

/// Bytes of one receive.
const PIECE_MAX: usize = 4096;

/// Does all `steps`. The result is for the operator.
pub(super) async fn check(
    stream: &mut ProbeStream,
    steps: &[Step],
    timeout: Duration,
) -> Result<String, Failure> {
    let mut response = Response::default();
    for (step, number) in steps.iter().zip(1..) {
        let place = if steps.len() > 1 { format!("step {number}: ") } else { String::new() };
        let done = take(stream, step, &mut response, timeout).await;
        done.map_err(|failure| failure.after(&place))?;
    }
    Ok(match &*response.bytes {
        [] => "sent".to_owned(),
        received => format!("received {}", shown(received)),
    })
}

/// Does one step.
async fn take(
    stream: &mut ProbeStream,
    step: &Step,
    response: &mut Response,
    timeout: Duration,
) -> Result<(), Failure> {
    if let Some(bytes) = &step.send {
        response.clear();
        let failed = |error| Failure::of(error, "not sent", timeout);
        stream.send(bytes.to_vec()).await.map_err(failed)?;
    }
    response.begin_step();
    loop {
        let wanted = match response.judge(step) {
            Verdict::Expected => return Ok(()),
            Verdict::Wrong(wanted) => {
                let received = shown(response.rest());
                let wanted = shown(wanted);
                let text = format!("received {received}, expected {wanted}");
                return Err(Failure::bad_answer(text));
            }
            Verdict::Open(wanted) => shown(wanted),
        };
        let received = response.receive(stream).await;
        let rest = response.rest();
        match received {
            Ok(1..) => {}
            Ok(0) if response.is_full() => {
                let text = format!("{RESPONSE_MAX} bytes without {wanted}: {}", shown(rest));
                return Err(Failure::bad_answer(text));
            }
            Ok(0) if rest.is_empty() => {
                let text = format!("closed without a response, expected {wanted}");
                return Err(Failure::bad_answer(text));
            }
            Ok(0) => {
                let text = format!("closed after {}, expected {wanted}", shown(rest));
                return Err(Failure::bad_answer(text));
            }
            Err(error) => {
                let mut failure = Failure::of(error, &format!("no {wanted}"), timeout);
                if !rest.is_empty() {
                    failure.detail.push_str(&format!(", received {}", shown(rest)));
                    if failure.result == ProbeResult::Timeout {
                        failure.result = ProbeResult::BadAnswer;
                    }
                }
                return Err(failure);
            }
        }
    }
}

/// What was received since the last step that sent.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub(super) bytes: Vec<u8>,
    /// What an `expect` has removed.
    taken: usize,
    /// The `contains` of this step does not begin before.
    searched: usize,
    /// For the next receive.
    room: Vec<u8>,
}

/// Whether a response is as a step expects.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    Expected,
    /// It may be once more has come: what is missing.
    Open(&'a [u8]),
    /// It is not, whatever comes: what should have come.
    Wrong(&'a [u8]),
}

impl Response {
    /// Drops all of it.
    fn clear(&mut self) {
        self.bytes.clear();
        self.taken = 0;
    }

    /// What was received and not removed is searched again.
    pub(super) const fn begin_step(&mut self) {
        self.searched = self.taken;
    }

    /// What was not removed.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    const fn is_full(&self) -> bool {
        self.bytes.len() == RESPONSE_MAX
    }

    /// Whether it is as `step` expects. If it is, what `expect` names is removed.
    pub(super) fn judge<'a>(&mut self, step: &'a Step) -> Verdict<'a> {
        let mut end = self.taken;
        if let Some(expected) = step.expect.as_deref() {
            let rest = self.rest();
            let known = rest.len().min(expected.len());
            if rest.get(..known) != expected.get(..known) {
                return Verdict::Wrong(expected);
            }
            if known < expected.len() {
                return Verdict::Open(expected);
            }
            end += known;
        }
        if let Some(wanted) = step.contains.as_deref() {
            // No part is searched twice, however small the pieces are in which it comes.
            let from = self.searched.max(end);
            let new = self.bytes.get(from..).unwrap_or_default();
            if !new.windows(wanted.len().max(1)).any(|part| part == wanted) {
                self.searched = from.max((self.bytes.len() + 1).saturating_sub(wanted.len()));
                return Verdict::Open(wanted);
            }
        }
        self.taken = end;
        Verdict::Expected
    }

    /// Receives more: how many bytes; 0: it is full, or the stream has ended.
    async fn receive(&mut self, stream: &mut ProbeStream) -> Result<usize, StreamError> {
        let mut room = mem::take(&mut self.room);
        room.resize(PIECE_MAX.min(RESPONSE_MAX - self.bytes.len()), 0);
        let (room, received) = stream.receive(room, 0).await?;
        self.bytes.extend_from_slice(room.get(..received).unwrap_or_default());
        self.room = room;
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(expect: &str, contains: &str) -> Step {
        let bytes = |text: &str| (!text.is_empty()).then(|| text.as_bytes().into());
        Step { expect: bytes(expect), contains: bytes(contains), ..Step::default() }
    }

    /// The verdict after each piece.
    fn verdicts(step: &Step, pieces: &[&str]) -> Vec<&'static str> {
        let mut response = Response::default();
        let judge = |piece: &&str| {
            response.bytes.extend_from_slice(piece.as_bytes());
            match response.judge(step) {
                Verdict::Expected => "expected",
                Verdict::Open(_) => "open",
                Verdict::Wrong(_) => "wrong",
            }
        };
        pieces.iter().map(judge).collect()
    }

    #[test]
    fn a_prefix_may_come_in_pieces_and_another_one_is_wrong_at_once() {
        assert_eq!(verdicts(&step("+OK", ""), &["", "+", "O", "K"])[2..], ["open", "expected"]);
        assert_eq!(verdicts(&step("+OK", ""), &["+N"]), ["wrong"]);
        assert_eq!(verdicts(&step("+OK", ""), &["-"]), ["wrong"]);
        assert_eq!(verdicts(&step("", ""), &[""]), ["expected"]);
    }

    #[test]
    fn what_is_contained_may_come_in_pieces_anywhere() {
        let inside = step("", "aab");
        assert_eq!(verdicts(&inside, &["", "xa", "a", "ab"]), ["open", "open", "open", "expected"]);
        assert_eq!(verdicts(&inside, &["aab"]), ["expected"]);
        // After the prefix, of which it is no part.
        assert_eq!(verdicts(&step("aab", "aab"), &["aab", "xaa", "b"])[1..], ["open", "expected"]);
    }

    #[test]
    fn a_step_that_does_not_send_continues_after_the_prefix() {
        let mut response = Response::default();
        response.bytes.extend_from_slice(b"+OK\r\n+PONG\r\n");
        assert_eq!(response.judge(&step("+OK\r\n", "")), Verdict::Expected);
        response.begin_step();
        // Nothing is removed by `contains`: the order of such steps does not matter.
        for inside in ["PONG", "+PON", "G"] {
            assert_eq!(response.judge(&step("", inside)), Verdict::Expected);
        }
        assert_eq!(response.judge(&step("+PONG\r\n", "")), Verdict::Expected);
        assert_eq!(response.rest(), b"");
    }

    #[test]
    fn every_part_of_a_long_response_is_searched_once() {
        let wanted = format!("{}b", "a".repeat(4000));
        let step = step("", &wanted);
        let mut response = Response::default();
        for _ in 0..RESPONSE_MAX - 1 {
            response.bytes.push(b'a');
            assert!(matches!(response.judge(&step), Verdict::Open(_)));
            assert!(response.bytes.len() < response.searched + wanted.len());
        }
        response.bytes.push(b'b');
        assert!(response.is_full());
        assert_eq!(response.judge(&step), Verdict::Expected);
    }
}
