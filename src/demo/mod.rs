//! `evenkeel demo`: a tour on loopback, without privileges and without a file.
//!
//! Three web servers that answer their names, and evenkeel itself as a child process before them.
//! The tour shows the rotation, switches one server off without a failed request, and brings it
//! back; each step is checked, and waits for what it shows, never for a time.

mod balancer;
mod browser;
mod patience;
mod servers;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use balancer::{Balancer, Ports};
use patience::Patience;
use servers::WebServer;

/// The web servers, by name.
const NAMES: [&str; 3] = ["pi-1", "pi-2", "pi-3"];

/// The place in `NAMES` of the one that is switched off.
const VICTIM: usize = 1;

/// Three times round.
const ROUND: usize = 9;

/// At least so many requests while one server is off.
const REQUESTS_OFF: usize = 60;

/// Between two requests of a step that waits for probes.
const PAUSE: Duration = Duration::from_millis(5);

/// Probes come five times a second; a busy Pi may need longer.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Shows the tour on standard output; true when all of it was so. Without `once` it then stays up
/// until Ctrl-C.
///
/// # Errors
/// No ports, no temporary folder, evenkeel does not start or ends (with what it said), or nobody
/// reads the output.
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
    let mut patience = Patience::new()?;
    let ports = Ports::claim()?;
    let mut servers = Vec::new();
    for (name, port) in NAMES.into_iter().zip(ports.servers()) {
        servers.push((name, WebServer::start(name, port)?));
    }
    let balancer = Balancer::start(&ports, &servers, &mut patience)?;
    writeln!(
        out,
        "evenkeel demo: a balancer and three web servers ({}), all on this machine's loopback.",
        NAMES.join(", ")
    )?;
    let mut tour = Tour { out, patience, balancer, servers, held: true };
    tour.rotation()?;
    tour.loss()?;
    tour.comeback(&ports)?;
    if tour.held {
        writeln!(tour.out, "\nAll of it was so.")?;
    } else {
        writeln!(tour.out, "\nNot all of it was so: see the lines that begin with NOT.")?;
    }
    let held = tour.held;
    if !once {
        tour.stay()?;
    }
    Ok(held)
}

struct Tour<'a> {
    out: &'a mut dyn Write,
    patience: Patience,
    balancer: Balancer,
    servers: Vec<(&'static str, WebServer)>,
    /// Whether every claim so far was true.
    held: bool,
}

impl Tour<'_> {
    fn rotation(&mut self) -> io::Result<()> {
        let frontend = self.balancer.frontend;
        writeln!(self.out, "\n1. {ROUND} requests to http://{frontend}/")?;
        self.round()
    }

    /// One server is switched off while requests go on.
    fn loss(&mut self) -> io::Result<()> {
        let victim = NAMES[VICTIM];
        writeln!(self.out, "\n2. {victim} is switched off, and requests go on")?;
        self.servers.remove(VICTIM);
        let mut seen = Seen::default();
        let down = self.request_until(&mut seen, |balancer, seen| {
            seen.requests() >= REQUESTS_OFF
                && balancer.metric("evenkeel_server_up", victim) == Some(0.0)
        })?;
        let mut after = Seen::default();
        for _ in 0..ROUND {
            after.request(&self.balancer);
        }
        let failures = seen.failures.iter().chain(&after.failures).next();
        let requests = seen.requests() + after.requests();
        let others = seen.names.iter().chain(&after.names).all(|name| name != victim);
        self.claim(
            failures.is_none(),
            &format!("{requests} requests, none failed"),
            &failures.cloned().unwrap_or_default(),
        )?;
        self.claim(others, "the other two answered them all", "it still answers")?;
        self.claim(
            down.is_some(),
            &format!("evenkeel_server_up of {victim} fell to 0 after {}", seconds(down)),
            "it is still 1",
        )?;
        self.claim(
            after.rotates(NAMES.len() - 1),
            "those two take turns, exactly",
            &after.names.join(" "),
        )
    }

    /// It is switched on again.
    fn comeback(&mut self, ports: &Ports) -> io::Result<()> {
        let victim = NAMES[VICTIM];
        writeln!(self.out, "\n3. {victim} is switched on again")?;
        let server = WebServer::start(victim, ports.servers()[VICTIM])?;
        self.servers.insert(VICTIM, (victim, server));
        let mut seen = Seen::default();
        let back = self.request_until(&mut seen, |_, seen| {
            seen.names.last().is_some_and(|name| name == victim)
        })?;
        self.claim(
            back.is_some() && self.balancer.metric("evenkeel_server_up", victim) == Some(1.0),
            &format!("two probes later it answers again, after {}", seconds(back)),
            "it does not answer",
        )?;
        let failure = seen.failures.first().cloned();
        self.claim(
            failure.is_none(),
            &format!("{} requests, none failed", seen.requests()),
            &failure.unwrap_or_default(),
        )?;
        self.round()
    }

    /// All three in turn, exactly.
    fn round(&mut self) -> io::Result<()> {
        let mut seen = Seen::default();
        for _ in 0..ROUND {
            seen.request(&self.balancer);
        }
        writeln!(self.out, "   {}", seen.names.join(" "))?;
        let problem = seen.failures.first().map_or("they do not", String::as_str);
        self.claim(seen.rotates(NAMES.len()), "all three take turns, exactly", problem)
    }

    /// Requests one page after another until `enough`: the time that took; none at the deadline.
    fn request_until(
        &mut self,
        seen: &mut Seen,
        enough: impl Fn(&Balancer, &Seen) -> bool,
    ) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        while start.elapsed() < STEP_TIMEOUT {
            seen.request(&self.balancer);
            if enough(&self.balancer, seen) {
                return Ok(Some(start.elapsed()));
            }
            self.balancer.still_runs()?;
            self.patience.wait(PAUSE)?;
        }
        Ok(None)
    }

    fn claim(&mut self, so: bool, claim: &str, otherwise: &str) -> io::Result<()> {
        self.held &= so;
        if so {
            writeln!(self.out, "   so: {claim}")
        } else {
            writeln!(self.out, "   NOT so: {claim}: {otherwise}")
        }
    }

    /// Until Ctrl-C, or until evenkeel ends by itself.
    fn stay(&mut self) -> io::Result<()> {
        let Balancer { frontend, observe, .. } = &self.balancer;
        writeln!(self.out, "It stays up until Ctrl-C:")?;
        writeln!(self.out, "   http://{frontend}/         the page; reload it, or curl it")?;
        writeln!(self.out, "   http://{observe}/         the status page")?;
        writeln!(self.out, "   http://{observe}/metrics  for Prometheus")?;
        if let Some(control) = &self.balancer.control {
            let control = control.display();
            writeln!(self.out, "   evenkeel status --control {control}")?;
            writeln!(self.out, "   evenkeel drain pis/{} --control {control}", NAMES[0])?;
        }
        self.out.flush()?;
        while self.patience.wait(Duration::from_millis(200)).is_ok() {
            self.balancer.still_runs()?;
        }
        writeln!(self.out, "\nStopped.")
    }
}

/// What requests were answered with.
#[derive(Debug, Default)]
struct Seen {
    names: Vec<String>,
    failures: Vec<String>,
}

impl Seen {
    fn request(&mut self, balancer: &Balancer) {
        match browser::page(balancer.frontend, "/") {
            Ok(name) => self.names.push(name),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    fn requests(&self) -> usize {
        self.names.len() + self.failures.len()
    }

    /// Whether `servers` different ones answered in turn, and no request failed.
    fn rotates(&self, servers: usize) -> bool {
        let (Some(first), true) = (self.names.get(..servers), self.failures.is_empty()) else {
            return false;
        };
        let different = (1..servers).all(|index| !first[..index].contains(&first[index]));
        different && self.names.iter().zip(first.iter().cycle()).all(|(name, turn)| name == turn)
    }
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(names: &str) -> Seen {
        Seen { names: names.split(' ').map(str::to_owned).collect(), failures: Vec::new() }
    }

    #[test]
    fn a_rotation_is_each_in_turn_from_any_of_them_on() {
        assert!(seen("b c a b c a b").rotates(3));
        assert!(!seen("b c a b a c").rotates(3));
        assert!(!seen("a a a a").rotates(3));
        assert!(!seen("a b a b").rotates(3));
        assert!(seen("a b a b a").rotates(2));
        assert!(!seen("a b").rotates(3));
    }

    #[test]
    fn a_failed_request_is_no_rotation() {
        let mut seen = seen("a b a b");
        seen.failures.push("refused".to_owned());
        assert!(!seen.rotates(2));
    }
}
