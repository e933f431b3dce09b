//! Resets in the middle of traffic: a reader never sees an orderly end of a stream that was cut
//! short, and a late reader still gets all that was sent before the reset.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::terms::Side;
use nix::sys::signal::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::client::{
    Ending, connect, is_reset, read_to_end, reset, set_timeouts, shut_down, unacknowledged,
};
use crate::common::wait::{holds_for, pause, until};
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::sessions::listed;

/// What a peer sends before it resets.
const LENGTH: usize = 200_000;

/// Sessions of each of the first two tests; `EVENKEEL_RESETS` sets another number.
fn sessions() -> usize {
    let number = std::env::var("EVENKEEL_RESETS").ok().and_then(|text| text.parse().ok());
    number.unwrap_or(4000)
}

/// Runs `session` as often as `sessions` says, from four threads.
fn many(session: impl Fn() + Sync) {
    let started = AtomicUsize::new(0);
    let run = || {
        while started.fetch_add(1, Ordering::Relaxed) < sessions() {
            session();
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
}

/// Sends small pieces while it reads, until either fails or the stream ends: the number of bytes
/// read, and how the stream ended. A failed send is a reset too: the kernel reports it once, to a
/// send or to a read.
fn read_and_send(mut stream: &TcpStream) -> (usize, Ending) {
    stream.set_nonblocking(true).unwrap();
    let (mut read, mut chunk) = (0, vec![0; 64 * 1024]);
    loop {
        match stream.write(&[5; 700]) {
            Err(error) if is_reset(&error) => return (read, Ending::Reset),
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
            _ => {}
        }
        match stream.read(&mut chunk) {
            Ok(0) => return (read, Ending::Orderly),
            Ok(count) => read += count,
            Err(error) if is_reset(&error) => return (read, Ending::Reset),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads a little, sends `LENGTH` bytes and resets.
fn send_and_reset(mut stream: TcpStream) {
    if stream.read(&mut [0; 100]).is_ok_and(|read| read > 0) {
        drop(stream.write_all(&[6; LENGTH]));
        reset(stream);
    }
}

#[test]
fn a_client_that_still_sends_never_sees_an_orderly_end_of_a_reset_answer() {
    let env = TestEnv::new(); // case 22
    let server = Server::start(env.port(9001), send_and_reset);
    let balancer = Balancer::start(&env, &Config::new(&env).workers(2).server("a", server.address));
    let whole = AtomicUsize::new(0);
    many(|| {
        let (_, ending) = read_and_send(&connect(env.frontend()));
        whole.fetch_add(usize::from(ending == Ending::Orderly), Ordering::Relaxed);
    });
    assert_eq!(whole.into_inner(), 0, "clients that read an orderly end");
    balancer.assert_no_leaks();
}

#[test]
fn a_server_that_still_sends_never_sees_an_orderly_end_of_a_reset_upload() {
    let env = TestEnv::new();
    let (whole, counter) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&whole);
    let ended = Arc::clone(&counter);
    let server = Server::start(env.port(9001), move |stream| {
        let (_, ending) = read_and_send(&stream);
        seen.fetch_add(usize::from(ending == Ending::Orderly), Ordering::Relaxed);
        ended.fetch_add(1, Ordering::Relaxed);
    });
    let balancer = Balancer::start(&env, &Config::new(&env).workers(2).server("a", server.address));
    many(|| send_and_reset(connect(env.frontend())));
    balancer.assert_no_leaks();
    let accepted = server.accepted();
    until("every server has seen the end", || counter.load(Ordering::Relaxed) == accepted);
    assert_eq!(whole.load(Ordering::Relaxed), 0, "servers that read an orderly end");
}

/// Sent before a reset: more than the kernel of the reader takes, and less than evenkeel's kernel
/// holds for it.
const MIB: usize = 1 << 20;

/// A server at evenkeel, and the side of its only session that will send and reset.
struct Scene<'a> {
    balancer: Balancer<'a>,
    _server: Server,
    resetting: Side,
}

/// Opens a session: the connection of the side that will reset it, and that of the other side, the
/// reader, with a receive buffer of 16 KiB.
fn open<'a>(
    env: &'a TestEnv,
    config: Config,
    resetting: Side,
) -> (Scene<'a>, TcpStream, TcpStream) {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = TcpListener::bind(env.port(9001)).unwrap();
    // Before the handshake, so that the peer limits its segments to a part of the window.
    match resetting {
        Side::Client => SockRef::from(&listener).set_recv_buffer_size(16 * 1024).unwrap(),
        Side::Server => client.set_recv_buffer_size(16 * 1024).unwrap(),
    }
    let (connections, accepted) = mpsc::channel();
    let server = Server::with(listener, move |stream| drop(connections.send(stream)));
    let balancer = Balancer::start(env, &config.server("a", server.address));
    client.connect(&env.frontend().into()).unwrap();
    let client = TcpStream::from(client);
    set_timeouts(&client);
    let (sender, reader) = match resetting {
        Side::Client => (client, accepted.recv().unwrap()),
        Side::Server => (accepted.recv().unwrap(), client),
    };
    (Scene { balancer, _server: server, resetting }, sender, reader)
}

impl Scene<'_> {
    /// Waits until the session has ended with the reset as the reason: the bytes that the log
    /// counts in the direction of the reader.
    #[track_caller]
    fn logged(&self) -> usize {
        let (reason, direction) = match self.resetting {
            Side::Client => ("CD client_reset", 0),
            Side::Server => ("SD server_reset", 1),
        };
        let record = self.balancer.session_ended(reason);
        let bytes = record.split(' ').nth(5).and_then(|both| both.split('/').nth(direction));
        bytes.unwrap_or_else(|| panic!("{record}")).parse().unwrap()
    }

    /// From then on the session waits for the acknowledgements of the reader alone.
    #[track_caller]
    fn until_the_reset_is_seen(&self) {
        until("the session is closing", || {
            let sessions = listed(&self.balancer);
            assert_eq!(sessions.len(), 1, "{sessions:?}");
            sessions[0]["state"] == "closing"
        });
    }

    #[track_caller]
    fn until_a_pipe_holds_bytes(&self) {
        self.balancer.metrics_until("a pipe holds bytes", |metrics| {
            metrics.value("evenkeel_pipes_in_use", &[]) > 0.0
        });
    }
}

/// Bytes in a repeated sequence, so that missing bytes and a wrong order are noticed.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Sends `MIB` bytes, and waits until evenkeel's kernel has acknowledged them: a reset destroys
/// what it has not.
#[track_caller]
fn send_mebibyte(mut stream: &TcpStream) {
    stream.write_all(&pattern(MIB)).unwrap();
    until("everything is acknowledged", || unacknowledged(stream) == 0);
}

/// Sends until no byte is taken any more: how many bytes evenkeel's kernel has acknowledged.
#[track_caller]
fn send_until_full(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let chunk = pattern(251 * 256);
    let (mut written, mut acknowledged, mut unchanged) = (0, 0, 0);
    until("no byte is taken any more", || {
        while let Ok(count) = stream.write(&chunk[written % chunk.len()..]) {
            written += count;
        }
        let now = written - unacknowledged(stream);
        unchanged = if now == acknowledged { unchanged + 1 } else { 0 };
        acknowledged = now;
        // Half a second: longer than acknowledgements are delayed (200 ms), and longer than the
        // first probe of a closed window waits.
        unchanged == 50
    });
    acknowledged
}

#[test]
fn a_reset_comes_after_all_that_was_sent_before_it_however_late_the_reader_is() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let (scene, mut sender, mut reader) = open(&env, Config::new(&env), side);
        reader.write_all(&[5; 100_000]).unwrap();
        sender.read_exact(&mut [0; 1000]).unwrap();
        send_mebibyte(&sender);
        // What it has not read turns the close into a reset.
        drop(sender);
        pause(Duration::from_millis(1500));
        let (bytes, ending) = read_to_end(&reader);
        assert_eq!((bytes.len(), ending), (MIB, Ending::Reset), "{side:?}");
        assert!(bytes == pattern(MIB), "{side:?}");
        assert_eq!(scene.logged(), MIB, "{side:?}");
        drop(reader);
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_reset_comes_after_all_that_is_spliced_and_all_that_waits_in_sockets() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let (scene, sender, reader) = open(&env, Config::new(&env), side);
        let acknowledged = send_until_full(&sender);
        scene.until_a_pipe_holds_bytes();
        reset(sender);
        let (bytes, ending) = read_to_end(&reader);
        assert_eq!((bytes.len(), ending), (acknowledged, Ending::Reset), "{side:?}");
        assert!(bytes == pattern(acknowledged), "{side:?}");
        assert_eq!(scene.logged(), acknowledged, "{side:?}");
        drop(reader);
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_drain_delivers_all_that_was_sent_before_a_reset() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let config = Config::new(&env).global("drain_timeout = \"15s\"");
        let (mut scene, sender, reader) = open(&env, config, side);
        send_mebibyte(&sender);
        reset(sender);
        scene.until_the_reset_is_seen();
        scene.balancer.signal(Signal::SIGTERM);
        until("the drain has begun", || scene.balancer.application_log().contains("draining for"));
        let (bytes, ending) = read_to_end(&reader);
        assert_eq!((bytes.len(), ending), (MIB, Ending::Reset), "{side:?}");
        assert!(bytes == pattern(MIB), "{side:?}");
        assert!(scene.balancer.wait().success(), "{side:?}");
        assert_eq!(scene.logged(), MIB, "{side:?}");
    }
}

/// The session has ended, and the reader has read nothing so far: the log counts what it can still
/// read, which is what its kernel has acknowledged.
#[track_caller]
fn assert_cut_off(scene: &Scene<'_>, reader: &TcpStream) {
    let logged = scene.logged();
    let (bytes, ending) = read_to_end(reader);
    assert_eq!((bytes.len(), ending), (logged, Ending::Reset), "{:?}", scene.resetting);
    assert!(0 < logged && logged < MIB, "{logged} bytes: {:?}", scene.resetting);
    assert!(bytes == pattern(logged), "{:?}", scene.resetting);
}

#[test]
fn a_reset_waits_for_a_reader_that_never_reads_until_the_half_closed_timeout() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let config = Config::new(&env).frontend("half_closed_timeout = \"500ms\"");
        let (scene, sender, reader) = open(&env, config, side);
        send_mebibyte(&sender);
        let begun = Instant::now();
        reset(sender);
        assert_cut_off(&scene, &reader);
        assert!(begun.elapsed() >= Duration::from_millis(500), "{side:?}: {:?}", begun.elapsed());
        drop(reader);
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_reset_of_a_spliced_stream_waits_until_the_half_closed_timeout_too() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let config = Config::new(&env).frontend("half_closed_timeout = \"500ms\"");
        let (scene, sender, reader) = open(&env, config, side);
        send_until_full(&sender);
        scene.until_a_pipe_holds_bytes();
        let begun = Instant::now();
        // The worker does not read from the sender while the pipe is full.
        reset(sender);
        assert_cut_off(&scene, &reader);
        assert!(begun.elapsed() >= Duration::from_millis(500), "{side:?}: {:?}", begun.elapsed());
        drop(reader);
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_reset_behind_an_end_does_not_end_the_session_of_a_reader_that_pauses() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let config = Config::new(&env).frontend("half_closed_timeout = \"500ms\"");
        let (scene, mut sender, reader) = open(&env, config, side);
        let chunk = pattern(251 * 256);
        let mut written = 0;
        let mut send = || {
            sender.write_all(&chunk).unwrap();
            written += chunk.len();
            until("it is acknowledged", || unacknowledged(&sender) == 0);
        };
        let in_pipe = || scene.balancer.metrics().value("evenkeel_pipes_in_use", &[]) > 0.0;
        until("a pipe holds bytes", || {
            send();
            holds_for(Duration::from_millis(100), in_pipe)
        });
        // Into the socket that the worker does not read.
        send();
        shut_down(&sender);
        until("the end is acknowledged", || unacknowledged(&sender) == 0);
        reset(sender);
        let runs = || scene.balancer.sessions().is_empty();
        assert!(holds_for(Duration::from_millis(1500), runs), "{:?}", scene.balancer.sessions());
        let (bytes, ending) = read_to_end(&reader);
        assert_eq!((bytes.len(), ending), (written, Ending::Orderly), "{side:?}");
        drop(reader);
        scene.balancer.session_ended("-- done");
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_reset_of_a_stream_that_is_copied_is_seen_while_the_server_reads_nothing() {
    let env = TestEnv::new();
    let path = env.file("server.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let config = Config::new(&env).frontend("half_closed_timeout = \"500ms\"");
    let server =
        format!("[[backend.web.server]]\nname = \"a\"\naddress = \"unix:{}\"", path.display());
    let balancer = Balancer::start(&env, &config.more(&server));
    let client = connect(env.frontend());
    let (_reader, _) = listener.accept().unwrap();
    send_until_full(&client);
    assert_eq!(balancer.metrics().value("evenkeel_pipes_in_use", &[]), 0.0);
    reset(client);
    balancer.session_ended("CD client_reset");
    balancer.assert_no_leaks();
}

#[test]
fn a_drain_that_times_out_cuts_off_what_was_sent_before_a_reset() {
    for side in Side::BOTH {
        let env = TestEnv::new();
        let config = Config::new(&env).global("drain_timeout = \"500ms\"");
        let (mut scene, sender, reader) = open(&env, config, side);
        send_mebibyte(&sender);
        reset(sender);
        // The first reason is the one that counts.
        scene.until_the_reset_is_seen();
        scene.balancer.signal(Signal::SIGTERM);
        assert!(scene.balancer.wait().success(), "{side:?}");
        assert_cut_off(&scene, &reader);
    }
}

#[test]
fn an_end_that_is_not_acknowledged_does_not_count_as_a_byte() {
    let env = TestEnv::new();
    let config = Config::new(&env).frontend("half_closed_timeout = \"5s\"");
    let (scene, client, mut server) = open(&env, config, Side::Client);
    (&client).write_all(&pattern(MIB)).unwrap();
    shut_down(&client);
    until("everything is acknowledged", || unacknowledged(&client) == 0);
    reset(client);
    // The end was passed on, and nothing is received behind it: the worker learns of the reset when
    // it sends.
    server.write_all(b"?").unwrap();
    assert_cut_off(&scene, &server);
    drop(server);
    scene.balancer.assert_no_leaks();
}
