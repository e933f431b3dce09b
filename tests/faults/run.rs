//! Runs all scenarios: several balancers at a time, each with one scenario at a time. Those that
//! need a network namespace get a balancer in one; those that end their balancer get one each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use crate::common::wait::TIMEOUT;
use crate::common::{TestEnv, skip};
use crate::matrix::{Cell, Cover, Scenario, Verdict};
use crate::network;
use crate::scene::{self, Path};
use crate::world::World;

/// Balancers at a time, of each kind. Most of the time they wait for timeouts.
const BALANCERS: usize = 4;

/// How much the resident memory of a balancer may grow over its scenarios, in KiB: its buffers and
/// socket tables are used for the first time. A session that was lost would keep its buffers.
const GROWTH_MAX: u64 = 24 * 1024;

/// A scenario on one path, and what it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) cell: Cell,
    pub(crate) scenario: Scenario,
    pub(crate) path: Path,
}

/// What a scenario needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Namespace,
    OwnBalancer,
}

impl Job {
    fn need(&self) -> Need {
        let script = self.scenario.script;
        let has = |start| script.split(' ').any(|word| word.starts_with(start));
        match (has("n."), has("o.term")) {
            (true, _) => Need::Namespace,
            (_, true) => Need::OwnBalancer,
            _ => Need::Nothing,
        }
    }
}

/// Every scenario, on both paths if it relays. To look for what is rare,
/// `EVENKEEL_CELL=relaying/client/RST` leaves only those of one cell, and `EVENKEEL_ROUNDS=100`
/// runs each so often.
pub(crate) fn jobs(rows: &[(Cell, Cover)]) -> Vec<Job> {
    let only = std::env::var("EVENKEEL_CELL").ok();
    let rounds = std::env::var("EVENKEEL_ROUNDS").ok().and_then(|text| text.parse().ok());
    let mut jobs = Vec::new();
    let asked = |cell: &Cell| only.as_ref().is_none_or(|only| *only == cell.to_string());
    for (cell, cover) in rows.iter().filter(|(cell, _)| asked(cell)) {
        let Cover::Run(scenarios) = cover else { continue };
        for scenario in *scenarios {
            let relays = scenario.script.split(' ').any(|word| word == "relay");
            let paths: &[Path] =
                if relays { &[Path::Copied, Path::Spliced] } else { &[Path::Copied] };
            let jobs_of =
                paths.iter().map(|path| Job { cell: *cell, scenario: *scenario, path: *path });
            jobs.extend(jobs_of);
        }
    }
    assert!(!jobs.is_empty(), "EVENKEEL_CELL: the matrix runs no cell {only:?}");
    jobs.repeat(rounds.unwrap_or(1))
}

/// Runs all scenarios.
pub(crate) fn all(rows: &[(Cell, Cover)]) -> BTreeMap<Cell, Verdict> {
    let verdicts = Mutex::new(BTreeMap::new());
    let of = |need| {
        let mut jobs: Vec<Job> = jobs(rows).into_iter().filter(|job| job.need() == need).collect();
        // The last one is run first.
        jobs.reverse();
        Mutex::new(jobs)
    };
    let (plain, remote, fresh) = (of(Need::Nothing), of(Need::Namespace), of(Need::OwnBalancer));
    thread::scope(|scope| {
        for _ in 0..BALANCERS {
            scope.spawn(|| serve(&plain, &verdicts));
            scope.spawn(|| match network::enter() {
                Ok(()) => serve(&remote, &verdicts),
                Err(why) => skip_all(&remote, &verdicts, &why),
            });
        }
        scope.spawn(|| {
            while let Some(job) = next(&fresh) {
                let env = TestEnv::new();
                let mut world = World::start(&env, TIMEOUT);
                note(&verdicts, job, scene::play(&mut world, job.scenario, job.path));
            }
        });
    });
    verdicts.into_inner().unwrap()
}

type Verdicts = Mutex<BTreeMap<Cell, Verdict>>;

fn next(jobs: &Mutex<Vec<Job>>) -> Option<Job> {
    jobs.lock().unwrap().pop()
}

/// Runs scenarios with one balancer, until none is left. After one that failed, another balancer
/// goes on: the next scenario needs counts that agree.
fn serve(jobs: &Mutex<Vec<Job>>, verdicts: &Verdicts) {
    loop {
        let env = TestEnv::new();
        let mut world = World::start(&env, TIMEOUT);
        let mut memory = None;
        loop {
            let Some(job) = next(jobs) else { return };
            let mut outcome = scene::play(&mut world, job.scenario, job.path);
            let now = world.memory();
            let first = *memory.get_or_insert(now);
            if outcome.is_ok() && now > first + GROWTH_MAX {
                outcome = Err(format!("{first} KiB resident after the first cell, now {now}"));
            }
            let failed = outcome.is_err();
            note(verdicts, job, outcome);
            if failed {
                break;
            }
        }
    }
}

fn skip_all(jobs: &Mutex<Vec<Job>>, verdicts: &Verdicts, why: &str) {
    while let Some(job) = next(jobs) {
        skip(&format!("the cell {}", job.cell), why);
        verdicts.lock().unwrap().entry(job.cell).or_default().skipped += 1;
    }
}

fn note(verdicts: &Verdicts, job: Job, outcome: Result<(), String>) {
    let Job { cell, scenario, path } = job;
    let mut verdicts = verdicts.lock().unwrap();
    let verdict = verdicts.entry(cell).or_default();
    match outcome {
        Ok(()) => verdict.passed += 1,
        Err(why) => {
            let script = scenario.script;
            verdict
                .failed
                .push(format!("{cell} ({}, {path:?}): {script}: {why}", scenario.frontend));
        }
    }
}
