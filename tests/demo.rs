//! `evenkeel demo`: the tour, the pages, and that it leaves no process and no file.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A tour takes two seconds. A busy machine needs longer.
const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn one_tour_passes_every_check_and_leaves_nothing() {
    let folder = Folder::make("once");
    let output = demo(&folder).arg("--once").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("ok: the three servers answer in exact rotation").count(), 2, "{text}");
    assert!(text.contains("pi-1 pi-2 pi-3 pi-1 pi-2 pi-3"), "{text}");
    assert!(text.contains("evenkeel_server_up of pi-2 fell to 0"), "{text}");
    assert!(text.contains("requests, 0 failed") && !text.contains("FAILED"), "{text}");
    folder.assert_nothing_left();
}

#[test]
fn the_demo_serves_its_pages_until_it_is_interrupted() {
    let folder = Folder::make("stay");
    let mut demo = Demo::start(&folder);
    let [page, status, metrics] = demo.urls();
    let mut names: Vec<_> = (0..3).map(|_| get(&page)).collect();
    names.sort();
    assert_eq!(names, ["pi-1\n", "pi-2\n", "pi-3\n"]);
    assert!(get(&metrics).contains("evenkeel_server_up{"));
    assert!(get(&status).contains("pi-3"));
    demo.signal(Signal::SIGINT);
    assert!(demo.wait().success());
    folder.assert_nothing_left();
}

#[test]
fn the_balancer_ends_with_a_killed_demo() {
    let folder = Folder::make("kill");
    let mut demo = Demo::start(&folder);
    let [page, ..] = demo.urls();
    demo.signal(Signal::SIGKILL);
    demo.wait();
    let (host, _) = split(&page);
    until("the balancer has ended", || TcpStream::connect(host).is_err());
}

fn demo(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("demo").env("TMPDIR", &folder.0);
    command
}

/// A demo without `--once`. Dropping it kills the process.
struct Demo {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Demo {
    fn start(folder: &Folder) -> Self {
        let mut child = demo(folder).stdout(Stdio::piped()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, out }
    }

    /// The URLs of the page, the status page and the metrics, which are printed after the tour.
    fn urls(&mut self) -> [String; 3] {
        let mut lines = (&mut self.out).lines().map_while(Result::ok);
        let after_tour = lines.find(|line| line.contains("keeps running"));
        assert!(after_tour.is_some(), "the tour has ended early");
        std::array::from_fn(|_| {
            let line = lines.next().expect("a URL");
            line.split_whitespace().next().expect("a URL").to_owned()
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("it runs");
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the demo has ended", || {
            status = self.child.try_wait().expect("it is a child process");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Fails if it has already ended, as it should.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The directory of the files of a demo. Its path also identifies the child process.
struct Folder(PathBuf);

impl Folder {
    fn make(name: &str) -> Self {
        let name = format!("demo-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("the directory is writable");
        Self(path)
    }

    fn assert_nothing_left(&self) {
        let files = fs::read_dir(&self.0).expect("the directory exists");
        let files: Vec<_> = files.flatten().collect();
        assert!(files.is_empty(), "{files:?}");
        let path = self.0.to_str().expect("the path is UTF-8");
        let processes = fs::read_dir("/proc").expect("proc(5)").flatten().filter(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(path)
        });
        assert_eq!(processes.count(), 0, "a process with {path} in its command line");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("a URL");
    rest.split_at(rest.find('/').expect("a path"))
}

fn get(url: &str) -> String {
    let (host, path) = split(url);
    let mut stream = TcpStream::connect(host).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{url}: {head}");
    body.to_owned()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}
