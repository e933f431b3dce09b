//! Resets in the middle of traffic in both directions: no reader takes a stream that was cut short
//! for a whole one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::common::client::{Ending, connect, is_reset, read_out, reset};
use crate::common::wait::pause;
use crate::common::{Balancer, Config, Place, Server};

/// What a peer sends before it resets.
const LENGTH: usize = 200_000;

/// Sessions of each test; more by `EVENKEEL_RESETS`.
fn sessions() -> usize {
    let wanted = std::env::var("EVENKEEL_RESETS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(4000)
}

/// Runs as many sessions as wanted, from four threads.
fn many(session: impl Fn() + Sync) {
    let started = AtomicUsize::new(0);
    let run = || {
        while started.fetch_add(1, Ordering::Relaxed) < sessions() {
            session();
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
}

/// Sends small pieces while it reads, until either fails or the stream ends: how many bytes came,
/// and how it ended. A send that fails is a reset too: the kernel reports that once, to a send or a
/// read.
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
fn no_client_that_still_sends_takes_a_reset_answer_for_a_whole_one() {
    let place = Place::new(); // case 22
    let server = Server::start(place.port(9001), send_and_reset);
    let balancer =
        Balancer::start(&place, &Config::new(&place).workers(2).server("a", server.address));
    let whole = AtomicUsize::new(0);
    many(|| {
        let (_, ending) = read_and_send(&connect(place.frontend()));
        whole.fetch_add(usize::from(ending == Ending::Orderly), Ordering::Relaxed);
    });
    assert_eq!(whole.into_inner(), 0, "clients that read a clean end");
    balancer.books_balance();
}

#[test]
fn no_server_that_still_sends_takes_a_reset_upload_for_a_whole_one() {
    let place = Place::new();
    let (whole, counter) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&whole);
    let ended = Arc::clone(&counter);
    let server = Server::start(place.port(9001), move |stream| {
        let (_, ending) = read_and_send(&stream);
        seen.fetch_add(usize::from(ending == Ending::Orderly), Ordering::Relaxed);
        ended.fetch_add(1, Ordering::Relaxed);
    });
    let balancer =
        Balancer::start(&place, &Config::new(&place).workers(2).server("a", server.address));
    many(|| send_and_reset(connect(place.frontend())));
    balancer.books_balance();
    let accepted = server.accepted();
    crate::common::wait::until("every server has seen the end", || {
        counter.load(Ordering::Relaxed) == accepted
    });
    assert_eq!(whole.load(Ordering::Relaxed), 0, "servers that read a clean end");
}

#[test]
fn a_reset_comes_after_all_that_was_sent_before_it_however_late_the_reader_is() {
    const ANSWER: usize = 1 << 20;
    let place = Place::new();
    let server = Server::start(place.port(9001), |mut stream| {
        stream.read_exact(&mut [0; 1000]).unwrap();
        stream.write_all(&[6; ANSWER]).unwrap();
        // The answer has left this host; what it has not read turns the close into a reset.
        pause(Duration::from_millis(100));
    });
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", server.address));
    let mut client = connect(place.frontend());
    SockRef::from(&client).set_recv_buffer_size(16 * 1024).unwrap();
    client.write_all(&[5; 100_000]).unwrap();
    pause(Duration::from_millis(1500));
    let (answer, ending) = read_out(&client);
    assert_eq!((answer.len(), ending), (ANSWER, Ending::Reset));
    let record = balancer.session_ended("SD server_reset");
    assert!(record.contains(&format!("/{ANSWER} ")), "{record}");
    drop(client);
    balancer.books_balance();
}
