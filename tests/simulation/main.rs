//! Sessions on a model of the kernel that completes operations in every legal order: short counts,
//! a receive that ends without a word, buffers that run out, cancels that come too late, resets at
//! any time.
//!
//! `EVENKEEL_SEEDS=1000000 cargo test --release --test simulation` runs more; a failure prints its
//! seed, and `EVENKEEL_SEED=n` runs that one alone.

#![expect(clippy::cast_possible_truncation, reason = "small numbers of a simulation")]
#![expect(clippy::struct_excessive_bools, reason = "a peer is what it did")]

mod random;
mod fate;
mod kernel;
mod accept;
mod context;
mod configuration;
mod control;
mod listening;
mod live;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use evenkeel::proxy::io::Event;
use evenkeel::proxy::rules::{BackendRules, Rules, Timeout};
use evenkeel::proxy::session::Session;
use evenkeel::proxy::state::State;
use evenkeel::proxy::timer_wheel::Tick;
use evenkeel::terms::{End, Reason, Side};

use fate::{Fate, Planted};
use kernel::{Memory, Simulated};
use random::Random;

/// Of a session that has a worker to itself.
const BUFFERS: u16 = 5;
const PIPES: u16 = 2;

/// What a run of seeds met, so that a test can say that it tried what it claims to try.
#[derive(Debug, Default)]
struct Met {
    reasons: Vec<Reason>,
    spliced: usize,
    retried: usize,
    starved: usize,
    /// Sessions whose first bytes went with a SYN.
    early: usize,
}

fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("EVENKEEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("EVENKEEL_SEEDS").unwrap_or(default)).collect(),
    }
}

/// Runs each seed; a failure names its own.
fn for_each_seed<M: Default>(seeds: &[u64], run: impl Fn(u64, &mut M)) -> M {
    let mut met = M::default();
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(*seed, &mut met)));
        assert!(outcome.is_ok(), "seed {seed} failed: EVENKEEL_SEED={seed} repeats it");
    }
    met
}

/// Chooses servers as the worker does: as long as the session needs one.
fn route(session: &mut Session, now: Tick, kernel: &mut Simulated) {
    while session.needs_server() {
        let choice = kernel.choose(session);
        session.on_routed(choice, now, kernel);
    }
}

/// So many milliseconds, or never.
fn timeout(ends: bool, millis: u64) -> Timeout {
    if ends { Duration::from_millis(millis).into() } else { Timeout::NEVER }
}

/// One session from accept to close.
fn run(seed: u64, fate: Fate, may_be_stopped: bool) -> (Simulated, Session) {
    let mut random = Random::new(seed);
    let backend = BackendRules {
        queue_timeout: timeout(random.one_in(2), 80),
        retries: random.below(4) as u32,
    };
    let has_preface = random.one_in(4);
    // Only the preface shows which backend it is.
    let known = if has_preface { BackendRules::default() } else { backend };
    let rules = Rules {
        preface_timeout: timeout(has_preface, 50),
        queue_timeout: known.queue_timeout,
        idle_timeout: timeout(true, 300),
        half_closed_timeout: timeout(true, 200),
        retries: known.retries,
    };
    let stopped_at = (may_be_stopped && random.one_in(20)).then(|| random.below(300));
    let mut kernel = Simulated::new(0, random, fate, Memory::new(BUFFERS, PIPES));
    kernel.backend = backend;
    let mut now = Tick(1);
    let mut session = Session::new(rules, now);
    route(&mut session, now, &mut kernel);
    session.start(now, &mut kernel);
    route(&mut session, now, &mut kernel);
    let mut steps = 0;
    while !session.is_closed() {
        steps += 1;
        assert!(steps < 200_000, "it never ends: {session:?} {kernel:?}");
        if Some(steps) == stopped_at {
            session.stop(End::new(Reason::DrainTimeout, b"KD"), now, &mut kernel);
            route(&mut session, now, &mut kernel);
            continue;
        }
        match kernel.step(&session) {
            Some(event) => session.on(event, now, &mut kernel),
            // Nothing can happen but that time passes.
            None => {
                if let State::Lingering(lingering) = session.state() {
                    assert!(
                        kernel.is_read_empty(lingering.side()),
                        "unread, its close is a reset: {kernel:?}"
                    );
                }
                let deadline = session.deadline();
                assert_ne!(deadline, Tick::NEVER, "it is stuck: {session:?} {kernel:?}");
                now = Tick(now.0.max(deadline.0));
                session.on(Event::Deadline, now, &mut kernel);
            }
        }
        route(&mut session, now, &mut kernel);
        now = Tick(now.0 + 1);
    }
    (kernel, session)
}

/// One session, with everything that must be so at its end.
fn live(seed: u64, fate: Fate, met: &mut Met) -> Reason {
    let (kernel, session) = run(seed, fate, true);
    let end = kernel.assert_ended(&session);
    kernel.assert_all_returned();
    met.reasons.push(end.reason);
    met.spliced += usize::from(kernel.spliced > 0);
    met.retried += usize::from(kernel.attempts > 1);
    met.starved += usize::from(kernel.starved > 0);
    met.early += usize::from(kernel.early_total > 0);
    end.reason
}

#[test]
fn orderly_sessions_deliver_every_byte_whatever_the_order_of_answers() {
    let met = for_each_seed(&seeds(20_000), |seed, met: &mut Met| {
        let reason = live(seed, Fate::orderly(seed), met);
        let fine = [Reason::Done, Reason::DrainTimeout];
        assert!(fine.contains(&reason), "an orderly session ended by {reason:?}");
    });
    if met.reasons.len() > 1000 {
        let (spliced, starved) = (met.spliced, met.starved);
        assert!(spliced > 100 && starved > 100, "too tame: {spliced} spliced, {starved} starved");
    }
}

#[test]
fn disorderly_sessions_return_all_they_held_and_say_why_they_ended() {
    let met = for_each_seed(&seeds(20_000), |seed, met: &mut Met| {
        live(seed, Fate::disorderly(seed), met);
    });
    if met.reasons.len() > 1000 {
        let wanted = [
            Reason::Done,
            Reason::ClientLeft,
            Reason::ClientReset,
            Reason::ServerReset,
            Reason::IdleTimeout,
            Reason::HalfClosedTimeout,
            Reason::NoServer,
            Reason::ConnectFailed,
            Reason::ConnectTimeout,
            Reason::Exhausted,
            Reason::QueueFull,
            Reason::QueueTimeout,
            Reason::PrefaceTimeout,
            Reason::BadPreface,
            Reason::Refused,
            Reason::DrainTimeout,
        ];
        for reason in wanted {
            assert!(met.reasons.contains(&reason), "{reason:?} was never met");
        }
        assert!(met.retried > 100 && met.spliced > 100, "too tame");
        assert!(met.early > 100, "too tame: {} with Fast Open", met.early);
    }
}

#[test]
fn a_reset_is_passed_on_after_the_bytes_before_it() {
    for_each_seed(&seeds(5_000), |seed, (): &mut ()| {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut fate = Fate::orderly(seed);
        fate.server_resets_after = Some(random.below(100_000));
        fate.client_stays_open = true;
        let (kernel, session) = run(seed, fate, false);
        if session.end().is_some_and(|end| end.reason == Reason::ServerReset) {
            let (server, client) = (kernel.peer(Side::Server), kernel.peer(Side::Client));
            assert_eq!(client.got, server.said, "the part before the reset is delivered");
            assert!(client.saw_reset, "and the reset after it");
        }
    });
}

#[test]
fn a_listener_loses_no_connection_and_accepts_none_without_room() {
    for_each_seed(&seeds(20_000), |seed, (): &mut ()| accept::run(seed));
}

/// What the processes of a run met together.
#[derive(Debug, Default)]
struct MetInWorlds {
    reasons: Vec<Reason>,
    refused: u64,
    pauses: u64,
    late_kills: u64,
    retried: u64,
    queued: u64,
    taken_out: u64,
    found_room: u64,
}

#[test]
fn a_whole_process_counts_every_session_and_loses_no_client_and_no_wake_up() {
    // A process has 30 clients: every tenth seed costs as much as three sessions for each.
    let every_tenth: Vec<u64> = seeds(10_000).into_iter().step_by(10).collect();
    let met = for_each_seed(&every_tenth, |seed, met: &mut MetInWorlds| {
        let record = world::run(seed, None);
        met.reasons.extend(record.ended);
        met.refused += record.refused;
        met.pauses += record.pauses;
        met.late_kills += record.late_kills;
        met.retried += record.retried;
        met.queued += record.queued;
        met.taken_out += record.taken_out;
        met.found_room += record.found_room;
    });
    if every_tenth.len() > 100 {
        for reason in [
            Reason::Done,
            Reason::ClientLeft,
            Reason::ClientReset,
            Reason::ServerReset,
            Reason::NoServer,
            Reason::ConnectFailed,
            Reason::ConnectTimeout,
            Reason::QueueFull,
            Reason::QueueTimeout,
            Reason::ServerDown,
            Reason::Killed,
            Reason::DrainTimeout,
            Reason::PrefaceTimeout,
            Reason::BadPreface,
            Reason::Refused,
        ] {
            assert!(met.reasons.contains(&reason), "{reason:?} was never met");
        }
        let MetInWorlds { refused, pauses, late_kills, retried, queued, taken_out, .. } = met;
        let counts = [refused, pauses, late_kills, retried, queued, taken_out];
        assert!(counts.iter().all(|count| *count > 10), "too tame: {counts:?}");
        assert!(met.found_room > 0, "nobody needed a second look for room");
    }
}

#[test]
fn a_planted_fault_of_each_kind_is_found_in_a_session() {
    // Without it, the same seeds pass: those of the tests above.
    for planted in Planted::IN_SESSION {
        let found = (0..2000).find(|seed| {
            let fate = Fate { planted: Some(planted), ..Fate::disorderly(*seed) };
            let session = || live(*seed, fate, &mut Met::default());
            catch_unwind(AssertUnwindSafe(session)).is_err()
        });
        assert!(found.is_some(), "2000 seeds do not find {planted:?}");
    }
}

#[test]
fn a_planted_fault_of_each_kind_is_found_in_a_whole_process() {
    // Without it, the same seeds pass: those of the test above.
    for planted in Planted::IN_WORLD {
        let found = (0..200).find(|seed| {
            let process = || world::run(10 * *seed, Some(planted));
            catch_unwind(AssertUnwindSafe(process)).is_err()
        });
        assert!(found.is_some(), "200 seeds do not find {planted:?}");
    }
}
