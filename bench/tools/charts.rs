//! Bar charts of a result, as SVG. Text and lines are of a grey that is readable on white and on
//! black, and the background is transparent.

use std::fs;
use std::io;
use std::path::Path;

use crate::report::{Report, Spread};
use crate::subject::{DIRECT, EVENKEEL, HAPROXY_NULL, Subject};

/// A contrast of 4.5 to 1 against white and against black.
const INK: &str = "#767676";
const OWN: &str = "#2e8b8b";
const OTHERS: &str = "#968cbe";
const CONTROL: &str = "#aaaaaa";

/// Pixels.
const ROW: usize = 26;
const HEAD: usize = 64;
const FOOT: usize = 34;
/// Where bars begin and end.
const LEFT: f64 = 225.0;
const RIGHT: f64 = 690.0;

type Bar = (String, Spread);

/// Draws all charts of a result into a folder; returns their names.
pub(crate) fn draw(report: &Report, folder: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(folder)?;
    let mut names = Vec::new();
    let mut chart = |name: &str, title: &str, unit: &str, bars: Vec<Bar>| {
        if bars.is_empty() {
            return Ok(());
        }
        names.push(name.to_owned());
        fs::write(folder.join(format!("{name}.svg")), svg(title, unit, &bars))
    };
    let title = |work: &str| report.run.titles.get(work).map_or(work, String::as_str).to_owned();
    for (name, title) in [
        ("growth-connections", "Own cost of a request, by connections"),
        ("growth-servers", "Own cost of a connection, by servers"),
        ("growth-frontends", "Own cost of a connection, by frontends"),
    ] {
        chart(name, title, "µs; less is better", growing(report, name))?;
    }
    let mut summary = Vec::new();
    for work in report.works("rate") {
        if work == "one" || work.starts_with("growth-") {
            continue;
        }
        let ratios = bars(report, work, "ratio");
        let (own, others): (Vec<Bar>, Vec<Bar>) =
            ratios.iter().cloned().partition(|(name, _)| name == EVENKEEL);
        let others = others.into_iter().filter(|(name, _)| Subject::is_peer(name));
        let best = others.max_by(|one, other| one.1.median.total_cmp(&other.1.median));
        let pair = own.into_iter().zip(best).flat_map(|(own, best)| [own, best]);
        summary.extend(pair.map(|(name, spread)| (format!("{name}, {work}"), spread)));
        if ratios.is_empty() {
            chart(work, &title(work), "a second; more is better", bars(report, work, "rate"))?;
        } else {
            chart(work, &title(work), "ratio to HAProxy; more is better", ratios)?;
        }
    }
    let heading = "evenkeel and the fastest other";
    chart("summary", heading, "ratio to plain HAProxy; more is better", summary)?;
    // Behind veth pairs, p99 differs less than its noise.
    let latencies = report.works("windowed_p50").into_iter();
    for work in latencies.filter(|work| !work.starts_with("veth")) {
        let unit = "windowed p99, µs; less is better";
        chart(&format!("{work}-p99"), &title(work), unit, bars(report, work, "windowed_p99"))?;
    }
    let unit = "bytes of user memory; less is better";
    chart("idle", "Memory of an idle session", unit, bars(report, "idle", "user"))?;
    Ok(names)
}

fn bars(report: &Report, work: &str, figure: &str) -> Vec<Bar> {
    let rows = report.rows.iter().filter(|row| row.work == work);
    rows.filter_map(|row| Some((row.subject.clone(), *row.figures.get(figure)?))).collect()
}

/// The own cost of each subject for each number, subject by subject.
fn growing(report: &Report, prefix: &str) -> Vec<Bar> {
    let rows = report.rows.iter().filter_map(|row| {
        let number = row.work.strip_prefix(prefix)?.strip_prefix('-')?;
        Some((&row.subject, number, *row.figures.get("cost")?))
    });
    let mut rows: Vec<(&String, &str, Spread)> = rows.collect();
    rows.sort_by_key(|(subject, ..)| *subject); // stable: the numbers stay in order
    let bar =
        |(subject, number, cost): (&String, &str, Spread)| (format!("{subject}, {number}"), cost);
    rows.into_iter().map(bar).collect()
}

fn svg(title: &str, unit: &str, bars: &[Bar]) -> String {
    let longest = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let at = |value: f64| LEFT + value.max(0.0) / longest * (RIGHT - LEFT);
    let end = HEAD + ROW * bars.len();
    let mut lines = vec![
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{}\" \
             font-family=\"sans-serif\" font-size=\"14\" fill=\"{INK}\" stroke-width=\"2\">",
            end + FOOT
        ),
        text(12.0, 27, 17, title),
        text(12.0, 48, 13, unit),
    ];
    for (index, (name, Spread { median, min, max })) in bars.iter().enumerate() {
        let color = match name.as_str() {
            name if name.starts_with(EVENKEEL) => OWN,
            name if [DIRECT, HAPROXY_NULL].contains(&name) => CONTROL,
            _ => OTHERS,
        };
        let y = HEAD + ROW * index;
        let (width, low, high) = ((at(*median) - LEFT).max(1.0), at(*min), at(*max));
        let figure = if *median < 100.0 { format!("{median:.2}") } else { format!("{median:.0}") };
        let (top, middle, bottom) = (y + 7, y + 12, y + 17);
        lines.extend([
            text(12.0, middle + 5, 14, name),
            format!(
                "<rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.0}\" height=\"18\" fill=\"{color}\"/>",
                y + 3
            ),
            // A line from the minimum to the maximum, with ends.
            format!(
                "<path stroke=\"{INK}\" fill=\"none\" d=\"M{low:.0} {middle}H{high:.0}\
                 M{low:.0} {top}V{bottom}M{high:.0} {top}V{bottom}\"/>"
            ),
            text(high + 8.0, middle + 5, 14, &figure),
        ]);
    }
    let legend = "bars: median over the rounds; lines: minimum and maximum";
    lines.push(text(LEFT, end + 20, 12, legend));
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

fn text(x: f64, y: usize, size: u32, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.0}\" y=\"{y}\" font-size=\"{size}\">{text}</text>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_kind_of_work_has_a_chart_with_all_subjects() {
        let rows = [("bulk", "evenkeel", "rate", &[1.5][..]), ("bulk", "haproxy", "rate", &[1.0])];
        let report = report("", &rows);
        let folder = std::env::temp_dir().join(format!("bench-charts-{}", std::process::id()));
        assert_eq!(draw(&report, &folder).unwrap(), ["bulk"]);
        let chart = fs::read_to_string(folder.join("bulk.svg")).unwrap();
        for part in ["a &amp; b", "evenkeel", "haproxy", "1.50", "a second"] {
            assert!(chart.contains(part), "{part}: {chart}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
