//! The report as Markdown.

use std::fmt::Write;

use crate::report::{Report, Row, Spread, Target};
use crate::rounds;

/// Tables for a README, and a line on the machine.
///
/// # Errors
/// None, as long as a `String` takes what is written to it.
pub(crate) fn markdown(report: &Report) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    write_machine(report, &mut text)?;
    write_rows(report, &mut text)?;
    write_latencies(report, &mut text)?;
    write_idle(report, &mut text)?;
    if !report.growth.is_empty() {
        writeln!(text, "\n| growth | subject | median (min - max) |\n|---|---|--:|")?;
    }
    for row in &report.growth {
        let Spread { median, min, max } = row.value;
        let (what, subject, unit) = (&row.what, row.subject, row.unit);
        writeln!(text, "| {what} | {subject} | {median:.2} {unit} ({min:.2} - {max:.2}) |")?;
    }
    writeln!(text)?;
    for target in &report.targets {
        write_target(target, &mut text)?;
    }
    write_disturbance(report, &mut text)?;
    for why in &report.left_out {
        writeln!(text, "Left out: {why}.")?;
    }
    Ok(text)
}

/// What was demanded and what was reached.
pub(crate) fn write_target(target: &Target, text: &mut String) -> std::fmt::Result {
    let met = if target.met { "met" } else { "NOT met" };
    let limit = if target.at_most { "at most" } else { "at least" };
    let Target { work, what, reached, demanded, .. } = target;
    let digits = if *reached < 100.0 { 2 } else { 0 };
    writeln!(text, "{work}: {reached:.digits$} {what}, {limit} {demanded:.digits$}: {met}")
}

fn write_machine(report: &Report, text: &mut String) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(text, "{} ({})", machine.evenkeel, machine.commit)?;
    for version in [&machine.haproxy, &machine.nginx, &machine.pen].into_iter().flatten() {
        writeln!(text, "against {version}")?;
    }
    write!(
        text,
        "on Linux {} {}, {}, everything on core {}, {}, {} rounds of {} s",
        machine.kernel,
        machine.architecture,
        machine.cpu,
        machine.core,
        machine.congestion_control,
        report.rounds,
        report.seconds
    )?;
    match rounds::parts(report.seconds) {
        1 => writeln!(text),
        parts => writeln!(text, " (of most kinds {parts} times as many, 1/{parts} as long)"),
    }
}

fn write_rows(report: &Report, text: &mut String) -> std::fmt::Result {
    if !report.rows.is_empty() {
        writeln!(
            text,
            "\n| work | subject | a second | to HAProxy (min - max) | own cost, µs \
             | to HAProxy's | segments |"
        )?;
        writeln!(text, "|---|---|--:|--:|--:|--:|--:|")?;
    }
    let mut last = "";
    for row in &report.rows {
        let title = if row.work == last { "" } else { &row.title };
        last = &row.work;
        write_row(title, row, text)?;
    }
    Ok(())
}

fn write_row(title: &str, row: &Row, text: &mut String) -> std::fmt::Result {
    let ratio = row.ratio.map_or_else(String::new, |spread| {
        format!("{:.2} ({:.2} - {:.2})", spread.median, spread.min, spread.max)
    });
    let median = |spread: Option<Spread>| {
        spread.map_or_else(String::new, |spread| format!("{:.2}", spread.median))
    };
    let rate = thousands(row.rate.median);
    let (cost, cost_ratio) = (median(row.cost), median(row.cost_ratio));
    let segments = row.segments.map(|spread| format!("{:.1}", spread.median)).unwrap_or_default();
    let subject = row.subject;
    writeln!(
        text,
        "| {title} | {subject} | {rate} | {ratio} | {cost} | {cost_ratio} | {segments} |"
    )
}

fn write_latencies(report: &Report, text: &mut String) -> std::fmt::Result {
    if !report.latencies.is_empty() {
        writeln!(
            text,
            "\n| work | subject | p50, µs | p99, µs (min - max) | p99.9, µs | a second \
             | bulk a second |"
        )?;
        writeln!(text, "|---|---|--:|--:|--:|--:|--:|")?;
    }
    let mut last = "";
    for row in &report.latencies {
        let title = if row.work == last { "" } else { &row.title };
        last = &row.work;
        let bulk = row.bulk.map_or_else(String::new, |bulk| thousands(bulk.median));
        writeln!(
            text,
            "| {title} | {} | {} | {} ({} - {}) | {} | {} | {bulk} |",
            row.subject,
            microseconds(row.p50.median),
            microseconds(row.p99.median),
            microseconds(row.p99.min),
            microseconds(row.p99.max),
            microseconds(row.p999.median),
            thousands(row.rate.median),
        )?;
    }
    Ok(())
}

fn write_idle(report: &Report, text: &mut String) -> std::fmt::Result {
    if let Some(first) = report.idle.first() {
        let [few, many] = first.sessions;
        writeln!(
            text,
            "\n| idle sessions, slope from {few} to {many} | user memory of one \
             | and with what comes first, of {many} | kernel memory of one \
             | of the process at its start |"
        )?;
        writeln!(text, "|---|--:|--:|--:|--:|")?;
    }
    for row in &report.idle {
        let start = row.at_start.median / 1024.0;
        let kernel = row.kernel.map_or_else(String::new, |kernel| format!("{kernel:.0} B"));
        writeln!(
            text,
            "| {} | {:.0} B | {:.0} B | {kernel} | {start:.0} KiB |",
            row.subject, row.session.median, row.with_most.median
        )?;
    }
    Ok(())
}

/// Who else was there: figures of a busy machine deserve less trust.
fn write_disturbance(report: &Report, text: &mut String) -> std::fmt::Result {
    let percent = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max) * 100.0;
    let usual = Spread::of(report.rows.iter().map(|row| row.others.median).collect());
    let Some(usual) = usual else { return Ok(()) };
    let worst = percent(report.rows.iter().map(|row| row.others.max).collect());
    let unused = percent(report.rows.iter().map(|row| row.unused.median).collect());
    writeln!(
        text,
        "Others had {:.0} % of the core (worst turn: {worst:.0} %); \
         it was idle for at most {unused:.0} %.",
        usual.median * 100.0
    )?;
    for row in report.rows.iter().filter(|row| row.elsewhere.median > 0.0) {
        let share = row.elsewhere.median * 100.0;
        writeln!(text, "{}, {}: {share:.0} % more, on other cores.", row.work, row.subject)?;
    }
    Ok(())
}

/// Three digits of a latency, or those before the point.
fn microseconds(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// 271828.1 as "271,828".
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::{microseconds, thousands};

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(999.4), "999");
        assert_eq!(thousands(271_828.1), "271,828");
        assert_eq!(thousands(1_000_000.0), "1,000,000");
    }

    #[test]
    fn short_latencies_have_three_digits() {
        assert_eq!(microseconds(7.24), "7.2");
        assert_eq!(microseconds(99.96), "100");
        assert_eq!(microseconds(1038.4), "1038");
    }
}
