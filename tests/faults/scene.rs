//! Plays a scenario: does what its script says, word by word (`words`), and has the outcome checked
//! (`ledger`).

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::observe::admin;
use nix::sys::signal::Signal;

use crate::common::Server;
use crate::common::client::{Ending, connect_and_read};
use crate::common::server::BlackHole;
use crate::common::wait::pause;
use crate::ledger::Ledger;
use crate::matrix::Scenario;
use crate::network::Network;
use crate::peer::{AHEAD, PAUSE, Peer};
use crate::words::{header, number, partner, read_to_end};
use crate::world::{At, BRIEF, Group, World};

/// How the balancer moves the bytes of a session that relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Small messages.
    Copied,
    /// Bulk, by splice(2).
    Spliced,
}

/// A scenario that is being played.
#[derive(Debug)]
struct Scene<'w, 'e> {
    world: &'w mut World<'e>,
    group: &'static Group,
    path: Path,
    peers: BTreeMap<char, Peer>,
    network: Network,
    /// The server is a black hole so far.
    hole: Option<BlackHole>,
    opened: Option<(Server, Receiver<TcpStream>)>,
    ledger: Ledger,
    /// An order to undo.
    ordered: bool,
    /// The balancer has ended, as it was told.
    exited: bool,
    /// What the words took that do not wait for the balancer.
    spent: Duration,
}

/// Plays `scenario`, and checks that it ends as it says and leaves nothing. Where a timeout of half
/// a second is the point, an attempt counts as void if this machine was too slow for it.
pub(crate) fn play(world: &mut World<'_>, scenario: Scenario, path: Path) -> Result<(), String> {
    let group = Group::named(scenario.frontend)?;
    let attempts = if group.is_brief() { 5 } else { 1 };
    for attempt in 1..=attempts {
        let mut scene = Scene::new(world, group, path)?;
        let outcome = scene.play(scenario);
        let void = outcome.is_err() && scene.spent > BRIEF / 2 && attempt < attempts;
        drop(scene);
        if !void {
            return outcome;
        }
        world.quiet()?;
    }
    Err("never quick enough".to_owned())
}

impl<'w, 'e> Scene<'w, 'e> {
    fn new(world: &'w mut World<'e>, group: &'static Group, path: Path) -> Result<Self, String> {
        let before = world.quiet()?;
        let ledger = Ledger::open(before, world.balancer.sessions().len(), world.troubles(group));
        let hole = (group.at == At::Hole).then(|| BlackHole::open(world.server(group)));
        Ok(Self {
            world,
            group,
            path,
            peers: BTreeMap::new(),
            network: Network::default(),
            hole,
            opened: None,
            ledger,
            ordered: false,
            exited: false,
            spent: Duration::ZERO,
        })
    }

    fn play(&mut self, scenario: Scenario) -> Result<(), String> {
        let outcome = self.perform(scenario);
        if self.ordered {
            self.world.order("ready", self.group)?;
        }
        outcome
    }

    fn perform(&mut self, scenario: Scenario) -> Result<(), String> {
        for word in scenario.script.split_whitespace() {
            let begun = Instant::now();
            self.act(word).map_err(|why| format!("{word}: {why}"))?;
            let waits = ["ends", "cut", "reset", "pause", "b."];
            if !waits.iter().any(|wait| word.contains(wait)) {
                self.spent += begun.elapsed();
            }
        }
        self.network.finish()?;
        let surprise = self.next_connection(Duration::ZERO).is_ok();
        if surprise && !scenario.script.contains(".maybe") {
            return Err("the server got a connection that it does not expect".to_owned());
        }
        for peer in self.peers.values_mut() {
            peer.close();
        }
        self.hole = None;
        self.opened = None;
        if self.exited {
            return self.ledger.records(self.world, scenario.ends, &self.peers).map(drop);
        }
        self.ledger.settle(self.world, self.group, scenario.ends, &self.peers)
    }

    fn act(&mut self, word: &str) -> Result<(), String> {
        if word == "relay" {
            return self.relay();
        }
        let (who, what) = word.split_once('.').ok_or("no dot")?;
        let (verb, argument) = what.split_once(':').unwrap_or((what, ""));
        let who = who.chars().next().ok_or("nobody")?;
        match who {
            'b' => self.await_balancer(verb),
            'o' => self.order(verb, argument),
            'n' => {
                let to_server = argument == "s";
                let address = match argument {
                    "c" => self.world.frontend(self.group),
                    "s" => self.world.server(self.group),
                    _ => return Err("c or s".to_owned()),
                };
                self.network.act(verb, address.port(), to_server)
            }
            _ => self.act_peer(who, verb, argument),
        }
    }

    fn act_peer(&mut self, who: char, verb: &str, argument: &str) -> Result<(), String> {
        let deadline = self.world.deadline;
        let frontend = self.world.frontend(self.group);
        match verb {
            "connect" => {
                let peer = Peer::connect(who, frontend, argument == "small", deadline);
                let peer = peer.map_err(|why| why.to_string())?;
                self.peers.insert(who, peer);
                return Ok(());
            }
            "knock" => {
                let in_vain = TcpStream::connect_timeout(&frontend, Duration::from_millis(300));
                return in_vain.err().map(drop).ok_or_else(|| "connected".to_owned());
            }
            // The reset may come before connect(2) returns.
            "refused" => {
                let (bytes, ending) = connect_and_read(frontend);
                let as_expected = bytes.is_empty() && ending == Ending::Reset;
                return if as_expected { Ok(()) } else { Err(format!("{ending:?}")) };
            }
            "accept" => {
                let stream = self.next_connection(deadline)?;
                let peer = Peer::new(who, stream, deadline).map_err(|why| why.to_string())?;
                self.peers.insert(who, peer);
                return Ok(());
            }
            // A client that was reset may have reached the server before that was known.
            "maybe" => {
                drop(self.next_connection(Duration::from_millis(300)));
                return Ok(());
            }
            "open" => {
                let hole = self.hole.take().ok_or("no black hole")?;
                let (sender, connections) = std::sync::mpsc::channel();
                let server = hole.become_server(move |stream| drop(sender.send(stream)));
                self.opened = Some((server, connections));
                return Ok(());
            }
            "burst" | "burst-header" => {
                return self.burst(number(argument)?, verb == "burst-header");
            }
            "pump" => return self.pump(who, number(argument)?),
            _ => {}
        }
        self.act_stream(who, verb, argument)
    }

    /// What a peer does with its connection.
    fn act_stream(&mut self, who: char, verb: &str, argument: &str) -> Result<(), String> {
        let frontend = self.world.frontend(self.group);
        let other = partner(who)?;
        let whole = self.peers.get(&other).map_or(0, |other| other.sent);
        let ahead = match self.path {
            Path::Copied => (AHEAD / 10, 1000),
            Path::Spliced => (AHEAD, 64 * 1024),
        };
        let peer = self.peers.get_mut(&who).ok_or("is not connected")?;
        let header = header(peer.address, frontend);
        let (half, rest) = header.as_bytes().split_at(16);
        match verb {
            "send" => peer.send(number(argument)?, 64 * 1024),
            "drip" => peer.drip(number(argument)?),
            "ahead" => peer.send_ahead(ahead.0, ahead.1),
            "read" => peer.read(other, number(argument)?, 64 * 1024, false),
            "sip" => peer.read(other, number(argument)?, 8 * 1024, true),
            "header" => peer.send_raw(header.as_bytes()),
            "header-half" => peer.send_raw(half),
            "header-rest" => peer.send_raw(rest),
            "header-drip" => header.as_bytes().iter().try_for_each(|byte| {
                pause(PAUSE / 2);
                peer.send_raw(&[*byte])
            }),
            "garbage" => peer.send_raw(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"),
            "urgent" => peer.urgent(),
            "flood" => peer.flood(usize::try_from(number(argument)?).unwrap_or(usize::MAX)),
            "fin" => peer.fin(),
            "rst" => peer.rst(),
            "close" => {
                peer.close();
                Ok(())
            }
            "pause" => {
                pause(Duration::from_millis(number(argument)?));
                Ok(())
            }
            "ends" | "cut" => {
                read_to_end(peer, other, argument == "fin", (verb == "ends").then_some(whole))
            }
            "reset" => peer.until_reset(),
            "quiet" => {
                let quiet = peer.hears_nothing(Duration::from_millis(200))?;
                if quiet { Ok(()) } else { Err("something came".to_owned()) }
            }
            _ => Err("unknown word".to_owned()),
        }
    }

    /// The next connection to the server.
    fn next_connection(&self, wait: Duration) -> Result<TcpStream, String> {
        let connections = match &self.opened {
            Some((_, connections)) => Some(connections),
            None => self.world.accepted(self.group),
        };
        let connections = connections.ok_or("no server")?;
        if self.opened.is_some() {
            // The connections that filled the backlog of the black hole have ended.
            while let Ok(stream) = connections.recv_timeout(wait) {
                if !matches!(stream.peek(&mut [0]), Ok(0)) {
                    return Ok(stream);
                }
            }
        }
        connections.recv_timeout(wait).map_err(|_| "no connection to the server".to_owned())
    }

    /// Bytes go both ways; afterwards it is the turn of the client.
    fn relay(&mut self) -> Result<(), String> {
        match self.path {
            Path::Copied => {
                for (from, to) in [('c', 's'), ('s', 'c')] {
                    self.act_peer(from, "send", "100")?;
                    self.act_peer(to, "read", "100")?;
                }
                Ok(())
            }
            Path::Spliced => {
                self.pump('c', AHEAD / 2)?;
                self.pump('s', AHEAD / 2)
            }
        }
    }

    /// `from` sends, and the other one reads meanwhile.
    fn pump(&mut self, from: char, count: u64) -> Result<(), String> {
        let other = partner(from)?;
        let mut source = self.peers.remove(&from).ok_or("is not connected")?;
        let mut sink = self.peers.remove(&other).ok_or("the other one is not connected")?;
        let done = thread::scope(|scope| {
            let sending = scope.spawn(|| source.send(count, 64 * 1024));
            let read = sink.read(from, count, 64 * 1024, false);
            let sent = sending.join().map_err(|_| "a thread panicked".to_owned())?;
            sent.and(read)
        });
        self.peers.insert(from, source);
        self.peers.insert(other, sink);
        done
    }

    /// Many clients come at once. The server serves one after the other.
    fn burst(&mut self, count: u64, with_header: bool) -> Result<(), String> {
        let deadline = self.world.deadline;
        let frontend = self.world.frontend(self.group);
        let mut clients = Vec::new();
        for _ in 0..count {
            let client = Peer::connect('c', frontend, false, deadline);
            let mut client = client.map_err(|why| why.to_string())?;
            let own = client.address;
            if with_header {
                client.send_raw(header(own, frontend).as_bytes())?;
            }
            client.send(5, 5)?;
            client.fin()?;
            self.ledger.burst.push(own);
            clients.push(client);
        }
        for _ in 0..count {
            let stream = self.next_connection(deadline)?;
            let mut server = Peer::new('s', stream, deadline).map_err(|why| why.to_string())?;
            let ending = server.read_to_end('c')?;
            if (server.received, &ending) != (5, &Ending::Orderly) {
                return Err(format!("{ending:?} after {} of 5 bytes", server.received));
            }
            server.send(5, 5)?;
        }
        for client in &mut clients {
            let ending = client.read_to_end('s')?;
            if (client.received, &ending) != (5, &Ending::Orderly) {
                return Err(format!("{ending:?} after {} of 5 bytes", client.received));
            }
        }
        Ok(())
    }

    fn await_balancer(&mut self, verb: &str) -> Result<(), String> {
        if verb == "exit" {
            self.exited = true;
            let end = Instant::now() + self.world.deadline;
            while self.world.balancer.runs() {
                if Instant::now() > end {
                    return Err("it still runs".to_owned());
                }
                pause(Duration::from_millis(10));
            }
            let status = self.world.balancer.wait();
            return if status.success() { Ok(()) } else { Err(status.to_string()) };
        }
        let world = &self.world;
        if verb == "drains" {
            return world.wait(|| {
                let begun = world.balancer.application_log().contains("draining for");
                if begun { Ok(()) } else { Err("no drain".to_owned()) }
            });
        }
        let address = self.address('c')?.to_string();
        if verb == "ended" {
            let field = format!(" {address} ");
            let earlier = self.ledger.lines;
            return world.wait(|| {
                let lines = world.balancer.sessions();
                let logged = lines.iter().skip(earlier).any(|line| line.contains(&field));
                if logged { Ok(()) } else { Err(format!("open: {:?}", world.sessions())) }
            });
        }
        world.wait(|| {
            let sessions = world.sessions()?;
            let state = sessions.iter().find(|one| one["client"] == address);
            match state.and_then(|one| one["state"].as_str()) {
                Some(state) if state == verb => Ok(()),
                other => Err(format!("its state is {other:?}")),
            }
        })
    }

    fn order(&mut self, verb: &str, argument: &str) -> Result<(), String> {
        match verb {
            "reload" => {
                self.world.reload(90)?;
                self.world.reload(100)
            }
            "drain" | "maint" => {
                self.ordered = true;
                self.world.order(verb, self.group)
            }
            "kill" => {
                let who = argument.chars().next().unwrap_or('c');
                let address = self.address(who)?.to_string();
                let world = &self.world;
                let id = world.wait(|| {
                    let sessions = world.sessions()?;
                    let found = sessions.iter().find(|one| one["client"] == address);
                    let id = found.and_then(|one| one["id"].as_str());
                    id.map(ToOwned::to_owned).ok_or_else(|| format!("no session of {address}"))
                })?;
                let socket = world.balancer.env.file("control.sock");
                admin::kill(&socket, id.parse()?).map(drop)
            }
            "term" => {
                self.world.balancer.signal(Signal::SIGTERM);
                self.await_balancer("drains")
            }
            _ => Err("unknown order".to_owned()),
        }
    }

    fn address(&self, who: char) -> Result<SocketAddr, String> {
        let peer = self.peers.get(&who);
        peer.map(|peer| peer.address).ok_or_else(|| format!("{who} is not connected"))
    }
}
