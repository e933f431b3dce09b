//! The status page: one HTML document that loads nothing else.

use std::fmt::{self, Display, Write};

use crate::observe::report::{BackendReport, FrontendReport, Report, ServerReport};
use crate::observe::report_text::{size, span};
use crate::terms::counted;

/// Renders `report`.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::with_capacity(4096 + 512 * report.servers.len());
    let outcome = page(report, &mut out);
    debug_assert!(outcome.is_ok(), "writing to a String cannot fail");
    out
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>evenkeel</title>
<style>
:root { color-scheme: light dark; --line: #8886; --up: #1a7f37; --down: #cf222e; --other: #9a6700 }
@media (prefers-color-scheme: dark) { :root { --up: #4ac26b; --down: #ff7b72; --other: #e3b341 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; max-width: 80rem }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 1.5rem 0 .3rem }
div { overflow-x: auto }
table { border-collapse: collapse; min-width: 100% }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; white-space: nowrap }
th, td { border-bottom: 1px solid var(--line) }
.n { text-align: right; font-variant-numeric: tabular-nums }
.up { color: var(--up) } .other { color: var(--other) }
.down { color: var(--down); font-weight: 600 }
</style>
</head>
<body>
<h1>evenkeel</h1>
"#;

const FOOT: &str = "</table></div>\n<p><a href=\"status.json\">status.json</a> · \
                    <a href=\"metrics\">metrics</a></p>\n</body>\n</html>\n";

fn page(report: &Report, out: &mut String) -> fmt::Result {
    out.push_str(HEAD);
    write!(out, "<p>version {}, {}", Text(&report.version), Text(&report.phase_text()))?;
    write!(out, ", up {}", span(report.uptime_seconds))?;
    write!(out, " · table {}", report.table_version)?;
    write!(out, ", reloads {} done, {} failed", report.reloads_done, report.reloads_failed)?;
    write!(out, " · sessions {} of {}", report.sessions_active, report.sessions_max)?;
    if report.workers_paused > 0 {
        let paused =
            counted(usize::try_from(report.workers_paused).unwrap_or(usize::MAX), "worker");
        write!(out, " · <span class=\"down\">{paused} paused</span>")?;
    }
    if let Some(stuck) = report.stuck_text() {
        write!(out, " · <span class=\"down\">{stuck}</span>")?;
    }
    out.push_str("</p>\n<h2>Frontends</h2>\n<div><table>\n");
    heads(
        out,
        &["frontend", "backend", "addresses"],
        &["active", "sessions", "refused", "in", "out"],
    );
    for frontend in &report.frontends {
        frontend_row(frontend, out)?;
    }
    out.push_str("</table></div>\n<h2>Backends</h2>\n<div><table>\n");
    heads(out, &["backend", "balance", "servers up"], &["queue", "queue max"]);
    for backend in &report.backends {
        backend_row(backend, out)?;
    }
    out.push_str("</table></div>\n<h2>Servers</h2>\n<div><table>\n");
    let words = ["server", "address", "state", "last probe"];
    let numbers = [
        "weight",
        "active",
        "max",
        "sessions",
        "connect (1 min mean)",
        "failed connects",
        "in",
        "out",
    ];
    heads(out, &words, &numbers);
    for server in &report.servers {
        server_row(server, out)?;
    }
    out.push_str(FOOT);
    Ok(())
}

fn heads(out: &mut String, words: &[&str], numbers: &[&str]) {
    out.push_str("<tr>");
    for word in words {
        out.extend(["<th>", word, "</th>"]);
    }
    for number in numbers {
        out.extend(["<th class=\"n\">", number, "</th>"]);
    }
    out.push_str("</tr>\n");
}

fn frontend_row(frontend: &FrontendReport, out: &mut String) -> fmt::Result {
    let addresses = frontend.addresses.join(" ");
    write!(out, "<tr><td>{}</td>", Text(&frontend.name))?;
    write!(out, "<td>{}</td><td>{}</td>", Text(&frontend.backend), Text(&addresses))?;
    number(out, frontend.sessions_active)?;
    number(out, frontend.sessions)?;
    number(out, frontend.refused_text())?;
    number(out, size(frontend.bytes_in))?;
    number(out, size(frontend.bytes_out))?;
    out.push_str("</tr>\n");
    Ok(())
}

fn backend_row(backend: &BackendReport, out: &mut String) -> fmt::Result {
    write!(out, "<tr><td>{}</td><td>{}</td>", Text(&backend.name), Text(&backend.balance))?;
    write!(out, "<td>{}</td>", Text(&backend.servers_text()))?;
    number(out, backend.queue_sessions)?;
    number(out, backend.queue_max)?;
    out.push_str("</tr>\n");
    Ok(())
}

fn server_row(server: &ServerReport, out: &mut String) -> fmt::Result {
    let class = match server.state.as_str() {
        "up" => "up",
        "down" => "down",
        _ => "other",
    };
    let backup = if server.backup { " (backup)" } else { "" };
    write!(out, "<tr><td>{}/{}{backup}</td>", Text(&server.backend), Text(&server.name))?;
    write!(out, "<td>{}</td>", Text(&server.place()))?;
    write!(out, "<td><span class=\"{class}\">{}</span>", Text(&server.state))?;
    if class == "other" {
        write!(out, " ({})", if server.up { "up" } else { "down" })?;
    }
    write!(out, " for {}</td>", span(server.state_since_seconds))?;
    write!(out, "<td>{}</td>", Text(&server.last_probe_text()))?;
    number(out, server.weight)?;
    number(out, server.sessions_active)?;
    number(out, server.max_text())?;
    number(out, server.sessions)?;
    number(out, server.connect_mean_text())?;
    number(out, server.connect_failures)?;
    number(out, size(server.bytes_in))?;
    number(out, size(server.bytes_out))?;
    out.push_str("</tr>\n");
    Ok(())
}

fn number(out: &mut String, value: impl Display) -> fmt::Result {
    write!(out, "<td class=\"n\">{value}</td>")
}

/// Text, escaped for HTML.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                c if c.is_control() => write!(out, "{}", c.escape_unicode())?,
                c => out.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sample;

    #[test]
    fn a_name_is_escaped() {
        let mut snapshot = sample::snapshot();
        snapshot.servers[0].last_probe.detail = "<script>alert('1')</script> & \u{7}".into();
        snapshot.frontends[0].name = "\"><b>".into();
        let page = render(&Report::new(&snapshot, &sample::shared()));
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        let escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; \\u{7}";
        assert!(page.contains(escaped), "{page}");
    }

    #[test]
    fn the_state_set_by_the_operator_is_shown_with_the_health() {
        let mut snapshot = sample::snapshot();
        snapshot.servers[0].admin = crate::config::AdminState::Drain;
        let page = render(&Report::new(&snapshot, &sample::shared()));
        assert!(page.contains("<span class=\"other\">drain</span> (up) for 5s"), "{page}");
        assert!(page.contains("<span class=\"down\">down</span> for 1m05s"), "{page}");
    }
}
