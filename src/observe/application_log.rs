//! The application log: lines on stderr, written by a thread of its own.
//!
//! A thread that logs hands the line to a bounded channel and goes on. If stderr is full, closed or
//! not read, lines are lost; they are counted, and the count is logged when stderr works again.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use tracing::Dispatch;
use tracing::dispatcher::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Lines in the channel: ten thousand servers may go down at once. A line has some hundred bytes.
const LINES_WAITING: usize = 16_384;

/// Of libraries, errors alone: that for DNS warns of each packet that is not an answer, and anybody
/// can send them.
const DEFAULT: &str = "error,evenkeel=info";

/// For the last lines to be written at the end, if stderr is read.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The application log; dropped, it waits until every line is written, but not longer than 2 s.
#[derive(Debug)]
pub struct ApplicationLog {
    lines: Lines,
    /// Until the thread is started.
    waiting: Option<Receiver<Entry>>,
}

/// The sending end of the log.
#[derive(Debug, Clone)]
struct Lines {
    sender: Sender<Entry>,
    /// Lines that were not written, and not yet reported.
    lost: Arc<AtomicU64>,
    /// Lines have colours.
    colour: bool,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// The sender is dropped when all lines before it are written.
    End(#[expect(dead_code, reason = "dropping it is the signal")] Sender<()>),
}

/// Collects the log of this process from now on, "info" and above unless `RUST_LOG` is set; it is
/// written once [`ApplicationLog::start`] is called. A second call collects nothing.
#[must_use]
pub fn init(format: LogFormat) -> ApplicationLog {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let (sender, waiting) = channel::bounded(LINES_WAITING);
    let is_wanted = || io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let colour = format == LogFormat::Text && is_wanted();
    let lines = Lines { sender, lost: Arc::default(), colour };
    // It fails only if a log is installed already.
    set_global_default(subscriber(lines.clone(), format, filter)).ok();
    ApplicationLog { lines, waiting: Some(waiting) }
}

fn subscriber(lines: Lines, format: LogFormat, filter: EnvFilter) -> Dispatch {
    let colour = lines.colour;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    // An error of stderr that was written to stderr would end the process.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.with_target(false).with_ansi(colour).finish().into(),
        LogFormat::Json => log.json().flatten_event(true).finish().into(),
    }
}

/// A message as it is written to stderr.
#[cfg(any(test, fuzzing))]
pub(super) fn line(format: LogFormat, message: &str) -> String {
    type Log = (Dispatch, Receiver<Entry>);
    // The start of a subscriber would take most of the time of an input.
    let log = |format| -> Log {
        let (sender, waiting) = channel::bounded(LINES_WAITING);
        let lines = Lines { sender, lost: Arc::default(), colour: false };
        (subscriber(lines, format, EnvFilter::new("info")), waiting)
    };
    thread_local! {
        static LOGS: std::cell::OnceCell<[Log; 2]> = const { std::cell::OnceCell::new() };
    }
    LOGS.with(|logs| {
        let logs = logs.get_or_init(|| [LogFormat::Text, LogFormat::Json].map(log));
        let (log, waiting) = &logs[usize::from(format == LogFormat::Json)];
        tracing::dispatcher::with_default(log, || tracing::warn!("{message}"));
        let lines = waiting.try_iter().filter_map(|entry| match entry {
            Entry::Line(line) => Some(String::from_utf8_lossy(&line).into_owned()),
            Entry::End(_) => None,
        });
        lines.collect()
    })
}

impl ApplicationLog {
    /// Starts the thread that writes. A second call changes nothing.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(&mut self) -> io::Result<()> {
        let Some(waiting) = self.waiting.clone() else { return Ok(()) };
        let writer = self.writer();
        let run = move || writer.run(&waiting);
        Builder::new().name("application-log".to_owned()).spawn(run)?;
        self.waiting = None;
        Ok(())
    }

    fn writer(&self) -> Writer<Stderr> {
        Writer { sink: Stderr, lost: Arc::clone(&self.lines.lost), partial: false }
    }
}

impl Drop for ApplicationLog {
    fn drop(&mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        let (written, is_written) = channel::bounded(0);
        if self.start().is_err() {
            // Without a thread, waiting is better than losing the reason.
            let mut writer = self.writer();
            for entry in self.waiting.iter().flat_map(Receiver::try_iter) {
                writer.take(entry);
            }
        } else if self.lines.sender.send_deadline(Entry::End(written), deadline).is_ok() {
            // It is written, or the time is over.
            is_written.recv_deadline(deadline).ok();
        }
    }
}

/// Writes one text to stderr before the process exits, and waits at most 2 s for it if a thread can
/// be started.
pub fn write_final(text: &str) {
    let (written, is_written) = channel::bounded::<()>(0);
    let owned = text.to_owned();
    let write = move || {
        drop(write_all(&mut Stderr, owned.as_bytes()));
        drop(written);
    };
    if Builder::new().name("final-write".to_owned()).spawn(write).is_ok() {
        is_written.recv_timeout(END_TIMEOUT).ok();
    } else {
        drop(write_all(&mut Stderr, text.as_bytes()));
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Lines {
    /// Takes a whole line, always.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Entry::Line(one_line(line, self.colour))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line whose control characters are escaped, but those of colours and the line break at its end:
/// what a message repeats of a peer adds no line, and does nothing to a terminal. (The formatter
/// does this for ESC and the like, not for line breaks.)
fn one_line(line: &[u8], colour: bool) -> Vec<u8> {
    let inside = line.strip_suffix(b"\n").unwrap_or(line);
    // 0xc2 begins the characters 0x80 to 0xbf.
    let is_plain = |byte: &u8| !(byte.is_ascii_control() || *byte == 0xc2);
    if inside.iter().all(is_plain) {
        return line.to_owned();
    }
    let mut escaped = String::new();
    for c in String::from_utf8_lossy(inside).chars() {
        match c {
            '\u{1b}' if colour => escaped.push(c),
            // As JSON escapes it, so that it can be in a string there.
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped.push('\n');
    escaped.into_bytes()
}

/// Descriptor 2 without the lock of std, which a write that blocks would hold.
#[derive(Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W> {
    sink: W,
    lost: Arc<AtomicU64>,
    /// A write ended within a line; the next one begins with a line break.
    partial: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self, waiting: &Receiver<Entry>) {
        while let Ok(entry) = waiting.recv() {
            // Only with room in the channel, or this line would be lost too.
            if self.take(entry) && waiting.len() < LINES_WAITING / 2 {
                self.log_losses();
            }
        }
    }

    /// Whether something was written.
    fn take(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Line(line) => self.write(line),
            Entry::End(_) => false,
        }
    }

    /// Whether the line is written.
    fn write(&mut self, mut line: Vec<u8>) -> bool {
        if self.partial {
            line.insert(0, b'\n');
        }
        let (written, outcome) = write_all(&mut self.sink, &line);
        if written > 0 {
            self.partial = line[written - 1] != b'\n';
        }
        if outcome.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        outcome.is_ok()
    }

    fn log_losses(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} lines of this log were lost: stderr was full or not read");
        }
    }
}

/// As [`Write::write_all`], and returns how many bytes were written.
pub(super) fn write_all(sink: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    #[derive(Debug)]
    struct Disk {
        room: usize,
        held: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.held.extend_from_slice(&bytes[..count]);
            if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_partial_line_is_lost_and_the_next_one_starts_on_a_new_line() {
        let disk = Disk { room: 6, held: Vec::new() };
        let mut writer = Writer { sink: disk, lost: Arc::default(), partial: false };
        assert!(writer.write(b"one\n".to_vec()));
        assert!(!writer.write(b"two\n".to_vec()));
        assert!(!writer.write(b"three\n".to_vec()));
        assert_eq!(writer.lost.load(Ordering::Relaxed), 2);
        writer.sink.room = 100;
        assert!(writer.write(b"four\n".to_vec()));
        assert_eq!(writer.sink.held, b"one\ntw\nfour\n");
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let message = "closed: \"a\nb\r\n2026 ERROR c\t\u{1b}[2J\u{0}\u{7f}\u{9b}1m\"";
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = line(format, message);
            let inside = line.strip_suffix('\n').unwrap();
            assert!(!inside.contains(char::is_control), "{line:?}");
            assert!(inside.contains("2026 ERROR c"), "{line:?}");
        }
    }

    #[test]
    fn a_line_beyond_the_channel_is_counted_and_not_waited_for() {
        let (sender, waiting) = channel::bounded(2);
        let lines = Lines { sender, lost: Arc::default(), colour: false };
        for line in ["one", "two", "three"] {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((waiting.len(), lines.lost.load(Ordering::Relaxed)), (2, 1));
    }
}
