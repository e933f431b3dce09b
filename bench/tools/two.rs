//! Two workers on two cores, with a generator and a responder on each of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::configuration::Setup;
use crate::cpu;
use crate::generator::Generator;
use crate::process::{Host, Running};
use crate::report::Turn;
use crate::rounds::{Bench, Comparison, Layout, Responders, measure};
use crate::subject::{DIRECT, Subject};
use crate::work::{Kind, Load};

impl Bench {
    /// Two workers on two cores, and right after each turn of evenkeel one of its one worker on one
    /// core; the same without a balancer, which shows what the cores allow.
    pub(crate) fn two(&self, kind: &Kind, load: Load) -> io::Result<()> {
        let [.., first, second] = self.cores[..] else {
            self.leave_out(format!("{}: this machine has one core", kind.name));
            return Ok(());
        };
        let outcome = self.on_two_and_one(kind, load, [first, second]);
        cpu::pin(&[self.core])?;
        outcome
    }

    fn on_two_and_one(&self, kind: &Kind, load: Load, cores: [usize; 2]) -> io::Result<()> {
        let title = "the same, one worker on one core".to_owned();
        let one = Comparison::throughput("one".to_owned(), title, load, self.layout());
        let on_one = self.subjects.iter().filter(|it| it.name == DIRECT || it.is_evenkeel());
        let on_one: Vec<Subject> = on_one.copied().collect();
        let on_one = self.start_all(&on_one, &one.layout.setup)?;

        cpu::pin(&cores)?;
        let hosts = cores.map(|core| Host { core: Some(core), namespace: None });
        let responders = &Responders::start(Ipv4Addr::LOCALHOST.into(), hosts)?;
        let plain = Setup::plain(&responders.addresses(), self.sessions_max());
        let setup = Setup { workers: 2, cores: cores.to_vec(), ..plain };
        let layout = Layout { setup, responders, cores: cores.to_vec() };
        let running = self.start_all(&self.subjects, &layout.setup)?;
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        let name = (kind.name.to_owned(), kind.title.to_owned());
        self.in_turns(&[&name, &one.name], &subjects, |index, round| {
            let (subject, running) = &running[index];
            let mut turns = vec![self.turn_on_two(load, cores, &layout, running.as_ref())?];
            cpu::pin(&[self.core])?;
            if let Some((_, running)) = on_one.iter().find(|(it, _)| it == subject) {
                turns.push(self.turn(&one, running.as_ref(), round)?);
            }
            Ok(turns)
        })
    }

    fn turn_on_two(
        &self,
        load: Load,
        cores: [usize; 2],
        layout: &Layout<'_>,
        subject: Option<&Running>,
    ) -> io::Result<Turn> {
        let mut generators = open(&addresses(layout, subject)?, load, cores)?;
        drive(&mut generators, cores, self.window / 5)?;
        let exchanges = |generators: &[Generator; 2]| -> f64 {
            generators.iter().map(|one| one.exchanges(0)).sum()
        };
        measure(layout, subject, || {
            let before = exchanges(&generators);
            drive(&mut generators, cores, self.window)?;
            Ok(exchanges(&generators) - before)
        })
    }
}

/// Where the generator of each core connects to. With a balancer, round robin sends half of the
/// connections to the server of the other core, and a quarter of all messages crosses between the
/// cores; what that costs changes as a hypervisor moves its cores. So without a balancer every
/// fourth connection goes to the other core's server.
fn addresses(layout: &Layout<'_>, subject: Option<&Running>) -> io::Result<[Vec<SocketAddr>; 2]> {
    match (subject, &layout.setup.servers[..]) {
        (Some(subject), _) => Ok([vec![subject.address], vec![subject.address]]),
        (None, &[first, second]) => {
            Ok([vec![first, first, first, second], vec![second, second, second, first]])
        }
        _ => Err(io::Error::other("each core needs a responder")),
    }
}

/// Half of the load from each core, as from a queue of a network card.
fn open(
    addresses: &[Vec<SocketAddr>; 2],
    load: Load,
    cores: [usize; 2],
) -> io::Result<[Generator; 2]> {
    let half = [Load { connections: load.connections / 2, ..load }];
    let from = |core, addresses: &[SocketAddr]| {
        cpu::pin(&[core])?;
        Generator::open(addresses, &half)
    };
    Ok([from(cores[0], &addresses[0])?, from(cores[1], &addresses[1])?])
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
