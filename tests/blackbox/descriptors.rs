//! Descriptors that were open before the start, and a limit that is lowered while evenkeel runs:
//! clients wait, and no session ends for lack of a descriptor.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::connect;
use crate::common::process::Descriptors;
use crate::common::wait::{holds_for, until, until_some};
use crate::common::{Balancer, Config, Server, TestEnv};

/// So many clients, each of which has sent "hello".
fn clients(env: &TestEnv, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(env.frontend())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    clients
}

/// How many have an answer. Panics if one was reset.
#[track_caller]
fn answered(clients: &[TcpStream]) -> usize {
    let is_answered = |client: &&TcpStream| {
        client.set_nonblocking(true).unwrap();
        let peeked = client.peek(&mut [0; 5]);
        client.set_nonblocking(false).unwrap();
        match peeked {
            Ok(0) => panic!("it has ended"),
            Ok(_) => true,
            Err(why) => {
                assert_eq!(why.kind(), std::io::ErrorKind::WouldBlock, "{why}");
                false
            }
        }
    };
    clients.iter().filter(is_answered).count()
}

/// Waits until no further client is served, and returns how many are.
fn settled(clients: &[TcpStream]) -> usize {
    until_some("no further client is served", || {
        let count = answered(clients);
        holds_for(Duration::from_secs(1), || answered(clients) == count).then_some(count)
    })
}

fn limit_descriptors(pid: u32, limit: usize) {
    let arguments = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

#[track_caller]
fn assert_all_served_and_none_exhausted(balancer: &Balancer<'_>, clients: Vec<TcpStream>) {
    let mut waiting = clients;
    until("each client is served", || {
        waiting.retain_mut(|client| {
            client.set_nonblocking(true).unwrap();
            match client.read_exact(&mut [0; 5]) {
                Ok(()) => false,
                Err(why) => {
                    assert_eq!(why.kind(), std::io::ErrorKind::WouldBlock, "{why}");
                    true
                }
            }
        });
        waiting.is_empty()
    });
    assert_eq!(balancer.metrics().closed("exhausted"), 0.0);
}

#[test]
fn descriptors_that_were_open_before_the_start_are_not_for_sessions() {
    let env = TestEnv::exclusive();
    let server = Server::echo(env.port(9001));
    let text = Config::new(&env).server("a", server.address).text();
    let inherited: Vec<OwnedFd> = {
        let null = File::open("/dev/null").unwrap();
        // Not closed at exec(2).
        (0..600).map(|_| nix::unistd::dup(&null).unwrap()).collect()
    };
    let mut command = Command::new("prlimit");
    command.args(["--nofile=1024:1024", PROGRAM, "run", "-c"]).arg(write_config(&env, &text));
    let balancer = Balancer::start_command(&env, command);
    drop(inherited);
    assert!(balancer.base.others > 600, "{:?}", balancer.base);
    let clients = clients(&env, 300);
    let served = settled(&clients);
    assert!((10..200).contains(&served), "{served}");
    assert_all_served_and_none_exhausted(&balancer, clients);
    balancer.assert_no_leaks();
}

#[test]
fn clients_wait_when_the_limit_of_descriptors_is_lowered() {
    // Sessions that have ended, sessions that are open, the limit beyond what is open.
    for (peak, before, limit) in
        [(0, 0, 9), (0, 0, 10), (0, 30, 9), (0, 30, -15), (100, 30, 9), (100, 30, -15)]
    {
        let env = TestEnv::exclusive(); // case 46
        let server = Server::echo(env.port(9001));
        let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
        let mut ended = clients(&env, peak);
        until("they are served", || answered(&ended) == peak);
        ended.clear();
        // The limit is one of numbers: those of the next ones have to be the lowest.
        until("they have ended", || {
            Descriptors::of(balancer.pid()).sockets <= balancer.base.sockets
        });
        let mut all = clients(&env, before);
        until("they are served", || answered(&all) == before);
        let open = i64::try_from(Descriptors::of(balancer.pid()).all()).unwrap();
        let limit = usize::try_from(open + limit).unwrap();
        let (_, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        limit_descriptors(balancer.pid(), limit);
        let at_once = clients(&env, 20);
        assert!(settled(&at_once) <= 5, "limit {limit} of {open}");
        until("the operator is told", || {
            let log = balancer.application_log();
            log.contains("cannot accept") || log.contains("limit of file descriptors")
        });
        all.extend(at_once);
        limit_descriptors(balancer.pid(), usize::try_from(hard).unwrap().min(4096));
        assert_all_served_and_none_exhausted(&balancer, all);
        balancer.assert_no_leaks();
    }
}
