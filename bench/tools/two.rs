//! Two workers on two cores; generator and responders share them.

use std::io;
use std::thread;

use crate::configuration::Setup;
use crate::cpu;
use crate::generator::Generator;
use crate::report::{Report, Turn, Turns};
use crate::rounds::{Bench, Comparison, Responders, addresses, measure};
use crate::subject::{Running, Subject};
use crate::work::{Kind, Load};

impl Bench {
    /// Two workers on two cores, and beside each turn of evenkeel one of its one worker on one
    /// core; the same without a balancer, which is what the cores themselves allow.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn double(
        &self,
        kind: &Kind,
        load: Load,
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let [.., first, second] = self.cores[..] else {
            report.leave_out(format!("{}: this machine has one core", kind.name));
            return Ok(());
        };
        let outcome = self.on_both_and_one(kind, load, [first, second], subjects, report);
        cpu::pin(&[self.core])?;
        outcome
    }

    fn on_both_and_one(
        &self,
        kind: &Kind,
        load: Load,
        cores: [usize; 2],
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let one = Comparison {
            work: "one".to_owned(),
            title: "the same, one worker on one core".to_owned(),
            load,
            idle: 0,
            setup: self.plain(),
            responders: &self.responders,
            target: None,
        };
        let on_one = [Subject::Direct, Subject::Evenkeel];
        let on_one = on_one.into_iter().filter(|one| subjects.contains(one)).collect::<Vec<_>>();
        let on_one = self.start_all(&on_one, &one.setup, report)?;
        let its = |subject| on_one.iter().find(|(it, _)| *it == subject);

        cpu::pin(&cores)?;
        let responders = Responders::start()?;
        let servers = responders.addresses();
        let setup = Setup { workers: 2, ..Setup::plain(&servers, self.place.sessions_max) };
        let several = |subject: &Subject| *subject == Subject::Direct || subject.has_workers();
        let subjects: Vec<Subject> = subjects.iter().copied().filter(several).collect();
        let running = self.start_all(&subjects, &setup, report)?;
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        let (subjects, rounds) = self.in_turns(kind.name, &subjects, report, |index| {
            let (subject, running) = &running[index];
            cpu::pin(&cores)?;
            let both = self.turn_on_both(load, cores, &responders, running.as_ref())?;
            cpu::pin(&[self.core])?;
            // One after the other: what the machine does lasts longer than both.
            let one = its(*subject).map(|(_, running)| self.turn(&one, running.as_ref()));
            Ok((both, one.transpose()?))
        })?;
        let (work, title) = (kind.name.to_owned(), kind.title.to_owned());
        let of_both = rounds.iter().map(|round| round.iter().map(|(both, _)| *both).collect());
        let turns = Turns { work, title, subjects: subjects.clone(), rounds: of_both.collect() };
        report.add(&turns, kind.target)?;
        let Comparison { work, title, target, .. } = one;
        let subjects = subjects.into_iter().filter(|subject| its(*subject).is_some()).collect();
        let of_one = rounds.iter().map(|round| round.iter().filter_map(|(_, one)| *one).collect());
        report.add(&Turns { work, title, subjects, rounds: of_one.collect() }, target)
    }

    fn turn_on_both(
        &self,
        load: Load,
        cores: [usize; 2],
        responders: &Responders,
        subject: Option<&Running>,
    ) -> io::Result<Turn> {
        let mut processes = responders.processes();
        processes.extend(subject.into_iter().flat_map(Running::processes));
        let addresses = addresses(&responders.addresses(), subject);
        let half = Load { connections: load.connections / 2, ..load };
        let mut generators =
            [Generator::open(&addresses, &[half])?, Generator::open(&addresses, &[half])?];
        drive(&mut generators, self.window / 5)?;
        let exchanges = |generators: &[Generator; 2]| -> f64 {
            generators.iter().map(|one| one.exchanges(0)).sum()
        };
        let mut turn = measure(&cores, &processes, || {
            let before = exchanges(&generators);
            drive(&mut generators, self.window)?;
            Ok(exchanges(&generators) - before)
        })?;
        // A second of two cores is two seconds of core: count it as one.
        turn.used.ours_and_idle /= 2.0;
        Ok(turn)
    }
}

/// Both at the same time.
fn drive(generators: &mut [Generator; 2], time: std::time::Duration) -> io::Result<()> {
    let [one, other] = generators;
    thread::scope(|scope| {
        let thread = scope.spawn(|| other.drive(time));
        one.drive(time)?;
        thread.join().map_err(|_| io::Error::other("a generator panicked"))?
    })
}
