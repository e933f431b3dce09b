//! Two workers on two cores; generator and responders share them.

use std::io;
use std::thread;

use crate::configuration::Setup;
use crate::cpu;
use crate::generator::Generator;
use crate::report::{Report, Turns};
use crate::rounds::{Bench, Comparison, Responders, addresses, measure};
use crate::subject::{Running, Subject};
use crate::work::{Kind, Load};

impl Bench {
    /// Two workers on two cores, then evenkeel's one worker on one core, and what the cores
    /// themselves allow: the same without a balancer.
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
        let cores = [first, second];
        cpu::pin(&cores)?;
        let outcome = self.on_both(kind, load, cores, subjects, report);
        cpu::pin(&[self.core])?;
        outcome?;
        let alone = [Subject::Direct, Subject::Evenkeel];
        let alone: Vec<Subject> = alone.into_iter().filter(|one| subjects.contains(one)).collect();
        let comparison = Comparison {
            work: "one".to_owned(),
            title: "the same, one worker on one core".to_owned(),
            load,
            idle: 0,
            setup: self.plain(),
            responders: &self.responders,
            target: None,
        };
        self.compare(&comparison, &alone, report)
    }

    fn on_both(
        &self,
        kind: &Kind,
        load: Load,
        cores: [usize; 2],
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let responders = Responders::start()?;
        let servers = responders.addresses();
        let setup = Setup { workers: 2, ..Setup::plain(&servers, self.place.sessions_max) };
        let several = |subject: &Subject| *subject == Subject::Direct || subject.has_workers();
        let subjects: Vec<Subject> = subjects.iter().copied().filter(several).collect();
        let running = self.start_all(&subjects, &setup, report)?;
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        let (subjects, rounds) = self.in_turns(kind.name, &subjects, report, |index| {
            let subject = running[index].1.as_ref();
            let mut processes = responders.processes();
            processes.extend(subject.into_iter().flat_map(Running::processes));
            let addresses = addresses(&setup.servers, subject);
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
        })?;
        let (work, title) = (kind.name.to_owned(), kind.title.to_owned());
        report.add(&Turns { work, title, subjects, rounds }, kind.target)
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
