//! The result as Markdown.

use std::fmt::Write;

use crate::report::{Report, Spread};
use crate::targets::Target;

struct Column {
    figure: &'static str,
    title: &'static str,
    format: fn(Spread) -> String,
}

const fn column(figure: &'static str, title: &'static str, format: fn(Spread) -> String) -> Column {
    Column { figure, title, format }
}

/// A row belongs to the table that begins with its `Row::table`.
const TABLES: &[&[Column]] = &[
    &[
        column("rate", "a second", |rate| thousands(rate.median)),
        column("ratio", "ratio to HAProxy (min - max)", with_extremes),
        column("cost", "own cost, µs", two_digits),
        column("cost_ratio", "ratio to HAProxy's", two_digits),
        column("cpu", "balancer's CPU time, µs", two_digits),
        column("segments", "segments", |segments| format!("{:.1}", segments.median)),
    ],
    &[
        column("windowed_p50", "windowed p50, µs", |p50| microseconds(p50.median)),
        column("windowed_p99", "windowed p99, µs (min - max)", |p99| {
            let [median, min, max] = <[f64; 3]>::from(p99).map(microseconds);
            format!("{median} ({min} - {max})")
        }),
        column("p999", "p99.9, µs", |p999| microseconds(p999.median)),
        column("rate", "a second", |rate| thousands(rate.median)),
        column("bulk", "bulk a second", |rate| thousands(rate.median)),
        column("cpu", "balancer's CPU time, µs", two_digits),
    ],
    &[
        column("user", "user memory, B", |user| thousands(user.median)),
        column("with_most", "with what comes first, B", |user| thousands(user.median)),
        column("kernel", "kernel memory, B", |kernel| thousands(kernel.median)),
        column("at_start", "process at its start, KiB", |start| thousands(start.median)),
    ],
    &[
        column("probe", "CPU time of a probe, µs (min - max)", with_extremes),
        column("probe_ratio", "ratio to HAProxy (min - max)", with_extremes),
        column("probes_a_second", "probes a second", |rate| thousands(rate.median)),
        column("probes", "probes of a round", |count| thousands(count.median)),
    ],
    &[
        column("scrape", "CPU time of a scrape, ms (min - max)", with_extremes),
        column("scrape_ratio", "ratio to HAProxy (min - max)", with_extremes),
        column("took", "duration, ms (min - max)", with_extremes),
        column("bytes", "bytes", |bytes| thousands(bytes.median)),
    ],
    &[
        column("quiet_p50", "windowed p50 alone, µs", |p50| microseconds(p50.median)),
        column("beside_p50", "beside it", |p50| microseconds(p50.median)),
        column("quiet_p99", "windowed p99 alone, µs", |p99| microseconds(p99.median)),
        column("beside_p99", "beside it", |p99| microseconds(p99.median)),
        column("growth", "ratio (min - max)", with_extremes),
        column("turn_growth", "ratio of p99 of whole turns (min - max)", with_extremes),
        column("events", "events a second", |rate| thousands(rate.median)),
        column("busy", "balancer's core", |busy| format!("{:.0} %", busy.median * 100.0)),
    ],
    &[column("ms", "ms (min - max)", with_extremes)],
];

/// The tables, with a line on the machine before and a line on its other users after them.
pub(crate) fn markdown(report: &Report) -> Result<String, std::fmt::Error> {
    let run = &report.run;
    let machine = &run.machine;
    let mut text = format!(
        "Commit {}, {}; Linux {} {}, {}, core {}, {}; {} rounds of {} s.\n",
        machine.commit,
        machine.versions.join(", "),
        machine.kernel,
        machine.architecture,
        machine.cpu,
        machine.core,
        machine.congestion_control,
        run.rounds,
        run.seconds,
    );
    for columns in TABLES {
        let figure = columns[0].figure;
        let rows = || report.rows.iter().filter(|row| row.table() == figure);
        let used = |column: &&Column| rows().any(|row| row.figures.contains_key(column.figure));
        let columns: Vec<&Column> = columns.iter().filter(used).collect();
        if columns.is_empty() {
            continue;
        }
        write!(text, "\n| work | subject |")?;
        columns.iter().try_for_each(|column| write!(text, " {} |", column.title))?;
        write!(text, "\n|---|---|{}\n", "--:|".repeat(columns.len()))?;
        let mut last = "";
        for row in rows() {
            let title = run.titles.get(&row.work).unwrap_or(&row.work);
            let title = if row.work == last { "" } else { title };
            last = &row.work;
            write!(text, "| {title} | {} |", row.subject)?;
            for column in &columns {
                let cell = row.figures.get(column.figure).copied().map(column.format);
                write!(text, " {} |", cell.unwrap_or_default())?;
            }
            writeln!(text)?;
        }
    }
    writeln!(text)?;
    if !report.works("windowed_p50").is_empty() {
        writeln!(text, "Windowed: the median over windows of 100 ms, then over the rounds.")?;
    }
    write_disturbance(report, &mut text)?;
    for why in &run.left_out {
        writeln!(text, "Left out: {why}.")?;
    }
    Ok(text)
}

/// One line for a target.
pub(crate) fn target(target: &Target) -> String {
    let Target { work, what, reached, demanded, at_most, .. } = target;
    let limit = if *at_most { "at most" } else { "at least" };
    let verdict = if target.is_met() { "met" } else { "NOT met" };
    let digits = if *reached < 100.0 { 2 } else { 0 };
    format!("{work}: {reached:.digits$} {what}, {limit} {demanded:.digits$}: {verdict}")
}

/// The share of the core that others had: figures of a busy machine are less reliable.
fn write_disturbance(report: &Report, text: &mut String) -> std::fmt::Result {
    let highest = |figure: &str, value: fn(&Spread) -> f64| {
        let spreads = report.rows.iter().filter_map(|row| row.figures.get(figure));
        spreads.map(value).fold(0.0, f64::max) * 100.0
    };
    if report.works("rate").is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "Others had {:.0} % of the core in the worst row, {:.0} % in the worst turn; the core was \
         idle for {:.0} % at most.",
        highest("others", |spread| spread.median),
        highest("others", |spread| spread.max),
        highest("unused", |spread| spread.median),
    )?;
    for row in &report.rows {
        if let Some(share) = row.median("elsewhere").filter(|share| *share > 0.0) {
            let (work, subject, percent) = (&row.work, &row.subject, share * 100.0);
            writeln!(text, "{work}, {subject}: {percent:.0} % more, on other cores.")?;
        }
    }
    Ok(())
}

fn with_extremes(spread: Spread) -> String {
    format!("{:.2} ({:.2} - {:.2})", spread.median, spread.min, spread.max)
}

fn two_digits(spread: Spread) -> String {
    format!("{:.2}", spread.median)
}

/// Three digits, or those before the point.
fn microseconds(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// 271828.1 as "271,828".
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digit != '-' && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn numbers_are_grouped_and_short_latencies_have_three_digits() {
        assert_eq!(["999", "271,828", "1,000,000"], [999.4, 271_828.1, 1e6].map(thousands)[..]);
        assert_eq!(["7.2", "100", "1038"], [7.24, 99.96, 1038.4].map(microseconds)[..]);
    }

    #[test]
    fn each_row_is_in_the_table_of_its_figure() {
        let rows = [
            ("bulk", "evenkeel", "rate", &[1000.0][..]),
            ("mixed", "haproxy", "windowed_p50", &[7.0]),
        ];
        let text = markdown(&report("", &rows)).unwrap();
        assert!(
            text.contains("| a second |\n|---|---|--:|\n| a & b | evenkeel | 1,000 |"),
            "{text}"
        );
        assert!(text.contains("| windowed p50, µs |\n|---|---|--:|\n| a & b | haproxy | 7.0 |"));
    }
}
