//! The session log (stdout): one record for each session, written by a thread of its own.
//!
//! A worker hands its record to a bounded channel and goes on. If the writer cannot keep up (a full
//! disk, a pipe that nobody reads), records are dropped and counted.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, TryRecvError};
use serde::Serialize;

use crate::config::{Log, LogFormat};
use crate::observe::application_log::write_all;
use crate::shared::counters::Count;
use crate::shared::records::{self, Records, SessionRecord};
use crate::sys::address::ClientAddress;

/// Starts the thread that writes each record to stdout as one line. It ends when the [`Records`]
/// are dropped and everything is written. If nobody reads stdout, it blocks: join it with a time
/// limit.
///
/// # Errors
/// No thread can be started, or no descriptor is left.
pub fn start_writer(settings: &Log) -> io::Result<(Records, JoinHandle<()>)> {
    let (records, waiting, unwritten) = records::channel(settings.empty);
    // Its own descriptor: std's stdout would flush at each line, and lock.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let writer = Writer::new(settings.format, stdout, unwritten);
    let run = move || writer.run(&waiting);
    let thread = std::thread::Builder::new().name("session-log".to_owned()).spawn(run)?;
    Ok((records, thread))
}

/// Collects lines, and writes them when the channel is empty or the batch is full.
struct Writer<W> {
    format: LogFormat,
    sink: W,
    batch: String,
    /// Lines in `batch`.
    lines: u64,
    /// A write ended within a line; the next one begins with a line break.
    partial: bool,
    /// Lines that could not be written, and were not yet reported.
    lost: u64,
    /// Lines that could not be written, in all.
    unwritten: Arc<Count>,
    /// When losses were last logged.
    last_logged: Option<Instant>,
}

/// A few hundred lines, so that a system call costs little for each.
const BATCH_BYTES: usize = 64 * 1024;

/// Between two warnings about a session log that cannot be written.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl<W: Write> Writer<W> {
    fn new(format: LogFormat, sink: W, unwritten: Arc<Count>) -> Self {
        let batch = String::with_capacity(BATCH_BYTES + 1024);
        Self {
            format,
            sink,
            batch,
            lines: 0,
            partial: false,
            lost: 0,
            unwritten,
            last_logged: None,
        }
    }

    fn run(mut self, records: &Receiver<SessionRecord>) {
        loop {
            let record = match records.try_recv() {
                Ok(record) => record,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.flush(Instant::now());
                    let Ok(record) = records.recv() else { break };
                    record
                }
            };
            record.line(self.format, &mut self.batch);
            self.lines += 1;
            if self.batch.len() >= BATCH_BYTES {
                self.flush(Instant::now());
            }
        }
        self.flush(Instant::now());
    }

    /// Writes the batch. What cannot be written is lost: it is not kept in memory.
    fn flush(&mut self, now: Instant) {
        if self.batch.is_empty() {
            return;
        }
        if self.partial {
            self.batch.insert(0, '\n');
        }
        let (written, outcome) = write_all(&mut self.sink, self.batch.as_bytes());
        let due = self.last_logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if written > 0 {
            self.partial = self.batch.as_bytes()[written - 1] != b'\n';
        }
        if let Err(error) = outcome {
            let rest = &self.batch.as_bytes()[written..];
            let left = rest.iter().filter(|byte| **byte == b'\n').count();
            let left = self.lines.min(u64::try_from(left).unwrap_or(u64::MAX));
            self.unwritten.add(left);
            self.lost += left;
            if due {
                self.log_losses(&error.to_string(), now);
            }
        } else if due && self.lost > 0 {
            self.log_losses("it can be written again", now);
        }
        self.batch.clear();
        self.lines = 0;
    }

    fn log_losses(&mut self, how: &str, now: Instant) {
        tracing::warn!("session log: {} records lost: stdout: {how}", self.lost);
        self.last_logged = Some(now);
        self.lost = 0;
    }
}

impl SessionRecord {
    /// Appends the record to `out` as one line, with its line break.
    pub fn line(&self, format: LogFormat, out: &mut String) {
        let outcome = match format {
            LogFormat::Text => self.text(out),
            LogFormat::Json => self.json(out),
        };
        debug_assert!(outcome.is_ok(), "writing to a String cannot fail");
        out.push('\n');
    }

    /// In the order of HAProxy's tcplog: time, client, frontend, server, durations in milliseconds
    /// (connect/whole; -1: never connected), bytes (in/out), how it ended.
    fn text(&self, out: &mut String) -> fmt::Result {
        write!(out, "{} ", self.time())?;
        match self.client() {
            Some(client) => write!(out, "{client} ")?,
            None => out.push_str("- "),
        }
        write!(out, "{} {}/", Word(&self.frontend), Word(self.backend().unwrap_or("-")))?;
        match &self.server {
            Some(server) => write!(out, "{}", Word(server))?,
            None => out.push_str("<NOSRV>"),
        }
        match self.connect {
            Some(connect) => write!(out, " {}/", Millis(connect))?,
            None => out.push_str(" -1/"),
        }
        let [bytes_in, bytes_out] = self.bytes;
        let (letters, reason) = (self.end.letters, self.end.reason.name());
        write!(out, "{} {bytes_in}/{bytes_out} ", Millis(self.duration))?;
        write!(out, "{letters} {reason} {}", self.retries)
    }

    fn json(&self, out: &mut String) -> fmt::Result {
        let record = JsonRecord {
            timestamp: self.time().to_string(),
            client: self.client().map(|client| client.to_string()),
            frontend: &self.frontend,
            backend: self.backend(),
            server: self.server.as_deref(),
            connect_ms: self.connect.map(millis),
            duration_ms: millis(self.duration),
            bytes_in: self.bytes[0],
            bytes_out: self.bytes[1],
            letters: self.end.letters.to_string(),
            reason: self.end.reason.name(),
            retries: self.retries,
        };
        out.push_str(&serde_json::to_string(&record).map_err(|_| fmt::Error)?);
        Ok(())
    }

    /// The backend; none if the session ended before it was known.
    fn backend(&self) -> Option<&str> {
        Some(&*self.backend).filter(|name| !name.is_empty())
    }

    fn time(&self) -> humantime::Rfc3339Timestamp {
        // humantime panics for times before 1970.
        humantime::format_rfc3339_millis(self.ended.max(SystemTime::UNIX_EPOCH))
    }

    /// The client's address, as IPv4 if it is an IPv4-mapped one.
    fn client(&self) -> Option<ClientAddress> {
        self.client.map(ClientAddress::canonical)
    }
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    /// As in the operator's records, so that one query finds both.
    timestamp: String,
    client: Option<String>,
    frontend: &'a str,
    backend: Option<&'a str>,
    server: Option<&'a str>,
    connect_ms: Option<f64>,
    duration_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    letters: String,
    reason: &'static str,
    retries: u32,
}

/// In milliseconds, with microseconds as the fraction.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Milliseconds with three decimals: a connect in a local network takes less than one.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:03}", self.0.as_millis(), self.0.subsec_micros() % 1000)
    }
}

/// A name as one word of a line: white space and control characters are escaped.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || c.is_whitespace() || c == '\\' {
                write!(out, "{}", c.escape_unicode())?;
            } else {
                out.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel;

    use super::*;
    use crate::terms::{End, Reason};

    fn line(record: &SessionRecord, format: LogFormat) -> String {
        let mut out = String::new();
        record.line(format, &mut out);
        out
    }

    #[test]
    fn a_text_line_is_like_tcplog_of_haproxy() {
        assert_eq!(
            line(&SessionRecord::sample(), LogFormat::Text),
            "2023-11-14T22:13:20.123Z 192.0.2.7:50123 http web/web1 0.214/234.567 512/10240 \
             -- done 1\n"
        );
    }

    #[test]
    fn a_session_without_a_server_has_no_server_name() {
        let end = End::new(Reason::NoServer, b"SC");
        let record = SessionRecord { server: None, connect: None, end, ..SessionRecord::sample() };
        let text = line(&record, LogFormat::Text);
        assert!(text.contains(" web/<NOSRV> -1/234.567 "), "{text}");
        assert!(text.ends_with(" SC no_server 1\n"), "{text}");
        let json = line(&record, LogFormat::Json);
        assert!(json.contains(r#""server":null,"connect_ms":null,"#), "{json}");
    }

    #[test]
    fn a_session_without_a_backend_has_no_backend_name() {
        let end = End::new(Reason::Refused, b"PR");
        let backend = Arc::from("");
        let record = SessionRecord { backend, server: None, end, ..SessionRecord::sample() };
        let text = line(&record, LogFormat::Text);
        assert!(text.contains(" http -/<NOSRV> "), "{text}");
        let json = line(&record, LogFormat::Json);
        assert!(json.contains(r#""backend":null,"server":null,"#), "{json}");
    }

    #[test]
    fn a_json_line_is_one_object_with_the_same_fields() {
        assert_eq!(
            line(&SessionRecord::sample(), LogFormat::Json),
            concat!(
                r#"{"timestamp":"2023-11-14T22:13:20.123Z","client":"192.0.2.7:50123","#,
                r#""frontend":"http","backend":"web","server":"web1","connect_ms":0.214,"#,
                r#""duration_ms":234.567,"bytes_in":512,"bytes_out":10240,"letters":"--","#,
                r#""reason":"done","retries":1}"#,
                "\n"
            )
        );
    }

    #[test]
    fn text_and_json_have_the_same_milliseconds() {
        let record =
            SessionRecord { duration: Duration::from_micros(1_005_000), ..SessionRecord::sample() };
        assert!(line(&record, LogFormat::Text).contains("/1005.000 "));
        assert!(line(&record, LogFormat::Json).contains(r#""duration_ms":1005.0,"#));
    }

    #[test]
    fn a_name_cannot_add_a_line() {
        let record =
            SessionRecord { server: Some("a\n2023 x\u{1b}[2J".into()), ..SessionRecord::sample() };
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = line(&record, format);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
        let text = line(&record, LogFormat::Text);
        assert!(text.contains(r" web/a\u{a}2023\u{20}x\u{1b}[2J "), "{text}");
    }

    #[test]
    fn a_client_that_left_at_once_has_no_address() {
        let record = SessionRecord { client: None, ..SessionRecord::sample() };
        let text = line(&record, LogFormat::Text);
        assert!(text.starts_with("2023-11-14T22:13:20.123Z - http "), "{text}");
        assert!(line(&record, LogFormat::Json).contains(r#""client":null,"#));
    }

    #[test]
    fn a_client_of_a_unix_socket_is_named_as_one() {
        let client = Some(ClientAddress::Unix);
        let record = SessionRecord { client, ..SessionRecord::sample() };
        assert!(line(&record, LogFormat::Text).contains(" unix: http "));
        assert!(line(&record, LogFormat::Json).contains(r#""client":"unix:","#));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_shown_as_ipv4() {
        let client = "[::ffff:192.0.2.7]:1".parse().ok().map(ClientAddress::Ip);
        let text = line(&SessionRecord { client, ..SessionRecord::sample() }, LogFormat::Text);
        assert!(text.contains(" 192.0.2.7:1 "), "{text}");
    }

    /// Takes so many bytes, then fails until there is room again.
    #[derive(Default)]
    struct Disk {
        room: usize,
        content: Vec<u8>,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_from_before_the_channel_closed_are_written() {
        let (sender, receiver) = channel::unbounded();
        for _ in 0..1000 {
            sender.send(SessionRecord::sample()).unwrap();
        }
        drop(sender);
        let mut disk = Disk { room: usize::MAX, ..Disk::default() };
        Writer::new(LogFormat::Text, &mut disk, Arc::default()).run(&receiver);
        let content = String::from_utf8(disk.content).unwrap();
        assert_eq!(content.lines().count(), 1000);
        assert!(content.lines().all(|text| text.ends_with("done 1")));
    }

    #[test]
    fn a_full_disk_loses_lines_and_writes_at_most_one_in_part() {
        let whole = line(&SessionRecord::sample(), LogFormat::Text);
        let mut disk = Disk { room: whole.len() + 10, ..Disk::default() };
        let mut writer = Writer::new(LogFormat::Text, &mut disk, Arc::default());
        let start = Instant::now();
        for _ in 0..3 {
            SessionRecord::sample().line(LogFormat::Text, &mut writer.batch);
            writer.lines += 1;
        }
        writer.flush(start);
        assert!(writer.partial && writer.lost == 0 && writer.last_logged == Some(start));
        SessionRecord::sample().line(LogFormat::Text, &mut writer.batch);
        writer.lines += 1;
        writer.flush(start + Duration::from_secs(1));
        assert_eq!(
            (writer.lost, writer.last_logged),
            (1, Some(start)),
            "logged once a minute at most"
        );
        assert_eq!(writer.unwritten.read(), 3, "two of the first batch, and the one after it");
        writer.sink.room = usize::MAX;
        SessionRecord::sample().line(LogFormat::Text, &mut writer.batch);
        writer.lines += 1;
        writer.flush(start + Duration::from_secs(2));
        assert_eq!(writer.lost, 1, "it is told as soon as that is due");
        SessionRecord::sample().line(LogFormat::Text, &mut writer.batch);
        writer.lines += 1;
        writer.flush(start + LOG_INTERVAL);
        assert_eq!((writer.lost, writer.last_logged), (0, Some(start + LOG_INTERVAL)));
        let content = String::from_utf8(disk.content).unwrap();
        let lines: Vec<&str> = content.lines().collect();
        let whole_line = whole.trim_end();
        assert_eq!(lines, [whole_line, &whole[..10], whole_line, whole_line]);
    }
}
