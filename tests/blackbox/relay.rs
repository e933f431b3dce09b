//! Relaying: every byte arrives, in order, and each direction has its own end.

use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::common::client::{Ending, connect, exchange, read_to_end, shut_down, unacknowledged};
use crate::common::server::BlackHole;
use crate::common::wait::{pause, until};
use crate::common::{Balancer, Config, Server, TestEnv};

const MIB: usize = 1 << 20;

/// Pseudo-random bytes, the same for the same seed (xorshift64).
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

/// Sends `total` pseudo-random bytes and shuts down: their checksum.
fn pour(mut stream: &TcpStream, seed: u64, total: usize) -> u64 {
    let (mut noise, mut sum) = (Noise(seed), std::hash::DefaultHasher::new());
    let mut chunk = vec![0; 64 * 1024];
    for start in (0..total).step_by(chunk.len()) {
        let count = chunk.len().min(total - start);
        noise.fill(&mut chunk[..count]);
        sum.write(&chunk[..count]);
        stream.write_all(&chunk[..count]).unwrap();
    }
    shut_down(stream);
    sum.finish()
}

/// Reads until the stream ends: the length and the checksum.
fn drain(mut stream: &TcpStream) -> (usize, u64) {
    let mut sum = std::hash::DefaultHasher::new();
    let (mut chunk, mut kept, mut total) = (vec![0; 64 * 1024], 0, 0);
    loop {
        let count = stream.read(&mut chunk[kept..]).unwrap();
        kept += count;
        total += count;
        // The checksum depends on the length of the chunks: both sides use whole chunks.
        if kept == chunk.len() || count == 0 {
            sum.write(&chunk[..kept]);
            kept = 0;
        }
        if count == 0 {
            return (total, sum.finish());
        }
    }
}

fn start<'a>(env: &'a TestEnv, server: &Server) -> Balancer<'a> {
    Balancer::start(env, &Config::new(env).server("a", server.address))
}

#[test]
fn sixty_four_mebibytes_arrive_unchanged_in_both_directions_at_once() {
    let env = TestEnv::new();
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
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
    let metrics = balancer.assert_no_leaks();
    let bytes = |direction| metrics.value("evenkeel_bytes_total", &[("direction", direction)]);
    assert_eq!((bytes("in"), bytes("out")), ((64 * MIB) as f64, (64 * MIB) as f64));
    assert_eq!(metrics.closed("done"), 1.0);
}

#[test]
fn a_client_that_has_shut_down_still_gets_the_whole_answer() {
    let env = TestEnv::new(); // case 3
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let mut client = connect(env.frontend());
    client.write_all(b"a question").unwrap();
    shut_down(&client);
    let peer = connections.recv().unwrap();
    assert_eq!(read_to_end(&peer), (b"a question".to_vec(), Ending::Orderly));
    let answered = thread::scope(|scope| {
        let sum = scope.spawn(|| pour(&peer, 3, 8 * MIB));
        drain(&client) == (8 * MIB, sum.join().unwrap())
    });
    assert!(answered);
    balancer.session_ended("-- done");
    balancer.assert_no_leaks();
}

#[test]
fn a_server_that_has_shut_down_still_gets_everything_that_is_sent() {
    let env = TestEnv::new();
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
    let peer = connections.recv().unwrap();
    (&peer).write_all(b"an answer").unwrap();
    shut_down(&peer);
    assert_eq!(read_to_end(&client), (b"an answer".to_vec(), Ending::Orderly));
    let stored = thread::scope(|scope| {
        let sum = scope.spawn(|| pour(&client, 4, 8 * MIB));
        drain(&peer) == (8 * MIB, sum.join().unwrap())
    });
    assert!(stored);
    balancer.session_ended("-- done");
    balancer.assert_no_leaks();
}

#[test]
fn a_server_may_send_first() {
    let env = TestEnv::new(); // case 27
    let server = Server::naming("220 ready", env.port(9001));
    let balancer = start(&env, &server);
    let mut client = connect(env.frontend());
    let mut banner = [0; 9];
    client.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"220 ready");
    drop(client);
    balancer.assert_no_leaks();
}

#[test]
fn bytes_and_an_end_from_before_the_server_is_connected_are_delivered() {
    let env = TestEnv::new(); // case 5
    let hole = BlackHole::open(env.port(9001));
    let config = Config::new(&env).backend("connect_timeout = \"10s\"");
    let balancer = Balancer::start(&env, &config.server("a", hole.address));
    let mut client = connect(env.frontend());
    client.write_all(b"early").unwrap();
    shut_down(&client);
    balancer.metrics_until("the session is connecting", |metrics| {
        metrics.sum("evenkeel_sessions_active", &[]) == 1.0
    });
    let _server = hole.become_server(|stream| crate::common::server::echo(&stream));
    assert_eq!(read_to_end(&client), (b"early".to_vec(), Ending::Orderly));
    balancer.session_ended("-- done");
    balancer.assert_no_leaks();
}

#[test]
fn single_bytes_are_relayed_at_once() {
    let env = TestEnv::new(); // case 12
    let server = Server::echo(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
    for byte in 0..=255 {
        assert_eq!(exchange(&client, &[byte]), [byte]);
    }
    drop(client);
    assert_eq!(balancer.assert_no_leaks().closed("done"), 1.0);
}

#[test]
fn many_small_writes_to_a_slow_reader_do_not_stall() {
    let env = TestEnv::new(); // case 12
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
    let peer = connections.recv().unwrap();
    SockRef::from(&peer).set_recv_buffer_size(4096).unwrap();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000_u32 {
                let bytes = number.to_le_bytes();
                (&client).write_all(&bytes[..1 + number as usize % 3]).unwrap();
            }
            shut_down(&client);
        });
        pause(Duration::from_millis(300));
        read_to_end(&peer)
    });
    let sent = (0..20_000_u32)
        .flat_map(|number| number.to_le_bytes().into_iter().take(1 + number as usize % 3));
    assert!(received == (sent.collect(), Ending::Orderly));
    drop((client, peer));
    balancer.assert_no_leaks();
}

#[test]
fn a_slow_reader_loses_nothing_and_is_not_idle() {
    let env = TestEnv::new(); // case 11
    let (server, connections) = Server::handing_over(env.port(9001));
    let config = Config::new(&env).frontend("idle_timeout = \"4s\"");
    let balancer = Balancer::start(&env, &config.server("a", server.address));
    let client = connect(env.frontend());
    SockRef::from(&client).set_recv_buffer_size(128 * 1024).unwrap();
    let peer = connections.recv().unwrap();
    let pouring = thread::spawn(move || pour(&peer, 5, 16 * MIB));
    // A quarter of the receive buffer: its window opens about once a second.
    let mut small = vec![0; 64 * 1024];
    for _ in 0..30 {
        // Nine seconds in all: more than twice the idle timeout.
        pause(Duration::from_millis(300));
        (&client).read_exact(&mut small).unwrap();
    }
    let (rest, _) = drain(&client);
    assert_eq!(rest + 30 * small.len(), 16 * MIB);
    pouring.join().unwrap();
    drop(client);
    assert_eq!(balancer.assert_no_leaks().closed("done"), 1.0);
}

#[test]
fn a_client_that_goes_on_sending_gets_the_whole_answer_of_a_server_that_has_closed() {
    let env = TestEnv::new(); // cases 13 and 24
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let mut client = connect(env.frontend());
    client.write_all(&[7; 4096]).unwrap();
    let mut peer = connections.recv().unwrap();
    peer.read_exact(&mut [0; 1]).unwrap();
    peer.write_all(&[42; 128 * 1024]).unwrap();
    shut_down(&peer);
    // Its close with unread bytes is a reset, which destroys what has not left the server.
    until("the answer has left the server", || unacknowledged(&peer) == 0);
    drop(peer);
    for _ in 0..50 {
        // Fails at some point: the server has closed.
        drop(client.write_all(&[7; 4096]));
        pause(Duration::from_millis(2));
    }
    let (bytes, ending) = read_to_end(&client);
    assert_eq!((bytes.len(), ending), (128 * 1024, Ending::Orderly));
    drop(client);
    balancer.assert_no_leaks();
}

#[test]
fn a_late_reader_gets_all_bytes_of_a_server_that_has_closed() {
    let env = TestEnv::new(); // case 23
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
    let peer = connections.recv().unwrap();
    let sum = thread::spawn(move || {
        let sum = pour(&peer, 6, MIB);
        drop(peer);
        sum
    });
    let sum = sum.join().unwrap();
    // The server has closed, and evenkeel holds its bytes.
    assert_eq!(drain(&client), (MIB, sum));
    drop(client);
    balancer.session_ended("-- done");
    balancer.assert_no_leaks();
}

#[test]
fn an_urgent_byte_is_left_out_of_the_stream() {
    let env = TestEnv::new(); // case 17: urgent data is no part of the stream
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
    let peer = connections.recv().unwrap();
    (&client).write_all(b"before ").unwrap();
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    (&client).write_all(b"after").unwrap();
    shut_down(&client);
    assert_eq!(read_to_end(&peer), (b"before after".to_vec(), Ending::Orderly));
    drop((client, peer));
    balancer.assert_no_leaks();
}

#[test]
fn an_urgent_byte_does_not_end_a_spliced_stream() {
    let env = TestEnv::new(); // case 17: splice(2) returns 0 at it, as at the end
    let (server, connections) = Server::handing_over(env.port(9001));
    let balancer = start(&env, &server);
    let client = connect(env.frontend());
    let peer = connections.recv().unwrap();
    let length = 16 * MIB;
    let sender = thread::spawn(move || {
        (&client).write_all(&vec![b'.'; length]).unwrap();
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        (&client).write_all(b"after").unwrap();
        shut_down(&client);
        client
    });
    // From now on the sender is ahead of the pipe: the end arrives before splice(2) reaches the
    // urgent byte.
    balancer.metrics_until("a pipe holds bytes", |metrics| {
        metrics.value("evenkeel_pipes_in_use", &[]) > 0.0
    });
    let (got, ending) = read_to_end(&peer);
    assert_eq!((got.len(), ending), (length + 5, Ending::Orderly));
    assert!(got.ends_with(b"..after"));
    drop((sender.join().unwrap(), peer));
    balancer.assert_no_leaks();
}

/// Sends `length` bytes, an urgent one behind them, and the end (FIN).
fn send_urgent_end(mut stream: &TcpStream, length: usize) {
    stream.write_all(&vec![b'.'; length]).unwrap();
    SockRef::from(stream).send_out_of_band(b"!").unwrap();
    shut_down(stream);
}

/// A close with the urgent byte unread would be a reset, which destroys what the peer has not
/// acknowledged yet.
#[test]
fn an_urgent_byte_just_before_the_end_resets_neither_side() {
    const SESSIONS: usize = 100; // for each length
    let env = TestEnv::new(); // case 17
    let (sender, at_server) = mpsc::channel();
    let server = Server::start(env.port(9001), move |stream| {
        let mut length = [0; 4];
        (&stream).read_exact(&mut length).unwrap();
        let length = u32::from_le_bytes(length) as usize;
        send_urgent_end(&stream, length);
        sender.send((length, read_to_end(&stream))).unwrap();
    });
    let balancer = start(&env, &server);
    // The first length is copied, the second one is spliced.
    for length in [5_000, 200_000] {
        for _ in 0..SESSIONS {
            let client = connect(env.frontend());
            (&client).write_all(&u32::try_from(length).unwrap().to_le_bytes()).unwrap();
            send_urgent_end(&client, length);
            let (sent, (received, ending)) = at_server.recv().unwrap();
            assert_eq!((received.len(), ending), (length, Ending::Orderly), "at the server");
            // The session has ended: unread bytes are in the kernel of the client.
            let (answer, ending) = read_to_end(&client);
            assert_eq!((answer.len(), ending), (sent, Ending::Orderly), "at the client");
        }
    }
    assert_eq!(balancer.assert_no_leaks().closed("done"), 2.0 * SESSIONS as f64);
}
