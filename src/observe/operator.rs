//! The operator's log: lines on stderr, written by a thread of its own.
//!
//! Who says something hands a line to a bounded channel and goes on, so that a stderr that is full,
//! gone or not read costs lines (which are counted, and told of when it works again) and nothing
//! else.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Lines that wait to be written: ten thousand servers may go down at once. A line has some
/// hundred bytes.
const LINES_WAITING: usize = 16_384;

/// For what is left to be written at the end, when somebody reads it.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The operator's log; dropped, it waits until what was said is written, but not for a reader that
/// does not read.
#[derive(Debug)]
pub struct OperatorLog {
    lines: Lines,
    /// Until the thread has it.
    waiting: Option<Receiver<Said>>,
}

/// Where lines are put.
#[derive(Debug, Clone)]
struct Lines {
    said: Sender<Said>,
    /// Lines that were not written and not yet told of.
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Said {
    Line(Vec<u8>),
    /// Hang up when all before it is written.
    End(#[expect(dead_code, reason = "to drop it is the answer")] Sender<()>),
}

/// Takes what this process says from here on, "info" and above unless `RUST_LOG` says otherwise;
/// it is written from [`OperatorLog::start`] on. A second call takes nothing.
#[must_use]
pub fn init(format: LogFormat) -> OperatorLog {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (said, waiting) = channel::bounded(LINES_WAITING);
    let lines = Lines { said, lost: Arc::default() };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
    // Told on stderr, what is wrong with stderr would end the process.
    let log = log.log_internal_errors(false);
    let outcome = match format {
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with_target(false).with_ansi(colour).try_init()
        }
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // The only failure is that there is one already, which is the one that was wanted.
    drop(outcome);
    OperatorLog { lines, waiting: Some(waiting) }
}

impl OperatorLog {
    /// Starts the thread that writes. A second call changes nothing.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(&mut self) -> io::Result<()> {
        let Some(waiting) = self.waiting.clone() else { return Ok(()) };
        let writer = self.writer();
        let run = move || writer.run(&waiting);
        Builder::new().name("operator-log".to_owned()).spawn(run)?;
        self.waiting = None;
        Ok(())
    }

    fn writer(&self) -> Writer<Stderr> {
        Writer { sink: Stderr, lost: Arc::clone(&self.lines.lost), torn: false }
    }
}

impl Drop for OperatorLog {
    fn drop(&mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        let (written, is_written) = channel::bounded(0);
        if self.start().is_err() {
            // Better to wait for a reader than to keep from him why there is no thread.
            let mut writer = self.writer();
            for said in self.waiting.iter().flat_map(Receiver::try_iter) {
                writer.take(said);
            }
        } else if self.lines.said.send_deadline(Said::End(written), deadline).is_ok() {
            // It hangs up, or time is up: there is nothing else to do about either.
            is_written.recv_deadline(deadline).ok();
        }
    }
}

/// Writes one text to stderr, as the last words of the process: a reader that does not read is not
/// waited for, as long as a thread can be had.
pub fn last_words(text: &str) {
    let (written, is_written) = channel::bounded::<()>(0);
    let words = text.to_owned();
    let write = move || {
        drop(write_all(&mut Stderr, words.as_bytes()));
        drop(written);
    };
    if Builder::new().name("last-words".to_owned()).spawn(write).is_ok() {
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
        if self.said.try_send(Said::Line(line.to_owned())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Descriptor 2 without std's lock, which a write that hangs would keep from everybody else.
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
    /// A write broke off within a line; the next one begins a new line first.
    torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self, waiting: &Receiver<Said>) {
        while let Ok(said) = waiting.recv() {
            // With room for it, or telling of a loss would be another one.
            if self.take(said) && waiting.len() < LINES_WAITING / 2 {
                self.tell();
            }
        }
    }

    /// Whether something was written.
    fn take(&mut self, said: Said) -> bool {
        match said {
            Said::Line(line) => self.write(line),
            Said::End(_) => false,
        }
    }

    /// Whether the line is written.
    fn write(&mut self, mut line: Vec<u8>) -> bool {
        if self.torn {
            line.insert(0, b'\n');
        }
        let (written, outcome) = write_all(&mut self.sink, &line);
        if written > 0 {
            self.torn = line[written - 1] != b'\n';
        }
        if outcome.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        outcome.is_ok()
    }

    fn tell(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} lines of this log were lost: stderr was full, or not read");
        }
    }
}

/// As [`Write::write_all`], and says how far it came.
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
    fn a_line_that_breaks_off_is_lost_and_the_next_one_stands_alone() {
        let disk = Disk { room: 6, held: Vec::new() };
        let mut writer = Writer { sink: disk, lost: Arc::default(), torn: false };
        assert!(writer.write(b"one\n".to_vec()));
        assert!(!writer.write(b"two\n".to_vec()));
        assert!(!writer.write(b"three\n".to_vec()));
        assert_eq!(writer.lost.load(Ordering::Relaxed), 2);
        writer.sink.room = 100;
        assert!(writer.write(b"four\n".to_vec()));
        assert_eq!(writer.sink.held, b"one\ntw\nfour\n");
    }

    #[test]
    fn a_line_too_many_is_counted_and_not_waited_for() {
        let (said, waiting) = channel::bounded(2);
        let lines = Lines { said, lost: Arc::default() };
        for line in ["one", "two", "three"] {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((waiting.len(), lines.lost.load(Ordering::Relaxed)), (2, 1));
    }
}
