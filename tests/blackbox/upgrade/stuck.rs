//! Sockets that another process has, too, while a worker is stuck. The tests stop one thread, as a
//! debugger does ("frozen").

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::service_manager::with_passed;
use super::*;
use crate::common::client::{connect, exchange};
use crate::common::frozen::Frozen;
use crate::common::process::is_stopped;
use crate::common::wait::holds_for;
use crate::common::{echoing, skip};

const NO_PTRACE: &str = "a thread cannot be stopped here (ptrace(2))";

/// Whether the server has answered.
fn is_served(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let served = client.peek(&mut [0]).is_ok();
    client.set_nonblocking(false).unwrap();
    served
}

#[test]
fn a_process_that_was_replaced_takes_no_client_that_waits_for_its_stuck_worker() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let mut chain = Chain::start(&env, &config.workers(2).global("drain_timeout = \"1h\""));
    let Some(frozen) = Frozen::thread(chain.pid(), "worker-1") else {
        let test = "a_process_that_was_replaced_takes_no_client_that_waits_for_its_stuck_worker";
        return skip(test, NO_PTRACE);
    };
    chain.logged(" is stuck: ");
    // The other worker does not end.
    let session = connect(env.frontend());
    assert_eq!(exchange(&session, b"in"), b"in");
    chain.upgrade();
    // What the new process does not accept waits in the queues of the sockets.
    chain.signal(1, Signal::SIGSTOP);
    until("every thread of it has stopped", || is_stopped(chain.pid()));
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(env.frontend())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    let nobody_is_served = || !clients.iter().any(is_served);
    assert!(holds_for(Duration::from_secs(2), nobody_is_served), "the old process serves them");
    chain.signal(1, Signal::SIGCONT);
    for client in &mut clients {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    drop((frozen, session));
    chain.ended(0);
}

#[test]
fn a_reload_beside_a_stuck_worker_stops_no_socket_of_a_service_manager() {
    let env = TestEnv::exclusive();
    let (config, _server) = echoing(&env);
    let config = config.workers(2);
    let passed = TcpListener::bind(env.frontend()).unwrap();
    let chain = with_passed(&env, &config, &[&passed], "web");
    let Some(frozen) = Frozen::thread(chain.pid(), "worker-0") else {
        let test = "a_reload_beside_a_stuck_worker_stops_no_socket_of_a_service_manager";
        return skip(test, NO_PTRACE);
    };
    chain.logged(" is stuck: ");
    chain.reload(&config.bind(env.port(8001)));
    let listens = || SockRef::from(&passed).is_listener().unwrap();
    assert!(holds_for(Duration::from_secs(2), listens), "it is stopped");
    // Meanwhile, nobody hangs there.
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"served"), b"served");
    drop(frozen);
    until("the worker runs again", || chain.metrics().sum("evenkeel_worker_stuck", &[]) == 0.0);
    assert!(listens());
}
