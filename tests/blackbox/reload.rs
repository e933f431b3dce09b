//! Reloading: all of a good file, nothing of a bad one.

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::common::balancer::said;
use crate::common::client::{connect, exchange, visit};
use crate::common::wait::until;
use crate::common::{Balancer, Config, Place, Server};

fn failed(balancer: &Balancer<'_>) -> f64 {
    balancer.metrics().sum("evenkeel_reloads_total", &[("outcome", "failed")])
}

fn visits(place: &Place, count: usize) -> String {
    (0..count).map(|_| visit(place.frontend()).unwrap()).collect()
}

#[test]
fn servers_are_added_and_removed_and_sessions_of_a_removed_one_live_on() {
    let place = Place::new();
    let a = Server::echo(place.port(9001));
    let b = Server::naming("b", place.port(9002));
    let c = Server::naming("c", place.port(9003));
    let first = Config::new(&place).server("a", a.address);
    let balancer = Balancer::start(&place, &first);
    let old = connect(place.frontend());
    assert_eq!(exchange(&old, b"before"), b"before");
    balancer.reload(&Config::new(&place).server("b", b.address).server("c", c.address));
    let turns = visits(&place, 6);
    assert!(turns == "bcbcbc" || turns == "cbcbcb", "{turns}");
    assert_eq!(exchange(&old, b"after"), b"after");
    assert_eq!(a.accepted(), 1);
    drop(old);
    let metrics = balancer.books_balance();
    assert_eq!(metrics.value("evenkeel_table_version", &[]), 2.0);
    until("the removed one is forgotten", || {
        !balancer.metrics().has("evenkeel_server_up", &[("server", "a")])
    });
}

#[test]
fn a_server_that_stays_keeps_its_health_and_its_counts() {
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let config = Config::new(&place).quick_health("tcp").server("a", a.address);
    let config = config.server("dead", place.port(9002));
    let balancer = Balancer::start(&place, &config);
    balancer.metrics_until("it is down", |metrics| !metrics.up("dead"));
    assert_eq!(visits(&place, 5), "aaaaa");
    let more = Server::naming("b", place.port(9003));
    balancer.reload(&config.server("b", more.address));
    let metrics = balancer.metrics();
    assert!(!metrics.up("dead"));
    assert_eq!(metrics.value("evenkeel_server_sessions_total", &[("server", "a")]), 5.0);
}

#[test]
fn frontends_are_added_and_removed() {
    let place = Place::new();
    let a = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", a.address);
    let balancer = Balancer::start(&place, &config);
    assert!(TcpStream::connect(place.port(8001)).is_err());
    let other = format!("[frontend.other]\nbind = [\"{}\"]\nbackend = \"web\"", place.port(8001));
    balancer.reload(&config.clone().more(&other));
    let session = connect(place.port(8001));
    assert_eq!(exchange(&session, b"new"), b"new");
    balancer.reload(&config);
    until("nobody listens there any more", || TcpStream::connect(place.port(8001)).is_err());
    assert_eq!(exchange(&session, b"old"), b"old");
    drop(session);
    balancer.books_balance();
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let config = Config::new(&place).server("a", a.address);
    let balancer = Balancer::start(&place, &config);
    balancer.rewrite(&config.clone().backend("retires = 3").text());
    let output = balancer.order(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("retires"), "{}", said(&output));
    balancer.rewrite("this is [ not TOML");
    balancer.signal(Signal::SIGHUP);
    until("both are counted", || failed(&balancer) == 2.0);
    let complaints = balancer.complaints();
    let file = place.file("evenkeel.toml");
    assert!(complaints.contains(&format!("{}:1:", file.display())), "{complaints}");
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_table_version", &[]), 1.0);
    assert_eq!(visits(&place, 2), "aa");
    // And a good one takes effect again.
    balancer.reload(&config);
    assert_eq!(visits(&place, 2), "aa");
    balancer.books_balance();
}

#[test]
fn a_port_that_cannot_be_had_changes_nothing() {
    let place = Place::new();
    let (a, b) = (Server::naming("a", place.port(9001)), Server::naming("b", place.port(9002)));
    let taken = Server::echo(place.port(8002));
    let balancer = Balancer::start(&place, &Config::new(&place).server("a", a.address));
    let more = format!(
        "[frontend.free]\nbind = [\"{}\"]\nbackend = \"web\"\n\
         [frontend.taken]\nbind = [\"{}\"]\nbackend = \"web\"",
        place.port(8001),
        taken.address
    );
    balancer.rewrite(&Config::new(&place).server("b", b.address).more(&more).text());
    let output = balancer.order(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("8002"), "{}", said(&output));
    assert_eq!(visits(&place, 3), "aaa");
    assert!(TcpStream::connect(place.port(8001)).is_err());
    assert_eq!(failed(&balancer), 1.0);
    balancer.books_balance();
}

#[test]
fn timeouts_of_a_new_file_hold_for_new_sessions() {
    let place = Place::new();
    let a = Server::echo(place.port(9001));
    let config = Config::new(&place).server("a", a.address);
    let balancer = Balancer::start(&place, &config);
    let old = connect(place.frontend());
    assert_eq!(exchange(&old, b"old"), b"old");
    balancer.reload(&config.frontend("idle_timeout = \"300ms\""));
    let new = connect(place.frontend());
    assert!(crate::common::client::read_out(&new).0.is_empty());
    balancer.session_ended("cD idle_timeout");
    assert_eq!(exchange(&old, b"old"), b"old");
    drop(old);
    balancer.books_balance();
}

#[test]
fn what_needs_a_restart_is_named_in_the_answer() {
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let config = Config::new(&place).server("a", a.address);
    let balancer = Balancer::start(&place, &config);
    balancer.rewrite(&config.clone().global("pin = true").log("sessions = false").text());
    let answer = balancer.obeys(&["reload"]);
    let wanted = "; takes effect at the next start: global.pin, observe.log.sessions\n";
    assert!(answer.ends_with(wanted), "{answer}");
    balancer.rewrite(&config.text());
    let answer = balancer.obeys(&["reload"]);
    assert!(!answer.contains("next start"), "{answer}");
}

#[test]
fn a_frontend_where_the_metrics_still_are_needs_a_restart() {
    let place = Place::new();
    let a = Server::naming("a", place.port(9001));
    let config = Config::new(&place).server("a", a.address);
    let balancer = Balancer::start(&place, &config);
    let (here, there) = (place.observe().to_string(), place.port(8405).to_string());
    let more = format!("[frontend.other]\nbind = [\"{here}\"]\nbackend = \"web\"");
    let text = config.text().replace(&here, &there) + &more;
    balancer.rewrite(&text);
    let output = balancer.order(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for part in [here.as_str(), "observe.bind", "restart"] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    assert_eq!(visits(&place, 2), "aa");
}
