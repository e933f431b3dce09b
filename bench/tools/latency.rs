//! Latencies: of small exchanges beside bulk, and of an open loop at fixed rates.

use std::io;

use crate::generator::Generator;
use crate::process::Running;
use crate::report::median;
use crate::rounds::{Bench, Beside, Comparison, Layout};
use crate::subject::{HAPROXY, Subject};
use crate::work::{Kind, Load};

/// The bulk beside small exchanges, as a share of what HAProxy transfers there: every subject must
/// be able to transfer it.
const BULK_SHARE: f64 = 0.4;

/// Percentages of HAProxy's limit.
const SHARES: [u32; 3] = [30, 60, 80];

impl Bench {
    /// The latencies of `load`, a closed loop, beside `bulk` at the same rate for each subject;
    /// without HAProxy at its own rate.
    pub(crate) fn mixed(&self, kind: &Kind, (load, bulk): (Load, Load)) -> io::Result<()> {
        let (layout, mut title) = (self.layout(), kind.title.to_owned());
        let running = self.start_all(&self.subjects, &layout.setup)?;
        let limit = self.limit(&running, &[bulk, load])?;
        let offered = limit.map(|limit| limit * BULK_SHARE);
        if let Some(offered) = offered {
            title += &format!(", {offered:.0} of these a second");
        }
        let (name, beside) = ((kind.name.to_owned(), title), Beside::Bulk(bulk, offered));
        let comparison = Comparison { name, load, beside, rate: None, layout };
        self.compare_running(&comparison, &running)
    }

    /// The latencies of an open loop at 30, 60 and 80 % of what HAProxy reaches in this layout.
    pub(crate) fn open_loop<'a>(
        &self,
        (work, title): (&str, &str),
        load: Load,
        layout: &dyn Fn() -> Layout<'a>,
    ) -> io::Result<()> {
        let running = self.start_all(&self.subjects, &layout().setup)?;
        let Some(limit) = self.limit(&running, &[load])? else {
            self.leave_out(format!("{work}: its rates are shares of haproxy's"));
            return Ok(());
        };
        for share in SHARES {
            let rate = limit * f64::from(share) / 100.0;
            let title = format!("{title} at {share} % of HAProxy's limit, {rate:.0} a second");
            let (name, layout) = ((format!("{work}-{share}"), title), layout());
            let (rate, beside) = (Some(rate), Beside::Nothing);
            let comparison = Comparison { name, load, beside, rate, layout };
            self.compare_running(&comparison, &running)?;
        }
        Ok(())
    }

    /// What HAProxy reaches of the first load in a closed loop beside the others, in exchanges a
    /// second: the median of three. None if it is not a subject.
    fn limit(
        &self,
        running: &[(Subject, Option<Running>)],
        loads: &[Load],
    ) -> io::Result<Option<f64>> {
        let base = running.iter().find(|(subject, _)| subject.name == HAPROXY);
        let Some((_, Some(base))) = base else { return Ok(None) };
        let mut rates = Vec::new();
        for _ in 0..3 {
            let mut generator = Generator::open(&[base.address], loads)?;
            generator.drive(self.window / 5)?;
            rates.push(generator.rates(self.window)?[0]);
        }
        Ok(median(rates))
    }
}
