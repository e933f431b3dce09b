//! The report as Markdown.

use std::fmt::Write;

use crate::report::{Report, Row, Spread};

/// Tables for a README, and a line on the machine.
///
/// # Errors
/// None, as long as a `String` takes what is written to it.
pub(crate) fn markdown(report: &Report) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    write_all(report, &mut text)?;
    Ok(text)
}

fn write_all(report: &Report, text: &mut String) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(text, "{} ({})", machine.evenkeel, machine.commit)?;
    if let Some(haproxy) = &machine.haproxy {
        writeln!(text, "against {haproxy}")?;
    }
    writeln!(
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
    if !report.rows.is_empty() {
        writeln!(
            text,
            "\n| work | subject | a second | to HAProxy (min - max) | own cost, µs \
             | to HAProxy's |"
        )?;
        writeln!(text, "|---|---|--:|--:|--:|--:|")?;
    }
    let mut last = "";
    for row in &report.rows {
        let title = if row.work == last { "" } else { row.title };
        last = row.work;
        write_row(title, row, text)?;
    }
    if let Some(first) = report.idle.first() {
        let [few, many] = first.sessions;
        writeln!(
            text,
            "\n| idle sessions, slope from {few} to {many} | user memory of one \
             | of the process at its start |"
        )?;
        writeln!(text, "|---|--:|--:|")?;
    }
    for row in &report.idle {
        let start = row.at_start.median / 1024.0;
        writeln!(text, "| {} | {:.0} B | {start:.0} KiB |", row.subject, row.session.median)?;
    }
    writeln!(text)?;
    for target in &report.targets {
        let met = if target.met { "met" } else { "NOT met" };
        let (work, reached, demanded) = (target.work, target.reached, target.demanded);
        match work {
            "idle" => writeln!(text, "{work}: {reached:.0} B, at most {demanded} B: {met}")?,
            _ => writeln!(text, "{work}: {reached:.2} x HAProxy, at least {demanded}: {met}")?,
        }
    }
    write_disturbance(report, text)
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
    writeln!(text, "| {title} | {} | {rate} | {ratio} | {cost} | {cost_ratio} |", row.subject)
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

/// 271828.1 as "271,828"; small numbers with a digit more.
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
    use super::thousands;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(999.4), "999");
        assert_eq!(thousands(271_828.1), "271,828");
        assert_eq!(thousands(1_000_000.0), "1,000,000");
    }
}
