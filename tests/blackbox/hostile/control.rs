//! The control socket (case 99). Only root and the user of the balancer can connect; their programs
//! may be broken.

use nix::sys::signal::Signal;
use socket2::SockAddr;

use crate::common::process::Descriptors;
use crate::common::wait::until;
use crate::common::{Balancer, Server, TestEnv, echoing};
use crate::hostile::flood::{Flood, Manner};
use crate::hostile::garbage::{self, Sent};
use crate::hostile::{
    CONTROL_MAX, Quiet, Sessions, room, slow_clients_are_cut_off, until_scraped, until_status,
};
use crate::scrape::many;

fn control(env: &TestEnv) -> SockAddr {
    SockAddr::unix(env.file("control.sock")).unwrap()
}

/// More clients than are served at a time.
const SLOW: &[(Manner, usize)] = &[
    (Manner::Silent, 10),
    (Manner::Drip(b"{\"do\":\"status\", \"x\": "), 25),
    (Manner::HalfClosed(b"{\"do\":\"sta"), 10),
];

#[test]
fn slow_clients_of_the_control_socket_are_cut_off_while_orders_and_sessions_go_on() {
    let env = TestEnv::exclusive();
    slow_clients_are_cut_off(&env, &control(&env), SLOW, 3 * CONTROL_MAX);
}

#[test]
fn clients_that_do_not_read_a_long_status_are_cut_off_and_others_get_their_places() {
    let env = TestEnv::exclusive();
    let echo = Server::echo(env.port(9001));
    let mut balancer = Balancer::start(&env, &many(&env, &echo));
    balancer.metrics_until("the server is up", |metrics| metrics.up("echo"));
    // Each has a report of 1,500 servers, of about a megabyte, and while it is made a snapshot.
    let quiet = Quiet { room_kib: room(64 * 1024), ..Quiet::of(&balancer) };
    let sessions = Sessions::start(env.frontend());
    let deaf = (Manner::Deaf(b"{\"do\":\"status\"}\n"), CONTROL_MAX + 4);
    let flood = Flood::start(control(&env), &[deaf]);
    until("they have all places", || {
        let open = Descriptors::of(balancer.pid()).sockets;
        open >= balancer.base.sockets + CONTROL_MAX
    });
    until_scraped(env.observe());
    sessions.assert_go_on();
    quiet.assert_bounded(&balancer, 3);
    until_status(&balancer);
    sessions.end();
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    drop(flood);
}

#[test]
fn megabytes_that_are_no_order_are_refused_without_memory_for_them() {
    let env = TestEnv::exclusive();
    let (config, _server) = echoing(&env);
    let balancer = Balancer::start(&env, &config);
    let quiet = Quiet::of(&balancer);
    let sessions = Sessions::start(env.frontend());
    for Sent { what, bytes, answers } in garbage::control() {
        for received in garbage::all_at_once(&control(&env), &bytes) {
            let text = String::from_utf8_lossy(&received);
            assert!(answers.iter().any(|begin| text.starts_with(begin)), "{what}: {text:?}");
            assert!(text.lines().count() == 1 && text.ends_with('\n'), "{what}: {text:?}");
        }
        quiet.assert_bounded(&balancer, 3 + garbage::CLIENTS);
        until_status(&balancer);
        sessions.assert_go_on();
    }
    sessions.end();
    quiet.assert_back(&balancer);
}
