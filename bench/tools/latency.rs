//! Latencies: of small exchanges beside bulk, and of an open loop at fixed rates.

use std::io;
use std::time::Instant;

use crate::generator::{Arrivals, Generator};
use crate::histogram::Quantiles;
use crate::report::{LatencyTurn, LatencyTurns, Report};
use crate::rounds::{Bench, addresses};
use crate::subject::{Running, Subject};
use crate::work::{Kind, Load};

/// Of HAProxy's bulk beside small exchanges, what every subject can pass.
const BULK_SHARE: f64 = 0.4;

impl Bench {
    /// The latencies of `small`, a closed loop, while `bulk` goes on: as much of it for each
    /// subject, [`BULK_SHARE`] of what HAProxy passes beside them; without HAProxy as much as goes.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn mix(
        &self,
        kind: &Kind,
        (small, bulk): (Load, Load),
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let setup = self.plain();
        let running = self.start_all(subjects, &setup, report)?;
        let limit = base(&running).map(|base| self.limit(base, &[bulk, small])).transpose()?;
        let offered = limit.map(|limit| limit * BULK_SHARE);
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        let (subjects, rounds) = self.in_turns(kind.name, &subjects, report, |index, _| {
            let addresses = addresses(&setup.servers, running[index].1.as_ref());
            let mut generator = Generator::open(&addresses, &[small, bulk])?;
            if let Some(offered) = offered {
                generator.pace(1, offered, Arrivals::Even)?;
            }
            generator.drive(self.window / 5)?;
            let before = [generator.exchanges(0), generator.exchanges(1)];
            generator.keep_latencies(0);
            let start = Instant::now();
            generator.drive(self.window)?;
            let took = start.elapsed().as_secs_f64();
            let bulk = (generator.exchanges(1) - before[1]) / took;
            let rate = (generator.exchanges(0) - before[0]) / took;
            Ok(LatencyTurn { quantiles: some(&mut generator)?, rate, bulk: Some(bulk) })
        })?;
        let (work, mut title) = (kind.name.to_owned(), kind.title.to_owned());
        if let Some(offered) = offered {
            title = format!("{title}, {offered:.0} of these a second");
        }
        report.add_latencies(&LatencyTurns { work, title, subjects, rounds });
        Ok(())
    }

    /// The latencies of an open loop at shares (in percent) of what HAProxy reaches here and now.
    ///
    /// # Errors
    /// A subject does not start, or fails a connection.
    pub(crate) fn pace(
        &self,
        kind: &Kind,
        (load, shares): (Load, &[u32]),
        subjects: &[Subject],
        report: &mut Report,
    ) -> io::Result<()> {
        let setup = self.plain();
        let running = self.start_all(subjects, &setup, report)?;
        let Some(base) = base(&running) else {
            report.leave_out(format!("{}: its rates are shares of haproxy's", kind.name));
            return Ok(());
        };
        let limit = self.limit(base, &[load])?;
        let subjects: Vec<Subject> = running.iter().map(|(subject, _)| *subject).collect();
        for share in shares {
            let offered = limit * f64::from(*share) / 100.0;
            let work = format!("{}-{share}", kind.name);
            let (subjects, rounds) = self.in_turns(&work, &subjects, report, |index, round| {
                let addresses = addresses(&setup.servers, running[index].1.as_ref());
                let mut generator = Generator::open(&addresses, &[load])?;
                generator.pace(0, offered, Arrivals::Poisson { seed: round })?;
                generator.drive(self.window / 5)?;
                generator.keep_latencies(0);
                let (before, start) = (generator.exchanges(0), Instant::now());
                generator.drive(self.window)?;
                let rate = (generator.exchanges(0) - before) / start.elapsed().as_secs_f64();
                Ok(LatencyTurn { quantiles: some(&mut generator)?, rate, bulk: None })
            })?;
            let title = format!("open loop at {share} % of HAProxy's limit, {offered:.0} a second");
            report.add_latencies(&LatencyTurns { work, title, subjects, rounds });
        }
        Ok(())
    }

    /// What the first load reaches in a closed loop beside the others, in exchanges a second of
    /// wall time: the median of three.
    fn limit(&self, base: &Running, loads: &[Load]) -> io::Result<f64> {
        let mut rates = Vec::new();
        for _ in 0..3 {
            let mut generator = Generator::open(&[base.address], loads)?;
            generator.drive(self.window / 5)?;
            let (before, start) = (generator.exchanges(0), Instant::now());
            generator.drive(self.window)?;
            rates.push((generator.exchanges(0) - before) / start.elapsed().as_secs_f64());
        }
        rates.sort_by(f64::total_cmp);
        Ok(rates[1])
    }
}

/// Whose limit the offered rates are shares of.
fn base(running: &[(Subject, Option<Running>)]) -> Option<&Running> {
    running.iter().find(|(subject, _)| *subject == Subject::Haproxy)?.1.as_ref()
}

fn some(generator: &mut Generator) -> io::Result<Quantiles> {
    generator.latencies(0).ok_or_else(|| io::Error::other("not one exchange was finished"))
}
