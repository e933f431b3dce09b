//! Readers that stop: each slows its own session alone. Bytes that wait belong in the socket
//! buffers of the kernel, and the buffers of a worker stay free for sessions that move.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use socket2::SockRef;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{Ending, connect, end, exchange, read_out};
use crate::common::server::BlackHole;
use crate::common::wait::{PATIENCE, holds_for, until};
use crate::common::{Balancer, Config, Place, Server};

/// Starts the balancer as under `ulimit -n 2048`, which allows about 780 sessions.
fn start_with_2048_descriptors<'a>(place: &'a Place, config: &Config) -> Balancer<'a> {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=2048:2048", PROGRAM, "run", "-c"]);
    command.arg(write_config(place, &config.text()));
    Balancer::start_command(place, command)
}

/// Writes until no client can write any more.
fn fill(clients: &[TcpStream]) {
    for client in clients {
        SockRef::from(client).set_recv_buffer_size(4096).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let write = |mut client: &TcpStream| {
        (0..).take_while(|_| client.write(&[9; 64 * 1024]).is_ok()).count()
    };
    let mut calm = 0;
    until("no client can write any more", || {
        calm = if clients.iter().map(write).sum::<usize>() == 0 { calm + 1 } else { 0 };
        calm == 20
    });
}

fn holds_sessions(balancer: &Balancer<'_>) -> bool {
    balancer.metrics().sum("evenkeel_sessions_active", &[]) > 0.0
}

#[test]
fn five_hundred_clients_that_write_and_never_read_slow_nobody_else() {
    let place = Place::alone();
    let server = Server::echo(place.port(9001));
    let balancer =
        start_with_2048_descriptors(&place, &Config::new(&place).server("a", server.address));
    let established: Vec<TcpStream> = (0..10).map(|_| connect(place.frontend())).collect();
    for client in &established {
        assert_eq!(exchange(client, b"before"), b"before");
    }
    let stopped: Vec<TcpStream> = (0..500).map(|_| connect(place.frontend())).collect();
    fill(&stopped);
    for client in &established {
        assert_eq!(exchange(client, &[7; 30_000]), [7; 30_000]);
    }
    for _ in 0..20 {
        let client = connect(place.frontend());
        assert_eq!(exchange(&client, &[8; 30_000]), [8; 30_000]);
    }
    let metrics = balancer.metrics();
    assert_eq!(metrics.closed("exhausted"), 0.0, "every session goes on");
    let buffers = metrics.value("evenkeel_buffers", &[]);
    let in_use = metrics.value("evenkeel_buffers_in_use", &[]);
    assert!(in_use < 0.8 * buffers, "{in_use} of {buffers} buffers are held");
    assert_eq!(metrics.value("evenkeel_buffers_stalled", &[]), 1.0);
    assert!(balancer.complaints().contains("do not read"), "{}", balancer.complaints());
    drop((established, stopped));
    // What the clients sent before they left is still delivered: megabytes of each.
    for _ in 0..3 {
        if holds_sessions(&balancer) {
            holds_for(PATIENCE, || holds_sessions(&balancer));
        }
    }
    balancer.books_balance();
}

#[test]
fn four_hundred_slow_downloads_fit_into_four_mebibytes_and_lose_no_byte() {
    const LENGTH: usize = 8 << 20;
    let place = Place::alone();
    let server = Server::start(place.port(9001), |mut stream| {
        drop(stream.read(&mut [0; 16]));
        // Its client stops for as long as the test takes.
        stream.set_write_timeout(None).unwrap();
        // Another byte in each chunk, so that a chunk that is lost is seen.
        for number in 0..LENGTH >> 16 {
            if stream.write_all(&[u8::try_from(number).unwrap(); 1 << 16]).is_err() {
                return;
            }
        }
        end(&stream);
        drop(read_out(&stream));
    });
    let config = Config::new(&place).global("buffers = \"4MiB\"").server("a", server.address);
    let balancer = Balancer::start(&place, &config);
    let download = || {
        let mut client = connect(place.frontend());
        // Forty of them are read at a time, on a machine that may be busy.
        client.set_read_timeout(Some(6 * PATIENCE)).unwrap();
        client.write_all(b"?").unwrap();
        client
    };
    let stopped: Vec<TcpStream> = (0..400).map(|_| download()).collect();
    let read = |client: &TcpStream| {
        let (bytes, ending) = read_out(client);
        assert_eq!((bytes.len(), ending), (LENGTH, Ending::Orderly));
        assert!((0..LENGTH).step_by(4096).all(|at| usize::from(bytes[at]) == at >> 16));
    };
    for _ in 0..10 {
        read(&download());
    }
    assert_eq!(balancer.metrics().closed("exhausted"), 0.0, "every session goes on");
    // Those that stopped read again: nothing was lost meanwhile.
    // All at once: the kernel of the server retries the longer, the longer a reader has stopped.
    thread::scope(|scope| {
        for client in stopped.iter().step_by(10) {
            scope.spawn(move || read(client));
        }
    });
    drop(stopped);
    balancer.books_balance();
}

#[test]
fn sessions_that_hold_every_buffer_end_as_exhausted_and_others_are_served() {
    let place = Place::new();
    let hole = BlackHole::open(place.port(9001));
    let server = Server::echo(place.port(9002));
    // 20 clients send before their server is connected, and there are 8 buffers.
    let config = Config::new(&place).global("buffers = \"128KiB\"");
    let config = config
        .backend("connect_timeout = \"10s\"\nretries = 0")
        .server("a", hole.address)
        .more(&format!(
            "[frontend.other]\nbind = [\"{}\"]\nbackend = \"other\"\n[backend.other.health]\n\
             check = \"off\"\n[[backend.other.server]]\nname = \"b\"\naddress = \"{}\"\n",
            place.port(8081),
            server.address
        ));
    let balancer = Balancer::start(&place, &config);
    let mut stuck: Vec<TcpStream> = (0..20).map(|_| connect(place.frontend())).collect();
    balancer.metrics_until("all are connecting", |metrics| {
        metrics.sum("evenkeel_sessions_active", &[]) == 20.0
    });
    for client in &mut stuck {
        client.write_all(&[1; 16 * 1024]).unwrap();
    }
    let client = connect(place.port(8081));
    for _ in 0..20 {
        assert_eq!(exchange(&client, b"unhurt"), b"unhurt");
    }
    balancer.session_ended("RC exhausted");
    let metrics = balancer.metrics();
    assert!(metrics.closed("exhausted") < 20.0, "no more end than is needed");
    assert!(balancer.complaints().contains("global.buffers"), "{}", balancer.complaints());
    drop((client, stuck));
    balancer.books_balance();
}
