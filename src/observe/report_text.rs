//! A report as text for a terminal: a summary, then aligned tables.

use std::fmt::Write;

use crate::observe::report::{BackendReport, EndpointReport, FrontendReport, Report, ServerReport};

/// Lines below a server with several addresses, which may have 1,024: as many as fit on a screen
/// with other servers.
const ENDPOINT_LINES_MAX: usize = 8;

impl Report {
    /// Running, draining or stopped, and whether a drain was announced.
    #[must_use]
    pub fn phase_text(&self) -> String {
        let soon = if self.draining_soon { " (draining soon)" } else { "" };
        format!("{}{soon}", self.phase)
    }

    /// Which workers are stuck; none: no worker is.
    #[must_use]
    pub fn stuck_text(&self) -> Option<String> {
        let stuck: Vec<String> = self.workers_stuck.iter().map(ToString::to_string).collect();
        let stuck = Some(stuck.join(", ")).filter(|stuck| !stuck.is_empty())?;
        Some(format!("stuck workers: {stuck} (their sessions make no progress; see the log)"))
    }

    /// For a terminal: a summary, then aligned tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "evenkeel {}, {}, up {}, table {}, reloads {} done {} failed\n\
             sessions {} of {} at most\n",
            self.version,
            self.phase_text(),
            span(self.uptime_seconds),
            self.table_version,
            self.reloads_done,
            self.reloads_failed,
            self.sessions_active,
            self.sessions_max,
        );
        if self.workers_paused > 0 {
            // Writing to a String cannot fail, here and below.
            _ = writeln!(
                out,
                "{} paused accepting: out of descriptors, or at sessions_max",
                if self.workers_paused == 1 {
                    "1 worker has".to_owned()
                } else {
                    format!("{} workers have", self.workers_paused)
                }
            );
        }
        if let Some(stuck) = self.stuck_text() {
            _ = writeln!(out, "{stuck}");
        }
        let head = ["FRONTEND", "BACKEND", "ADDRESS", "ACTIVE", "SESSIONS", "REFUSED", "IN", "OUT"];
        let rows = self.frontends.iter().map(FrontendReport::row).collect();
        table(&mut out, &head, rows);
        let head = ["BACKEND", "BALANCE", "SERVERS UP", "QUEUE", "QUEUE MAX"];
        let rows = self.backends.iter().map(BackendReport::row).collect();
        table(&mut out, &head, rows);
        let head = [
            "SERVER",
            "ADDRESS",
            "STATE",
            "FOR",
            "WEIGHT",
            "ACTIVE",
            "MAX",
            "SESSIONS",
            "CONNECT",
            "FAILED",
            "IN",
            "OUT",
            "LAST PROBE",
        ];
        let rows = self.servers.iter().flat_map(ServerReport::rows).collect();
        table(&mut out, &head, rows);
        out
    }
}

impl FrontendReport {
    /// How many connections were refused, with the reasons.
    #[must_use]
    pub fn refused_text(&self) -> String {
        let reasons = self.refused_by_reason.iter();
        let reasons: Vec<String> =
            reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
        match &*reasons {
            [] => self.refused.to_string(),
            _ => format!("{} ({})", self.refused, reasons.join(", ")),
        }
    }

    fn row(&self) -> [String; 8] {
        [
            plain(&self.name),
            plain(&self.backend),
            self.addresses.join(" "),
            self.sessions_active.to_string(),
            self.sessions.to_string(),
            self.refused_text(),
            size(self.bytes_in),
            size(self.bytes_out),
        ]
    }
}

impl BackendReport {
    /// How many servers are up, and whether these are the backup servers.
    #[must_use]
    pub fn servers_text(&self) -> String {
        let backups = if self.backups_in_use { ", backups in use" } else { "" };
        format!("{} of {}{backups}", self.servers_up, self.servers)
    }

    fn row(&self) -> [String; 5] {
        [
            plain(&self.name),
            self.balance.clone(),
            self.servers_text(),
            self.queue_sessions.to_string(),
            self.queue_max.to_string(),
        ]
    }
}

impl ServerReport {
    /// Its limit of sessions.
    #[must_use]
    pub fn max_text(&self) -> String {
        self.sessions_max.map_or_else(|| "-".to_owned(), |max| max.to_string())
    }

    /// Its address as written, with the addresses of a host name.
    #[must_use]
    pub fn place(&self) -> String {
        match &*self.endpoints {
            [] => format!("{} (no address)", self.written),
            [only] if only.address == self.written => only.address.clone(),
            [only] => format!("{} ({})", self.written, only.address),
            several => {
                let up = several.iter().filter(|endpoint| endpoint.up).count();
                format!("{} ({up} of {} addresses up)", self.written, several.len())
            }
        }
    }

    /// Its last probe, with the duration.
    #[must_use]
    pub fn last_probe_text(&self) -> String {
        probe_text(&self.last_probe, self.last_probe_ms)
    }

    /// The mean time of a connect within the last minute.
    #[must_use]
    pub fn connect_mean_text(&self) -> String {
        self.connect_mean_ms.map_or_else(|| "-".to_owned(), milliseconds)
    }

    /// Its row, and below it those of its addresses, if there are several: those that are down
    /// first.
    fn rows(&self) -> Vec<[String; 13]> {
        let mut rows = vec![self.row()];
        if self.endpoints.len() > 1 {
            let mut endpoints: Vec<&EndpointReport> = self.endpoints.iter().collect();
            endpoints.sort_by_key(|endpoint| endpoint.up);
            let rest = endpoints.split_off(endpoints.len().min(ENDPOINT_LINES_MAX));
            rows.extend(endpoints.into_iter().map(EndpointReport::row));
            if !rest.is_empty() {
                let down = rest.iter().filter(|endpoint| !endpoint.up).count();
                let mut row: [String; 13] = Default::default();
                row[1] = format!("  {} more ({down} down)", rest.len());
                rows.push(row);
            }
        }
        rows
    }

    fn row(&self) -> [String; 13] {
        let backup = if self.backup { " (backup)" } else { "" };
        [
            format!("{}/{}{backup}", plain(&self.backend), plain(&self.name)),
            plain(&self.place()),
            // With the health, for an operator who waits to set it ready again.
            match self.state.as_str() {
                state @ ("up" | "down") => state.to_owned(),
                state => format!("{state} ({})", if self.up { "up" } else { "down" }),
            },
            span(self.state_since_seconds),
            self.weight.to_string(),
            self.sessions_active.to_string(),
            self.max_text(),
            self.sessions.to_string(),
            self.connect_mean_text(),
            self.connect_failures.to_string(),
            size(self.bytes_in),
            size(self.bytes_out),
            plain(&self.last_probe_text()),
        ]
    }
}

impl EndpointReport {
    /// Its row below that of its server, in the same columns.
    fn row(&self) -> [String; 13] {
        let empty = String::new;
        [
            empty(),
            format!("  {}", plain(&self.address)),
            if self.up { "up" } else { "down" }.to_owned(),
            empty(),
            empty(),
            self.sessions_active.to_string(),
            empty(),
            empty(),
            empty(),
            empty(),
            empty(),
            empty(),
            plain(&probe_text(&self.last_probe, self.last_probe_ms)),
        ]
    }
}

/// The result of a probe, with its duration.
fn probe_text(result: &str, ms: Option<f64>) -> String {
    match ms {
        Some(ms) => format!("{result} ({})", milliseconds(ms)),
        None => result.to_owned(),
    }
}

/// A duration in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0..60 => format!("{rest}s"),
        60..3600 => format!("{minutes}m{rest:02}s"),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Milliseconds, with more decimals if they are few: a connect in a local network takes less than
/// one.
fn milliseconds(ms: f64) -> String {
    let decimals = match ms {
        ..1.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{ms:.decimals$} ms")
}

/// A number of bytes, with a unit.
pub(super) fn size(bytes: u64) -> String {
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    while tenths >= 10_240 && unit < UNITS.len() - 1 {
        tenths /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Control characters, which a terminal would interpret, are escaped.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.into() };
    text.chars().map(shown).collect()
}

/// Columns as wide as their widest cell; the last one is not padded.
pub(super) fn table<const N: usize>(out: &mut String, head: &[&str; N], rows: Vec<[String; N]>) {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    out.push('\n');
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;
    use crate::shared::snapshot::EndpointStatus;

    #[test]
    fn the_text_is_a_summary_and_three_aligned_tables() {
        let report = Report::new(&sample::snapshot(), &sample::shared());
        let expected = "\
evenkeel VERSION, running, up 1h02m, table 7, reloads 2 done 1 failed
sessions 0 of 1000 at most

FRONTEND  BACKEND  ADDRESS       ACTIVE  SESSIONS  REFUSED       IN   OUT
http      web      127.0.0.1:80  2       7         2 (denied 2)  0 B  4.0 KiB

BACKEND  BALANCE    SERVERS UP  QUEUE  QUEUE MAX
web      leastconn  1 of 2      1      1024

SERVER    ADDRESS                  STATE  FOR    WEIGHT  ACTIVE  MAX  SESSIONS  CONNECT  FAILED  \
         IN   OUT  LAST PROBE
web/web1  rpi-b:80 (192.0.2.1:80)  up     1m05s  100     1       -    5         0.20 ms  0       \
         0 B  0 B  status 200 (1.2 ms)
web/web2  rpi-b:80 (192.0.2.1:80)  down   1m05s  100     1       9    5         -        0       \
         0 B  0 B  status 200 (1.2 ms)
";
        assert_eq!(report.text(), expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn stuck_workers_are_named() {
        let mut report = Report::new(&sample::snapshot(), &sample::shared());
        assert!(report.stuck_text().is_none() && !report.text().contains("stuck"));
        report.workers_stuck = vec![0, 3];
        assert!(report.text().contains("\nstuck workers: 0, 3 ("), "{}", report.text());
    }

    #[test]
    fn a_server_with_several_addresses_is_a_row_and_one_for_each_address_up_to_a_limit() {
        let mut snapshot = sample::snapshot();
        let first = snapshot.servers[0].endpoints[0].clone();
        let down = || EndpointStatus { up: false, ..first.clone() };
        snapshot.servers[0].endpoints.push(down());
        let report = Report::new(&snapshot, &sample::shared());
        assert_eq!(report.servers[0].place(), "rpi-b:80 (1 of 2 addresses up)");
        let cells =
            |row: [String; 13]| row.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        let below = |report: &Report| {
            report.servers[0].rows().into_iter().skip(1).map(cells).collect::<Vec<_>>()
        };
        let lines =
            ["down", "up"].map(|state| format!("192.0.2.1:80 {state} 1 status 200 (1.2 ms)"));
        assert_eq!(below(&report), lines);
        snapshot.servers[0].endpoints.extend((2..1024).map(|_| down()));
        let lines = below(&Report::new(&snapshot, &sample::shared()));
        assert_eq!((lines.len(), lines[8].as_str()), (9, "1016 more (1015 down)"));
        assert!(lines[..8].iter().all(|line| line.contains(" down ")), "{lines:?}");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(
            [0, 1023, 1024, 1536, 10 << 30].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 GiB"]
        );
        assert_eq!(size(u64::MAX), "16383.9 PiB");
        assert_eq!(
            [0.042, 0.994, 1.0, 99.94, 1003.2].map(milliseconds),
            ["0.04 ms", "0.99 ms", "1.0 ms", "99.9 ms", "1003 ms"]
        );
        assert_eq!([59, 60, 3600, 90_000].map(span), ["59s", "1m00s", "1h00m", "1d01h"]);
    }
}
