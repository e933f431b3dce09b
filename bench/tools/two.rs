//! Two workers on two cores; a generator and a responder on each of them, too.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::configuration::Setup;
use crate::cpu;
use crate::generator::Generator;
use crate::report::{Report, Turn, Turns};
use crate::rounds::{Bench, Comparison, Responders, measure};
use crate::subject::{Running, Subject};
use crate::work::{Kind, Load, connections};

/// For a balancer to see where its clients come from.
const MEETING: Duration = Duration::from_secs(1);

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
        for (process, core) in responders.processes().into_iter().zip(cores) {
            cpu::pin_process(process, &[core])?;
        }
        let plain = Setup::plain(&responders.addresses(), self.place.sessions_max);
        let setup = Setup { workers: 2, cores: cores.to_vec(), ..plain };
        let several = |subject: &Subject| *subject == Subject::Direct || subject.has_workers();
        let subjects: Vec<Subject> = subjects.iter().copied().filter(several).collect();
        let running = self.start_all(&subjects, &setup, report)?;
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        for (_, running) in &running {
            // Who sees where its clients come from has seen it now.
            Self::meet(&targets(&responders, running.as_ref())?, cores)?;
        }
        let (subjects, rounds) = self.in_turns(kind.name, &subjects, report, |index, _| {
            let (subject, running) = &running[index];
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

    /// Many short connections from both cores, as many from each.
    fn meet(targets: &[Vec<SocketAddr>; 2], cores: [usize; 2]) -> io::Result<()> {
        drive(&mut open(targets, connections(64), cores)?, cores, MEETING)
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
        let mut generators = open(&targets(responders, subject)?, load, cores)?;
        drive(&mut generators, cores, self.window / 5)?;
        let exchanges = |generators: &[Generator; 2]| -> f64 {
            generators.iter().map(|one| one.exchanges(0)).sum()
        };
        let mut turn = measure(&cores, &processes, || {
            let before = exchanges(&generators);
            drive(&mut generators, cores, self.window)?;
            Ok(exchanges(&generators) - before)
        })?;
        // A second of two cores is two seconds of core: count it as one.
        turn.used.ours_and_idle /= 2.0;
        Ok(turn)
    }
}

/// Where the generator of each core connects to. With a balancer every second server is on the
/// other core, as servers go in turn, and a quarter of all messages passes between the cores. What
/// that costs is the machine's, and changes as a hypervisor moves its cores about. So without a
/// balancer every fourth connection is to the other core's server: the most that two cores allow.
fn targets(responders: &Responders, subject: Option<&Running>) -> io::Result<[Vec<SocketAddr>; 2]> {
    if let Some(subject) = subject {
        return Ok([vec![subject.address], vec![subject.address]]);
    }
    let [first, second] = responders.addresses()[..] else {
        return Err(io::Error::other("a responder for each core is wanted"));
    };
    let mostly = |own, other| vec![own, own, own, other];
    Ok([mostly(first, second), mostly(second, first)])
}

/// Half of the load each, from a core of its own as from a queue of a network card.
fn open(
    targets: &[Vec<SocketAddr>; 2],
    load: Load,
    cores: [usize; 2],
) -> io::Result<[Generator; 2]> {
    let half = [Load { connections: load.connections / 2, ..load }];
    let from = |core, targets: &[SocketAddr]| {
        cpu::pin(&[core])?;
        Generator::open(targets, &half)
    };
    Ok([from(cores[0], &targets[0])?, from(cores[1], &targets[1])?])
}

/// Both at the same time, each on its core.
fn drive(generators: &mut [Generator; 2], cores: [usize; 2], time: Duration) -> io::Result<()> {
    let [one, other] = generators;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cpu::pin(&cores[1..])?;
            other.drive(time)
        });
        cpu::pin(&cores[..1])?;
        one.drive(time)?;
        thread.join().map_err(|_| io::Error::other("a generator panicked"))?
    })
}
