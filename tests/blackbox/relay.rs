//! What goes over a session: every byte, in order, each direction with its own end.

use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::common::client::{Ending, connect, end, exchange, read_out};
use crate::common::server::BlackHole;
use crate::common::wait::pause;
use crate::common::{Balancer, Config, Place, Server};

const MIB: usize = 1 << 20;

/// Bytes that nobody can guess, the same for the same seed (xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

/// Sends `total` bytes of noise and ends; gives their checksum.
fn pour(mut stream: &TcpStream, seed: u64, total: usize) -> u64 {
    let (mut noise, mut sum) = (Noise(seed), std::hash::DefaultHasher::new());
    let mut chunk = vec![0; 64 * 1024];
    for start in (0..total).step_by(chunk.len()) {
        let count = chunk.len().min(total - start);
        noise.fill(&mut chunk[..count]);
        sum.write(&chunk[..count]);
        stream.write_all(&chunk[..count]).unwrap();
    }
    end(stream);
    sum.finish()
}

/// Hears all there is; gives its length and checksum.
fn drain(mut stream: &TcpStream) -> (usize, u64) {
    let mut sum = std::hash::DefaultHasher::new();
    let (mut chunk, mut kept, mut total) = (vec![0; 64 * 1024], 0, 0);
    loop {
        let count = stream.read(&mut chunk[kept..]).unwrap();
        kept += count;
        total += count;
        // The sender sums up whole chunks, so does the reader.
        if kept == chunk.len() || count == 0 {
            sum.write(&chunk[..kept]);
            kept = 0;
        }
        if count == 0 {
            return (total, sum.finish());
        }
    }
}

/// A server that hands each connection to the test.
fn handing(place: &Place) -> (Server, mpsc::Receiver<TcpStream>) {
    let (sender, receiver) = mpsc::channel();
    let server = Server::start(place.port(9001), move |stream| drop(sender.send(stream)));
    (server, receiver)
}

fn start<'a>(place: &'a Place, server: &Server) -> Balancer<'a> {
    Balancer::start(place, &Config::new(place).server("a", server.address))
}

#[test]
fn sixty_four_mebibytes_arrive_each_way_at_once_byte_for_byte() {
    let place = Place::new();
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    let peer = connections.recv().unwrap();
    let sums = thread::scope(|scope| {
        let up = scope.spawn(|| pour(&client, 1, 64 * MIB));
        let down = scope.spawn(|| pour(&peer, 2, 64 * MIB));
        let at_server = scope.spawn(|| drain(&peer));
        let at_client = drain(&client);
        let (up, down) = (up.join().unwrap(), down.join().unwrap());
        (at_server.join().unwrap() == (64 * MIB, up), at_client == (64 * MIB, down))
    });
    assert_eq!(sums, (true, true));
    let metrics = balancer.books_balance();
    let bytes = |direction| metrics.value("evenkeel_bytes_total", &[("direction", direction)]);
    assert_eq!((bytes("in"), bytes("out")), ((64 * MIB) as f64, (64 * MIB) as f64));
    assert_eq!(metrics.closed("done"), 1.0);
}

#[test]
fn a_client_that_has_ended_still_gets_the_whole_answer() {
    let place = Place::new(); // case 3
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let mut client = connect(place.frontend());
    client.write_all(b"a question").unwrap();
    end(&client);
    let peer = connections.recv().unwrap();
    assert_eq!(read_out(&peer), (b"a question".to_vec(), Ending::Orderly));
    let answered = thread::scope(|scope| {
        let sum = scope.spawn(|| pour(&peer, 3, 8 * MIB));
        drain(&client) == (8 * MIB, sum.join().unwrap())
    });
    assert!(answered);
    balancer.session_ended("-- done");
    balancer.books_balance();
}

#[test]
fn a_server_that_has_ended_still_gets_all_that_is_sent() {
    let place = Place::new();
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    let peer = connections.recv().unwrap();
    (&peer).write_all(b"an answer").unwrap();
    end(&peer);
    assert_eq!(read_out(&client), (b"an answer".to_vec(), Ending::Orderly));
    let stored = thread::scope(|scope| {
        let sum = scope.spawn(|| pour(&client, 4, 8 * MIB));
        drain(&peer) == (8 * MIB, sum.join().unwrap())
    });
    assert!(stored);
    balancer.session_ended("-- done");
    balancer.books_balance();
}

#[test]
fn a_server_may_speak_first() {
    let place = Place::new(); // case 27
    let server = Server::naming("220 ready", place.port(9001));
    let balancer = start(&place, &server);
    let mut client = connect(place.frontend());
    let mut banner = [0; 9];
    client.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"220 ready");
    drop(client);
    balancer.books_balance();
}

#[test]
fn what_is_said_before_the_server_is_connected_is_delivered_with_its_end() {
    let place = Place::new(); // case 5
    let hole = BlackHole::open(place.port(9001));
    let config = Config::new(&place).backend("connect_timeout = \"10s\"");
    let balancer = Balancer::start(&place, &config.server("a", hole.address));
    let mut client = connect(place.frontend());
    client.write_all(b"early").unwrap();
    end(&client);
    balancer.metrics_until("it is connecting", |metrics| {
        metrics.sum("evenkeel_sessions_active", &[]) == 1.0
    });
    let _server = hole.become_server(|stream| crate::common::server::echo(&stream));
    assert_eq!(read_out(&client), (b"early".to_vec(), Ending::Orderly));
    balancer.session_ended("-- done");
    balancer.books_balance();
}

#[test]
fn single_bytes_are_carried_one_by_one() {
    let place = Place::new(); // case 12
    let server = Server::echo(place.port(9001));
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    for byte in 0..=255 {
        assert_eq!(exchange(&client, &[byte]), [byte]);
    }
    drop(client);
    assert_eq!(balancer.books_balance().closed("done"), 1.0);
}

#[test]
fn many_tiny_writes_to_a_slow_reader_do_not_stall() {
    let place = Place::new(); // case 12
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    let peer = connections.recv().unwrap();
    SockRef::from(&peer).set_recv_buffer_size(4096).unwrap();
    let heard = thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000_u32 {
                let bytes = number.to_le_bytes();
                (&client).write_all(&bytes[..1 + number as usize % 3]).unwrap();
            }
            end(&client);
        });
        pause(Duration::from_millis(300));
        read_out(&peer)
    });
    let sent = (0..20_000_u32)
        .flat_map(|number| number.to_le_bytes().into_iter().take(1 + number as usize % 3));
    assert!(heard == (sent.collect(), Ending::Orderly));
    drop((client, peer));
    balancer.books_balance();
}

#[test]
fn a_reader_that_is_slow_loses_nothing_and_is_not_taken_for_idle() {
    let place = Place::new(); // case 11
    let (server, connections) = handing(&place);
    let config = Config::new(&place).frontend("idle_timeout = \"1s\"");
    let balancer = Balancer::start(&place, &config.server("a", server.address));
    let client = connect(place.frontend());
    SockRef::from(&client).set_recv_buffer_size(128 * 1024).unwrap();
    let peer = connections.recv().unwrap();
    let pouring = thread::spawn(move || pour(&peer, 5, 16 * MIB));
    let mut sip = vec![0; 16 * 1024];
    for _ in 0..30 {
        // Three seconds in all: three times what an idle session may last.
        pause(Duration::from_millis(100));
        (&client).read_exact(&mut sip).unwrap();
    }
    let (rest, _) = drain(&client);
    assert_eq!(rest + 30 * sip.len(), 16 * MIB);
    pouring.join().unwrap();
    drop(client);
    assert_eq!(balancer.books_balance().closed("done"), 1.0);
}

#[test]
fn a_client_that_goes_on_sending_gets_the_whole_answer_of_a_server_that_has_closed() {
    let place = Place::new(); // cases 13 and 24
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let mut client = connect(place.frontend());
    client.write_all(&[7; 4096]).unwrap();
    let mut peer = connections.recv().unwrap();
    peer.read_exact(&mut [0; 1]).unwrap();
    peer.write_all(&[42; 128 * 1024]).unwrap();
    end(&peer);
    // The answer is with us or the client; a close with bytes unread is a reset.
    pause(Duration::from_millis(300));
    drop(peer);
    for _ in 0..50 {
        // Refused at some point, for nobody is there to hear it.
        drop(client.write_all(&[7; 4096]));
        pause(Duration::from_millis(2));
    }
    let (bytes, ending) = read_out(&client);
    assert_eq!((bytes.len(), ending), (128 * 1024, Ending::Orderly));
    drop(client);
    balancer.books_balance();
}

#[test]
fn a_servers_end_comes_after_all_its_bytes_to_a_reader_that_starts_late() {
    let place = Place::new(); // case 23
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    let peer = connections.recv().unwrap();
    let sum = thread::spawn(move || {
        let sum = pour(&peer, 6, MIB);
        drop(peer);
        sum
    });
    let sum = sum.join().unwrap();
    // The server is gone, its bytes are with us; now they are read.
    assert_eq!(drain(&client), (MIB, sum));
    drop(client);
    balancer.session_ended("-- done");
    balancer.books_balance();
}

#[test]
fn an_urgent_byte_is_left_out_and_shifts_nothing() {
    let place = Place::new(); // case 17: what TCP calls urgent is no part of the stream
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    let peer = connections.recv().unwrap();
    (&client).write_all(b"before ").unwrap();
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    (&client).write_all(b"after").unwrap();
    end(&client);
    assert_eq!(read_out(&peer), (b"before after".to_vec(), Ending::Orderly));
    drop((client, peer));
    balancer.books_balance();
}

#[test]
fn an_urgent_byte_does_not_end_bulk() {
    let place = Place::new(); // case 17: splice(2) stops at it, as if at the end
    let (server, connections) = handing(&place);
    let balancer = start(&place, &server);
    let client = connect(place.frontend());
    let peer = connections.recv().unwrap();
    let length = 16 * MIB;
    let sender = thread::spawn(move || {
        (&client).write_all(&vec![b'.'; length]).unwrap();
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        (&client).write_all(b"after").unwrap();
        end(&client);
        client
    });
    // The sender is ahead of the pipe from now on: the end arrives before the byte is met.
    balancer.metrics_until("a pipe holds bytes", |metrics| {
        metrics.value("evenkeel_pipes_in_use", &[]) > 0.0
    });
    let (got, ending) = read_out(&peer);
    assert_eq!((got.len(), ending), (length + 5, Ending::Orderly));
    assert!(got.ends_with(b"..after"));
    drop((sender.join().unwrap(), peer));
    balancer.books_balance();
}

/// Sends `length` bytes, an urgent one behind them, and the end (FIN).
fn send_urgent_end(mut stream: &TcpStream, length: usize) {
    stream.write_all(&vec![b'.'; length]).unwrap();
    SockRef::from(stream).send_out_of_band(b"!").unwrap();
    end(stream);
}

/// A close with the urgent byte unread would be a reset, which destroys what the peer has not read
/// yet.
#[test]
fn an_urgent_byte_just_before_the_end_resets_neither_side() {
    const SESSIONS: usize = 100; // for each length
    let place = Place::new(); // case 17
    let (sender, at_server) = mpsc::channel();
    let server = Server::start(place.port(9001), move |stream| {
        let mut length = [0; 4];
        (&stream).read_exact(&mut length).unwrap();
        let length = u32::from_le_bytes(length) as usize;
        send_urgent_end(&stream, length);
        sender.send((length, read_out(&stream))).unwrap();
    });
    let balancer = start(&place, &server);
    // Copied, and spliced.
    for length in [5_000, 200_000] {
        for _ in 0..SESSIONS {
            let client = connect(place.frontend());
            (&client).write_all(&u32::try_from(length).unwrap().to_le_bytes()).unwrap();
            send_urgent_end(&client, length);
            let (sent, (heard, ending)) = at_server.recv().unwrap();
            assert_eq!((heard.len(), ending), (length, Ending::Orderly), "at the server");
            // The session is over at the balancer: what is unread waits in the client's kernel.
            let (answer, ending) = read_out(&client);
            assert_eq!((answer.len(), ending), (sent, Ending::Orderly), "at the client");
        }
    }
    assert_eq!(balancer.books_balance().closed("done"), 2.0 * SESSIONS as f64);
}
