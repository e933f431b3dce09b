//! Clients that stop reading: each slows only its own session. Unread bytes wait in the socket
//! buffers of the kernel, and the buffers of a worker stay free for other sessions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{Ending, connect, exchange, fill, read_to_end, shut_down};
use crate::common::server::BlackHole;
use crate::common::wait::{TIMEOUT, holds_for};
use crate::common::{Balancer, Config, Server, TestEnv};

/// Starts the balancer with 2,048 descriptors, which allow about 780 sessions.
fn start_with_2048_descriptors<'a>(env: &'a TestEnv, config: &Config) -> Balancer<'a> {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=2048:2048", PROGRAM, "run", "-c"]);
    command.arg(write_config(env, &config.text()));
    Balancer::start_command(env, command)
}

fn has_sessions(balancer: &Balancer<'_>) -> bool {
    balancer.metrics().sum("evenkeel_sessions_active", &[]) > 0.0
}

#[test]
fn five_hundred_clients_that_write_and_never_read_do_not_slow_others() {
    let env = TestEnv::exclusive();
    let server = Server::echo(env.port(9001));
    let balancer =
        start_with_2048_descriptors(&env, &Config::new(&env).server("a", server.address));
    let established: Vec<TcpStream> = (0..10).map(|_| connect(env.frontend())).collect();
    for client in &established {
        assert_eq!(exchange(client, b"before"), b"before");
    }
    let stopped: Vec<TcpStream> = (0..500).map(|_| connect(env.frontend())).collect();
    fill(&stopped, 4096);
    for client in &established {
        assert_eq!(exchange(client, &[7; 30_000]), [7; 30_000]);
    }
    for _ in 0..20 {
        let client = connect(env.frontend());
        assert_eq!(exchange(&client, &[8; 30_000]), [8; 30_000]);
    }
    let metrics = balancer.metrics();
    assert_eq!(metrics.closed("exhausted"), 0.0, "every session continues");
    let buffers = metrics.value("evenkeel_buffers", &[]);
    let in_use = metrics.value("evenkeel_buffers_in_use", &[]);
    assert!(in_use < 0.8 * buffers, "{in_use} of {buffers} buffers are held");
    assert_eq!(metrics.value("evenkeel_buffers_stalled", &[]), 1.0);
    assert!(balancer.application_log().contains("do not read"), "{}", balancer.application_log());
    drop((established, stopped));
    // What the clients sent before they closed is still delivered: megabytes of each.
    for _ in 0..3 {
        if has_sessions(&balancer) {
            holds_for(TIMEOUT, || has_sessions(&balancer));
        }
    }
    balancer.assert_no_leaks();
}

#[test]
fn four_hundred_stopped_downloads_fit_into_four_mebibytes_of_buffers_and_lose_no_byte() {
    const LENGTH: usize = 8 << 20;
    let env = TestEnv::exclusive();
    let server = Server::start(env.port(9001), |mut stream| {
        drop(stream.read(&mut [0; 16]));
        // Its client may stop reading for the whole test.
        stream.set_write_timeout(None).unwrap();
        // Each chunk has another byte, so that a missing chunk is noticed.
        for number in 0..LENGTH >> 16 {
            if stream.write_all(&[u8::try_from(number).unwrap(); 1 << 16]).is_err() {
                return;
            }
        }
        shut_down(&stream);
        drop(read_to_end(&stream));
    });
    let config = Config::new(&env).global("buffers = \"4MiB\"").server("a", server.address);
    let balancer = Balancer::start(&env, &config);
    let download = || {
        let mut client = connect(env.frontend());
        // Forty are read in parallel, on a machine that may be busy.
        client.set_read_timeout(Some(6 * TIMEOUT)).unwrap();
        client.write_all(b"?").unwrap();
        client
    };
    let stopped: Vec<TcpStream> = (0..400).map(|_| download()).collect();
    let read = |client: &TcpStream| {
        let (bytes, ending) = read_to_end(client);
        assert_eq!((bytes.len(), ending), (LENGTH, Ending::Orderly));
        assert!((0..LENGTH).step_by(4096).all(|at| usize::from(bytes[at]) == at >> 16));
    };
    for _ in 0..10 {
        read(&download());
    }
    assert_eq!(balancer.metrics().closed("exhausted"), 0.0, "every session continues");
    // The stopped clients read again, and nothing was lost. They do so in parallel: the interval of
    // the server's window probes grows with the time that a client has stopped.
    thread::scope(|scope| {
        for client in stopped.iter().step_by(10) {
            scope.spawn(move || read(client));
        }
    });
    drop(stopped);
    balancer.assert_no_leaks();
}

#[test]
fn clients_that_send_before_their_server_is_connected_leave_buffers_for_others() {
    let env = TestEnv::new();
    let hole = BlackHole::open(env.port(9001));
    let server = Server::echo(env.port(9002));
    // 20 clients send before their server is connected, and there are only 8 buffers.
    let config = Config::new(&env).global("buffers = \"128KiB\"");
    let config = config
        .backend("connect_timeout = \"10s\"\nretries = 0")
        .server("a", hole.address)
        .more(&format!(
            "[frontend.other]\nbind = [\"{}\"]\nbackend = \"other\"\n[backend.other.health]\n\
             check = \"off\"\n[[backend.other.server]]\nname = \"b\"\naddress = \"{}\"\n",
            env.port(8081),
            server.address
        ));
    let balancer = Balancer::start(&env, &config);
    let mut stuck: Vec<TcpStream> = (0..20).map(|_| connect(env.frontend())).collect();
    for client in &mut stuck {
        client.write_all(&[1; 16 * 1024]).unwrap();
    }
    let client = connect(env.port(8081));
    for _ in 0..20 {
        assert_eq!(exchange(&client, b"goes on"), b"goes on");
    }
    // A burst may hold all 8 at once; then some sessions are closed for the others.
    assert!(balancer.metrics().closed("exhausted") < 20.0, "no more are closed than necessary");
    drop((client, stuck));
    balancer.assert_no_leaks();
}
