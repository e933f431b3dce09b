//! `evenkeel demo`: a tour on loopback, without privileges and without a configuration file.
//!
//! Three web servers answer with their names; evenkeel runs in front of them as a child process.
//! The tour shows the rotation, stops one server without a failed request, and starts it again. It
//! checks the result of each step, and a step waits for its result, not for a fixed time.

mod balancer;
mod browser;
mod servers;
mod signals;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use balancer::{Balancer, Ports};
use servers::WebServer;
use signals::StopSignals;

/// The web servers, by name.
const NAMES: [&str; 3] = ["pi-1", "pi-2", "pi-3"];

/// The index in `NAMES` of the server that the tour stops.
const STOPPED: usize = 1;

/// Requests that check a rotation: three for each of three servers.
const ROTATION_REQUESTS: usize = 9;

/// Requests, at least, while one server is stopped.
const STOPPED_REQUESTS: usize = 60;

/// Between two requests of a step that waits for probes.
const PAUSE: Duration = Duration::from_millis(5);

/// Servers are probed five times a second. A busy Pi may need longer.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Shows the tour on standard output; true if every check passed. Without `once`, everything then
/// keeps running until Ctrl-C.
///
/// # Errors
/// There are no free ports or no temporary folder, evenkeel does not start or ends (with its
/// output), or standard output is closed.
pub fn demo(once: bool) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match tour(&mut out, once) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            writeln!(out, "\nInterrupted; everything is stopped.")?;
            Ok(false)
        }
        ended => ended,
    }
}

fn tour(out: &mut dyn Write, once: bool) -> io::Result<bool> {
    let mut signals = StopSignals::new()?;
    let ports = Ports::reserve()?;
    let mut servers = Vec::new();
    for (name, port) in NAMES.into_iter().zip(ports.servers()) {
        servers.push((name, WebServer::start(name, port)?));
    }
    let balancer = Balancer::start(&ports, &servers, &mut signals)?;
    writeln!(
        out,
        "evenkeel demo: a balancer and three web servers ({}), all on loopback.",
        NAMES.join(", ")
    )?;
    let mut tour = Tour { out, signals, balancer, servers, passed: true };
    tour.show_rotation()?;
    tour.stop_server()?;
    tour.start_server(&ports)?;
    if tour.passed {
        writeln!(tour.out, "\nEvery check passed.")?;
    } else {
        writeln!(tour.out, "\nNot every check passed: see the lines that begin with FAILED.")?;
    }
    let passed = tour.passed;
    if !once {
        tour.keep_running()?;
    }
    Ok(passed)
}

struct Tour<'a> {
    out: &'a mut dyn Write,
    signals: StopSignals,
    balancer: Balancer,
    servers: Vec<(&'static str, WebServer)>,
    /// Whether every check so far has passed.
    passed: bool,
}

impl Tour<'_> {
    fn show_rotation(&mut self) -> io::Result<()> {
        let frontend = self.balancer.frontend;
        writeln!(self.out, "\n1. {ROTATION_REQUESTS} requests to http://{frontend}/")?;
        self.check_rotation()
    }

    /// Stops one server while requests go on.
    fn stop_server(&mut self) -> io::Result<()> {
        let stopped = NAMES[STOPPED];
        writeln!(self.out, "\n2. Stop {stopped} while requests go on")?;
        self.servers.remove(STOPPED);
        let mut until_down = Answers::default();
        let down = self.request_until(&mut until_down, |balancer, answers| {
            answers.requests() >= STOPPED_REQUESTS
                && balancer.metric("evenkeel_server_up", stopped) == Some(0.0)
        })?;
        let mut after = Answers::default();
        for _ in 0..ROTATION_REQUESTS {
            after.request(&self.balancer);
        }
        let requests = until_down.requests() + after.requests();
        let failures = [&until_down.failures[..], &after.failures].concat();
        let others = until_down.names.iter().chain(&after.names).all(|name| name != stopped);
        self.check_failures(requests, &failures)?;
        self.check(
            others,
            "the other two servers answered every request",
            &format!("{stopped} still answers"),
        )?;
        self.check(
            down.is_some(),
            &format!("evenkeel_server_up of {stopped} fell to 0 {}", seconds(down)),
            "it is still 1",
        )?;
        self.check(
            after.rotates(NAMES.len() - 1),
            "the two servers answer in exact rotation",
            &after.names.join(" "),
        )
    }

    /// Starts the stopped server again.
    fn start_server(&mut self, ports: &Ports) -> io::Result<()> {
        let stopped = NAMES[STOPPED];
        writeln!(self.out, "\n3. Start {stopped} again")?;
        let server = WebServer::start(stopped, ports.servers()[STOPPED])?;
        self.servers.insert(STOPPED, (stopped, server));
        let mut answers = Answers::default();
        let up = self.request_until(&mut answers, |_, answers| {
            answers.names.last().is_some_and(|name| name == stopped)
        })?;
        self.check(
            up.is_some() && self.balancer.metric("evenkeel_server_up", stopped) == Some(1.0),
            &format!("{stopped} answers again, after two probes, {}", seconds(up)),
            "it does not answer",
        )?;
        self.check_failures(answers.requests(), &answers.failures)?;
        self.check_rotation()
    }

    /// Checks that the three servers answer in exact rotation.
    fn check_rotation(&mut self) -> io::Result<()> {
        let mut answers = Answers::default();
        for _ in 0..ROTATION_REQUESTS {
            answers.request(&self.balancer);
        }
        writeln!(self.out, "   {}", answers.names.join(" "))?;
        let problem = answers.failures.first().map_or("the order is another", String::as_str);
        let rotates = answers.rotates(NAMES.len());
        self.check(rotates, "the three servers answer in exact rotation", problem)
    }

    /// Requests one page after another until `enough`: the time that took; none at the deadline.
    fn request_until(
        &mut self,
        answers: &mut Answers,
        enough: impl Fn(&Balancer, &Answers) -> bool,
    ) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        while start.elapsed() < STEP_TIMEOUT {
            answers.request(&self.balancer);
            if enough(&self.balancer, answers) {
                return Ok(Some(start.elapsed()));
            }
            self.balancer.check_runs()?;
            self.signals.wait(PAUSE)?;
        }
        Ok(None)
    }

    fn check_failures(&mut self, requests: usize, failures: &[String]) -> io::Result<()> {
        let result = format!("{requests} requests, {} failed", failures.len());
        let first = failures.first().map_or("", String::as_str);
        self.check(failures.is_empty(), &result, first)
    }

    /// Prints the `result` of a check, and the problem if it has not passed.
    fn check(&mut self, passed: bool, result: &str, problem: &str) -> io::Result<()> {
        self.passed &= passed;
        if passed {
            writeln!(self.out, "   ok: {result}")
        } else {
            writeln!(self.out, "   FAILED: {result}: {problem}")
        }
    }

    /// Waits until Ctrl-C, or until evenkeel ends by itself.
    fn keep_running(&mut self) -> io::Result<()> {
        let Balancer { frontend, observe, .. } = &self.balancer;
        writeln!(self.out, "Everything keeps running until Ctrl-C:")?;
        writeln!(self.out, "   http://{frontend}/         the page, for a browser or curl")?;
        writeln!(self.out, "   http://{observe}/         the status page")?;
        writeln!(self.out, "   http://{observe}/metrics  for Prometheus")?;
        if let Some(control) = &self.balancer.control {
            let control = control.display();
            writeln!(self.out, "   evenkeel status --control {control}")?;
            writeln!(self.out, "   evenkeel drain pis/{} --control {control}", NAMES[0])?;
        }
        self.out.flush()?;
        while self.signals.wait(Duration::from_millis(200)).is_ok() {
            self.balancer.check_runs()?;
        }
        writeln!(self.out, "\nStopped.")
    }
}

/// The answers to requests: names of servers, and failures.
#[derive(Debug, Default)]
struct Answers {
    names: Vec<String>,
    failures: Vec<String>,
}

impl Answers {
    fn request(&mut self, balancer: &Balancer) {
        match browser::page(balancer.frontend, "/") {
            Ok(name) => self.names.push(name),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    fn requests(&self) -> usize {
        self.names.len() + self.failures.len()
    }

    /// Whether `servers` different servers answered in turn, and no request failed.
    fn rotates(&self, servers: usize) -> bool {
        let (Some(first), true) = (self.names.get(..servers), self.failures.is_empty()) else {
            return false;
        };
        let different = (1..servers).all(|index| !first[..index].contains(&first[index]));
        different && self.names.iter().zip(first.iter().cycle()).all(|(name, turn)| name == turn)
    }
}

/// How long a step took; none: it did not end.
fn seconds(duration: Option<Duration>) -> String {
    match duration {
        Some(time) => format!("in {:.1} s", time.as_secs_f64()),
        None => format!("within {} s", STEP_TIMEOUT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(names: &str) -> Answers {
        Answers { names: names.split(' ').map(str::to_owned).collect(), failures: Vec::new() }
    }

    #[test]
    fn a_rotation_may_start_at_any_server() {
        assert!(answers("b c a b c a b").rotates(3));
        assert!(!answers("b c a b a c").rotates(3));
        assert!(!answers("a a a a").rotates(3));
        assert!(!answers("a b a b").rotates(3));
        assert!(answers("a b a b a").rotates(2));
        assert!(!answers("a b").rotates(3));
    }

    #[test]
    fn a_failed_request_is_no_rotation() {
        let mut answers = answers("a b a b");
        answers.failures.push("refused".to_owned());
        assert!(!answers.rotates(2));
    }
}
