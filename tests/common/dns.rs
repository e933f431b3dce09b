//! A scripted DNS server, on UDP and TCP.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, NS, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::wait::pause;

/// A datagram without EDNS (RFC 1035, 4.2.1): a longer answer is truncated.
const DATAGRAM_MAX: usize = 512;

/// Between checks whether the server is stopped.
const POLL: Duration = Duration::from_millis(50);

/// A DNS server. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Script {
    records: BTreeMap<String, Vec<RData>>,
    ttl: u32,
    mood: Mood,
    /// By name; the others have `mood`.
    moods: BTreeMap<String, Mood>,
    asked: BTreeMap<(String, RecordType), usize>,
    over_tcp: usize,
}

/// How it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// With what it has: nothing, if it has none.
    #[default]
    Normal,
    /// Not at all.
    Silent,
    /// After this time.
    Late(Duration),
    /// SERVFAIL
    Failing,
    /// With bytes that are no message.
    Malformed,
    /// NXDOMAIN
    NoSuchName,
    /// Without a record.
    Empty,
    /// With records of another name.
    OtherName,
    /// With records of another type.
    OtherType,
    /// With another id than the question's.
    OtherId,
    /// From another port than the question was sent to.
    OtherPort,
    /// With its records in another order each time.
    Shuffled,
    /// With another address in 127.99.0.0/16 each time.
    Anew,
}

impl Dns {
    /// TTLs are one second.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(POLL)).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = Arc::new(Mutex::new(Script { ttl: 1, ..Script::default() }));
        let stopped = Arc::new(AtomicBool::new(false));
        let datagrams = {
            let (script, stopped) = (Arc::clone(&script), Arc::clone(&stopped));
            thread::spawn(move || serve_udp(&socket, &script, &stopped))
        };
        let streams = {
            let (script, stopped) = (Arc::clone(&script), Arc::clone(&stopped));
            thread::spawn(move || serve_tcp(&listener, &script, &stopped))
        };
        Self { address, script, stopped, threads: vec![datagrams, streams] }
    }

    /// The line of `[global]` with which evenkeel asks it.
    pub(crate) fn resolver(&self) -> String {
        format!("resolver = [\"{}\"]", self.address)
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.script().mood = mood;
    }

    /// How it answers for one name.
    pub(crate) fn set_mood_of(&self, name: &str, mood: Mood) {
        self.script().moods.insert(format!("{name}."), mood);
    }

    pub(crate) fn set_ttl(&self, seconds: u32) {
        self.script().ttl = seconds;
    }

    /// Replaces the records of an SRV name: priority, weight, port, target.
    pub(crate) fn set_srv(&self, name: &str, records: &[(u16, u16, u16, &str)]) {
        let record = |&(priority, weight, port, target): &(u16, u16, u16, &str)| {
            let target = Name::from_ascii(target).unwrap();
            RData::SRV(SRV::new(priority, weight, port, target))
        };
        self.set(name, records.iter().map(record).collect());
    }

    /// Replaces the addresses of a host name.
    pub(crate) fn set_host(&self, name: &str, addresses: &[IpAddr]) {
        self.set(name, addresses.iter().copied().map(RData::from).collect());
    }

    /// Makes a name an alias.
    pub(crate) fn set_alias(&self, name: &str, target: &str) {
        self.set(name, vec![RData::CNAME(CNAME(Name::from_ascii(target).unwrap()))]);
    }

    fn set(&self, name: &str, records: Vec<RData>) {
        self.script().records.insert(format!("{name}."), records);
    }

    /// How often it was asked for these records of a name.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.script().asked.get(&(format!("{name}."), kind)).copied().unwrap_or(0)
    }

    /// How often it was asked over TCP.
    pub(crate) fn asked_over_tcp(&self) -> usize {
        self.script().over_tcp
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Script {
    /// The answer to a question, and the mood that it is sent in.
    fn answer(&mut self, question: &[u8]) -> Option<(Message, Mood)> {
        let mut message = Message::from_vec(question).ok()?;
        let query = message.queries.first()?.clone();
        let mut name = query.name().to_ascii().to_lowercase();
        let mood = self.moods.get(&name).copied().unwrap_or(self.mood);
        let asked = self.asked.entry((name.clone(), query.query_type())).or_default();
        *asked += 1;
        let asked = *asked;
        message.metadata.message_type = MessageType::Response;
        let owner = Name::from_ascii(&name).unwrap();
        let [_, .., high, low] = u32::try_from(asked).unwrap_or(0).to_be_bytes();
        let record = |owner, data| Record::from_rdata(owner, self.ttl, data);
        let wrong = RData::from(IpAddr::from([127, 99, high, low]));
        match mood {
            Mood::Failing => message.metadata.response_code = ResponseCode::ServFail,
            Mood::NoSuchName => message.metadata.response_code = ResponseCode::NXDomain,
            Mood::Empty => {}
            Mood::OtherName => {
                message.add_answer(record(Name::from_ascii("other.test.").unwrap(), wrong));
            }
            Mood::OtherType => {
                let ns = RData::NS(NS(Name::from_ascii("other.test.").unwrap()));
                message.add_answer(record(owner, ns));
            }
            Mood::Anew if query.query_type() == RecordType::A => {
                message.add_answer(record(owner, wrong));
            }
            Mood::OtherId => {
                message.metadata.id ^= 0x5555;
                message.add_answer(record(owner, wrong));
            }
            Mood::OtherPort => {
                message.add_answer(record(owner, wrong));
            }
            _ => self.find(&mut message, &mut name, query.query_type()),
        }
        if mood == Mood::Shuffled && !message.answers.is_empty() {
            let first = asked % message.answers.len();
            message.answers.rotate_left(first);
        }
        Some((message, mood))
    }

    /// Adds the records of that type, and the aliases that lead to them.
    fn find(&self, message: &mut Message, name: &mut String, kind: RecordType) {
        for _ in 0..4 {
            let mut alias = None;
            for data in self.records.get(name).into_iter().flatten() {
                if data.record_type() == kind {
                    let owner = Name::from_ascii(&*name).unwrap();
                    message.add_answer(Record::from_rdata(owner, self.ttl, data.clone()));
                } else if let RData::CNAME(CNAME(target)) = data {
                    let owner = Name::from_ascii(&*name).unwrap();
                    message.add_answer(Record::from_rdata(owner, self.ttl, data.clone()));
                    alias = Some(target.to_ascii().to_lowercase());
                }
            }
            let Some(target) = alias else { break };
            *name = target;
        }
    }
}

fn serve_udp(socket: &UdpSocket, script: &Mutex<Script>, stopped: &AtomicBool) {
    let mut question = [0; 4096];
    while !stopped.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut question) else { continue };
        let answer = {
            let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
            script.answer(&question[..length])
        };
        let Some((message, mood)) = answer else { continue };
        let mut bytes = message.to_vec().unwrap();
        if bytes.len() > DATAGRAM_MAX {
            bytes = message.truncate().to_vec().unwrap();
        }
        match mood {
            Mood::Silent => continue,
            Mood::Malformed => bytes = vec![0xc0; 30],
            Mood::Late(time) => {
                // Others are answered meanwhile.
                let later = socket.try_clone().unwrap();
                thread::spawn(move || {
                    pause(time);
                    drop(later.send_to(&bytes, client));
                });
                continue;
            }
            Mood::OtherPort => {
                let other = UdpSocket::bind((socket.local_addr().unwrap().ip(), 0)).unwrap();
                drop(other.send_to(&bytes, client));
                continue;
            }
            _ => {}
        }
        drop(socket.send_to(&bytes, client));
    }
}

fn serve_tcp(listener: &TcpListener, script: &Mutex<Script>, stopped: &AtomicBool) {
    thread::scope(|scope| {
        while !stopped.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(move || drop(serve_stream(stream, script, stopped)));
                }
                Err(_) => pause(POLL),
            }
        }
    });
}

fn serve_stream(
    mut stream: TcpStream,
    script: &Mutex<Script>,
    stopped: &AtomicBool,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(POLL))?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while !stopped.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(_) => continue,
        }
        while let Some([high, low]) = received.first_chunk() {
            let end = 2 + usize::from(u16::from_be_bytes([*high, *low]));
            if received.len() < end {
                break;
            }
            let question: Vec<u8> = received.drain(..end).skip(2).collect();
            let answer = {
                let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
                script.over_tcp += 1;
                script.answer(&question)
            };
            let Some((message, _)) = answer else { continue };
            let bytes = message.to_vec().map_err(io::Error::other)?;
            stream.write_all(&u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes())?;
            stream.write_all(&bytes)?;
        }
    }
    Ok(())
}
