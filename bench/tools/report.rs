//! The result of a run: for each kind of work and subject the median and the extremes of each
//! figure over the rounds. Ratios and own cost are computed inside a round.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::subject::{DIRECT, HAPROXY, Subject};

/// The figures of one subject in one round of one kind of work, by name.
pub(crate) type Turn = BTreeMap<&'static str, f64>;

/// A result, as in the JSON file.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) run: Run,
    pub(crate) rows: Vec<Row>,
}

/// Where and how it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    /// The commit of `evenkeel-before`.
    pub(crate) before: Option<String>,
    pub(crate) rounds: usize,
    /// Seconds of each round.
    pub(crate) seconds: f64,
    /// By kind of work.
    pub(crate) titles: BTreeMap<String, String>,
    /// What was not measured, and why.
    pub(crate) left_out: Vec<String>,
}

/// One subject in one kind of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) subject: String,
    #[serde(flatten)]
    pub(crate) figures: BTreeMap<String, Spread>,
    /// The same of each round; not in the file.
    #[serde(skip)]
    pub(crate) rounds: BTreeMap<&'static str, Vec<f64>>,
}

/// Median, minimum and maximum.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(from = "[f64; 3]", into = "[f64; 3]")]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

impl From<[f64; 3]> for Spread {
    fn from([median, min, max]: [f64; 3]) -> Self {
        Self { median, min, max }
    }
}

impl From<Spread> for [f64; 3] {
    /// With four significant digits.
    fn from(spread: Spread) -> Self {
        let short = |value: f64| format!("{value:.3e}").parse().unwrap_or(value);
        [spread.median, spread.min, spread.max].map(short)
    }
}

/// The median; none of no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values.into_iter().collect()).map(|spread| spread.median)
}

impl Report {
    /// Adds the figures that a subject had in each round.
    pub(crate) fn add(&mut self, (work, title): (&str, &str), subject: Subject, turns: &[Turn]) {
        if turns.is_empty() {
            return;
        }
        self.run.titles.insert(work.to_owned(), title.to_owned());
        let mut row = Row {
            work: work.to_owned(),
            subject: subject.name.to_owned(),
            figures: BTreeMap::new(),
            rounds: BTreeMap::new(),
        };
        for name in turns.iter().flat_map(Turn::keys) {
            row.set(name, turns.iter().filter_map(|turn| turn.get(name)).copied().collect());
        }
        self.rows.push(row);
    }

    /// The row of a subject in a kind of work.
    pub(crate) fn row(&self, work: &str, subject: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.work == work && row.subject == subject)
    }

    /// The kinds of work whose rows are of this table.
    pub(crate) fn works(&self, table: &str) -> Vec<&str> {
        let rows = self.rows.iter().filter(|row| row.table() == table);
        let mut works: Vec<&str> = rows.map(|row| &*row.work).collect();
        works.dedup();
        works
    }
}

impl Row {
    /// The figure that says in which table the row is: `windowed_p50` (latencies), `rate`
    /// (throughput), `user` (memory), `probe` and `scrape` (CPU time), `quiet_p50` (neighbours) or
    /// `ms` (other times).
    pub(crate) fn table(&self) -> &'static str {
        let tables = ["windowed_p50", "rate", "user", "probe", "scrape", "quiet_p50"];
        tables.into_iter().find(|table| self.figures.contains_key(*table)).unwrap_or("ms")
    }

    /// The median of a figure.
    pub(crate) fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).map(|spread| spread.median)
    }

    /// The figure in each round.
    pub(crate) fn rounds(&self, figure: &str) -> &[f64] {
        self.rounds.get(figure).map_or(&[], Vec::as_slice)
    }

    fn set(&mut self, figure: &'static str, values: Vec<f64>) {
        self.figures.extend(Spread::of(values.clone()).map(|spread| (figure.to_owned(), spread)));
        self.rounds.insert(figure, values);
    }
}

/// Figures of CPU time, and their ratios to plain HAProxy's in the same round.
const COSTS: [(&str, &str); 2] = [("probe", "probe_ratio"), ("scrape", "scrape_ratio")];

/// Adds to each turn of throughput the ratio to plain HAProxy in the same round, and the own cost
/// of an exchange, `1/T - 1/T_direct`, in microseconds; to other turns the ratio of [`COSTS`].
pub(crate) fn add_ratios(turns: &mut [(Subject, Vec<Turn>)]) {
    let figures = |name: &str, figure: &str| -> Vec<Option<f64>> {
        let turns = turns.iter().filter(|(subject, _)| subject.name == name);
        turns.flat_map(|(_, turns)| turns.iter().map(|turn| turn.get(figure).copied())).collect()
    };
    let (base, direct) = (figures(HAPROXY, "rate"), figures(DIRECT, "rate"));
    let costs = COSTS.map(|(figure, ratio)| (figure, ratio, figures(HAPROXY, figure)));
    for (subject, turns) in turns {
        for (round, turn) in turns.iter_mut().enumerate() {
            let of_round = |figures: &[Option<f64>]| figures.get(round).copied().flatten();
            for (figure, ratio, base) in &costs {
                let pair = turn.get(figure).copied().zip(of_round(base));
                turn.extend(pair.map(|(own, base)| (*ratio, own / base)));
            }
            let Some(rate) = turn.get("rate").copied() else { continue };
            let (base, direct) = (of_round(&base), of_round(&direct));
            let cost = |rate: f64| Some((rate.recip() - direct?.recip()) * 1e6);
            if !turn.contains_key("windowed_p50") {
                turn.extend(base.map(|base| ("ratio", rate / base)));
            }
            if !turn.contains_key("windowed_p50") && subject.name != DIRECT {
                turn.extend(cost(rate).map(|own| ("cost", own)));
                let costs = cost(rate).zip(base.and_then(cost));
                turn.extend(costs.map(|(own, base)| ("cost_ratio", own / base)));
            }
        }
    }
}

/// Reads a result file: the results of one or more machines.
pub(crate) fn read(file: &Path) -> io::Result<Vec<Report>> {
    let reports = fs::read_to_string(file)
        .and_then(|text| serde_json::from_str(&text).map_err(io::Error::from));
    reports.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

/// Writes a result file, with one line for each row.
pub(crate) fn write(file: &Path, reports: &[Report]) -> io::Result<()> {
    let mut texts = Vec::new();
    for Report { run, rows } in reports {
        let rows = rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let (run, rows) = (serde_json::to_string_pretty(run)?, rows.join(",\n"));
        texts.push(format!("{{\"run\": {run},\n\"rows\": [\n{rows}\n]}}"));
    }
    fs::write(file, format!("[{}]\n", texts.join(",\n")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A result with rows of this work, subject, figure and values in each round.
    pub(crate) fn report(cpu: &str, rows: &[(&str, &str, &'static str, &[f64])]) -> Report {
        let machine = Machine { cpu: cpu.to_owned(), ..Machine::default() };
        let (titles, left_out) = (BTreeMap::new(), Vec::new());
        let run = Run { machine, before: None, rounds: 1, seconds: 1.0, titles, left_out };
        let mut report = Report { run, rows: Vec::new() };
        for (work, subject, figure, values) in rows {
            let turns: Vec<Turn> =
                values.iter().map(|value| Turn::from([(*figure, *value)])).collect();
            report.add((work, "a & b"), Subject::find(subject).unwrap(), &turns);
        }
        report
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_two_middle_values() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(<[f64; 3]>::from(spread), [3.0, 1.0, 9.0]);
        assert!(Spread::of(Vec::new()).is_none());
    }

    #[test]
    fn ratio_and_cost_are_computed_inside_a_round() {
        // The second round is at half the speed of the machine: ratios do not change.
        let rates = [("direct", 1e6), ("evenkeel", 5e5), ("haproxy", 2.5e5)];
        let mut turns = rates.map(|(name, rate)| {
            let turns = [rate, rate / 2.0].map(|rate| Turn::from([("rate", rate)]));
            (Subject::find(name).unwrap(), turns.to_vec())
        });
        add_ratios(&mut turns);
        let figure = |name| turns[1].1.iter().map(|turn| turn[name]).collect::<Vec<f64>>();
        assert_eq!(figure("ratio"), [2.0, 2.0]);
        let costs: Vec<f64> = figure("cost").iter().map(|cost| cost.round()).collect();
        assert_eq!(costs, [1.0, 2.0]);
        assert!(figure("cost_ratio").iter().all(|ratio| (ratio - 1.0 / 3.0).abs() < 1e-9));
        assert!(!turns[0].1[0].contains_key("cost"));
    }

    #[test]
    fn a_result_file_holds_the_summaries_of_several_machines_and_reads_back() {
        let file = std::env::temp_dir().join(format!("bench-result-{}.json", std::process::id()));
        let row = [("bulk", "evenkeel", "rate", &[1234.56, 2.0][..])];
        write(&file, &[report("one", &row), report("two", &row)]).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches("\n{\"work\":\"bulk\"").count(), 2, "a line for each row: {text}");
        let reports = read(&file).unwrap();
        assert_eq!(reports[1].run.machine.cpu, "two");
        assert!((reports[1].rows[0].figures["rate"].max - 1235.0).abs() < 0.1);
        fs::remove_file(file).unwrap();
    }
}
