//! Charts of a result file, as SVG: bars with their spread. Text and lines are of a grey that can
//! be read on white and on black, and the ground is left transparent.

use std::fs;
use std::io;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

use crate::subject::Subject;

/// 4.5 to 1 against white and against black.
const INK: RGBColor = RGBColor(118, 118, 118);
const OWN: RGBColor = RGBColor(46, 139, 139);
const OTHERS: RGBColor = RGBColor(150, 140, 190);
const CONTROL: RGBColor = RGBColor(170, 170, 170);

const WIDTH: u32 = 760;
const ROW: u32 = 26;
const HEAD: u32 = 64;
const FOOT: u32 = 34;
/// Where bars begin and end.
const LEFT: i32 = 205;
const RIGHT: i32 = 690;

/// A bar: who, the median, and the extremes.
#[derive(Debug, PartialEq)]
struct Bar {
    name: String,
    median: f64,
    min: f64,
    max: f64,
}

/// Draws all that the file has figures for; gives the names of the files.
///
/// # Errors
/// The file can't be read, or the folder not written to.
pub(crate) fn draw(file: &Path, folder: &Path) -> io::Result<Vec<String>> {
    let report: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    fs::create_dir_all(folder)?;
    let mut written = Vec::new();
    let mut chart = |name: String, title: &str, unit: &str, bars: Vec<Bar>| {
        if bars.is_empty() {
            return Ok(());
        }
        let path = folder.join(format!("{name}.svg"));
        let height = HEAD + FOOT + ROW * u32::try_from(bars.len()).unwrap_or(1);
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let drawn = bar_chart(&area, title, unit, &bars);
        drawn.and_then(|()| area.present()).map_err(|error| io::Error::other(error.to_string()))?;
        drop(area);
        fs::write(path, text + "\n")?;
        written.push(name);
        Ok::<(), io::Error>(())
    };
    for (prefix, title) in [
        ("growth-connections-", "Own cost of a request, by connections"),
        ("growth-servers-", "Own cost of a connection, by servers"),
        ("growth-frontends-", "Own cost of a connection, by frontends"),
    ] {
        let bars = growing(&report["rows"], prefix);
        chart(prefix.trim_end_matches('-').to_owned(), title, "µs; less is better", bars)?;
    }
    let alone = |work: &String| work.starts_with("growth-") || work == "one";
    for work in works(&report["rows"]).into_iter().filter(|work| !alone(work)) {
        let title = title_of(&report["rows"], &work);
        let bars = bars(&report["rows"], &work, "ratio");
        // Without HAProxy there is no ratio.
        if bars.is_empty() {
            let bars = self::bars(&report["rows"], &work, "rate");
            chart(work, &title, "a second", bars)?;
        } else {
            chart(work, &title, "times HAProxy; more is better", bars)?;
        }
    }
    let throughputs = works(&report["rows"]).into_iter().filter(|work| !alone(work));
    let summary = throughputs.flat_map(|work| best_two(&report["rows"], &work)).collect();
    let title = "evenkeel and the fastest of all others";
    chart("summary".to_owned(), title, "times plain HAProxy; more is better", summary)?;
    for work in works(&report["latencies"]) {
        let title = title_of(&report["latencies"], &work);
        let bars = bars(&report["latencies"], &work, "p99");
        chart(format!("{work}-p99"), &title, "µs, p99; less is better", bars)?;
    }
    let title = "User memory of an idle session";
    let idle = report["idle"].as_array().into_iter().flatten();
    let idle = idle.filter_map(|row| bar(row, "session")).collect();
    chart("idle".to_owned(), title, "bytes; less is better", idle)?;
    Ok(written)
}

/// Names of the kinds of work, in order.
fn works(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().into_iter().flatten();
    let mut works: Vec<String> =
        rows.filter_map(|row| Some(row["work"].as_str()?.to_owned())).collect();
    works.dedup();
    works
}

fn title_of(rows: &Value, work: &str) -> String {
    let mut rows = rows.as_array().into_iter().flatten();
    let row = rows.find(|row| row["work"] == work);
    row.and_then(|row| row["title"].as_str()).unwrap_or(work).to_owned()
}

fn bars(rows: &Value, work: &str, figure: &str) -> Vec<Bar> {
    let rows = rows.as_array().into_iter().flatten().filter(|row| row["work"] == work);
    rows.filter_map(|row| bar(row, figure)).collect()
}

/// The ratio of evenkeel and of the fastest other balancer, if there is one.
fn best_two(rows: &Value, work: &str) -> Vec<Bar> {
    let own = Subject::Evenkeel.name();
    let (own, others): (Vec<Bar>, Vec<Bar>) =
        bars(rows, work, "ratio").into_iter().partition(|bar| bar.name == own);
    let others = others.into_iter().filter(|bar| Subject::is_peer(&bar.name));
    let best = others.max_by(|one, other| one.median.total_cmp(&other.median));
    let pair = own.into_iter().zip(best).flat_map(|(own, best)| [own, best]);
    pair.map(|bar| Bar { name: format!("{}, {work}", bar.name), ..bar }).collect()
}

/// The own cost of each subject for each number, subject by subject.
fn growing(rows: &Value, prefix: &str) -> Vec<Bar> {
    let rows = rows.as_array().into_iter().flatten();
    let mut bars: Vec<Bar> = rows
        .filter_map(|row| {
            let number = row["work"].as_str()?.strip_prefix(prefix)?;
            let bar = bar(row, "cost")?;
            Some(Bar { name: format!("{}, {number}", bar.name), ..bar })
        })
        .collect();
    bars.sort_by(|one, other| {
        let subject = |bar: &Bar| bar.name.split(',').next().map(str::to_owned);
        subject(one).cmp(&subject(other)) // stable: numbers stay in order
    });
    bars
}

fn bar(row: &Value, figure: &str) -> Option<Bar> {
    let spread = &row[figure];
    Some(Bar {
        name: row["subject"].as_str()?.to_owned(),
        median: spread["median"].as_f64()?,
        min: spread["min"].as_f64()?,
        max: spread["max"].as_f64()?,
    })
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn bar_chart<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    title: &str,
    unit: &str,
    bars: &[Bar],
) -> Drawn<'a> {
    let font = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(title.to_owned(), (12, 12), font(17)))?;
    area.draw(&Text::new(unit.to_owned(), (12, 36), font(13)))?;
    let top = bars.iter().fold(0.0_f64, |top, bar| top.max(bar.max)).max(f64::MIN_POSITIVE);
    #[expect(clippy::cast_possible_truncation, reason = "within the picture")]
    let at = |value: f64| LEFT + (value.max(0.0) / top * f64::from(RIGHT - LEFT)) as i32;
    let (head, row) = (HEAD.cast_signed(), ROW.cast_signed());
    let mut y = head;
    for bar in bars {
        let color = match bar.name.as_str() {
            name if name.starts_with(Subject::Evenkeel.name()) => OWN,
            name if name == Subject::Direct.name() => CONTROL,
            name if name == Subject::HaproxyNull.name() => CONTROL,
            _ => OTHERS,
        };
        area.draw(&Text::new(bar.name.clone(), (12, y + 5), font(14)))?;
        let corners = [(LEFT, y + 3), (at(bar.median).max(LEFT + 1), y + row - 5)];
        area.draw(&Rectangle::new(corners, color.filled()))?;
        // The spread: a line from the least to the most, with ends.
        let (min, max, middle) = (at(bar.min), at(bar.max), y + row / 2 - 1);
        let lines = [[(min, middle), (max, middle)], ends(min, middle), ends(max, middle)];
        for line in lines {
            area.draw(&PathElement::new(line.to_vec(), INK.stroke_width(2)))?;
        }
        area.draw(&Text::new(figure(bar.median), (max + 8, y + 5), font(14)))?;
        y += row;
    }
    let line = [(LEFT, head - 4), (LEFT, y + 2)];
    area.draw(&PathElement::new(line.to_vec(), INK.stroke_width(1)))?;
    let legend = "bars: median over rounds; lines: least and most";
    area.draw(&Text::new(legend, (LEFT, y + 8), font(12)))
}

const fn ends(x: i32, y: i32) -> [(i32, i32); 2] {
    [(x, y - 5), (x, y + 5)]
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_a_chart_for_each_kind_of_work() {
        let spread = |median: f64| {
            let (min, max) = (median * 0.9, median * 1.2);
            serde_json::json!({ "median": median, "min": min, "max": max })
        };
        let row = |work: &str, subject: &str, figure: &str| {
            serde_json::json!({
                "work": work, "title": "a & b", "subject": subject, figure: spread(1.5)
            })
        };
        let report = serde_json::json!({
            "rows": [row("bulk", "evenkeel", "ratio"), row("bulk", "nginx", "ratio")],
            "latencies": [row("mixed", "evenkeel", "p99")],
            "idle": [],
        });
        let folder = std::env::temp_dir().join(format!("bench-charts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("report.json");
        fs::write(&file, report.to_string()).unwrap();
        assert_eq!(draw(&file, &folder).unwrap(), ["bulk", "summary", "mixed-p99"]);
        let chart = fs::read_to_string(folder.join("bulk.svg")).unwrap();
        for part in ["a &amp; b", "evenkeel", "nginx", "1.50", "times HAProxy"] {
            assert!(chart.contains(part), "{part}: {chart}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
