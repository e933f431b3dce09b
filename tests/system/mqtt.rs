//! MQTT (mosquitto): subscribers that are silent for long, a client that dies, and the link of a
//! broker that dies.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::{Ending, connect, read_to_end};
use crate::common::wait::{holds_for, until};
use crate::common::{Balancer, Config, TestEnv};
use crate::namespace::{self, Host};
use crate::program::{Program, run};
use crate::support::{command, has_programs};

const PROGRAMS: [&str; 4] = ["mosquitto", "mosquitto_sub", "mosquitto_pub", "stdbuf"];

/// Starts a broker with `command`, which runs mosquitto.
fn start_with(env: &TestEnv, address: SocketAddr, mut command: Command) -> Program {
    let file = env.file(&format!("mosquitto-{}.conf", address.ip()));
    let SocketAddr::V4(_) = address else { panic!("{address}") };
    let text = format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nlog_dest stderr\n",
        address.port(),
        address.ip()
    );
    fs::write(&file, text).unwrap();
    command.arg("-c").arg(file);
    let mut broker = Program::start(env, command);
    broker.until_listens(address);
    broker
}

fn start(env: &TestEnv) -> (SocketAddr, Program) {
    let address = env.port(1883);
    (address, start_with(env, address, command("mosquitto")))
}

fn client(program: &str, address: SocketAddr, words: &[&str]) -> Command {
    // Into a file, mosquitto_sub writes what it does when its buffer is full.
    let mut command = command("stdbuf");
    command.args(["--output=L", program]);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(words);
    command
}

/// A subscriber to `news` that reports what it does; it connects again if its connection ends.
fn subscribe(env: &TestEnv, keepalive: &str) -> Program {
    let words = ["-t", "news", "-d", "-k", keepalive];
    let subscriber = Program::start(env, client("mosquitto_sub", env.frontend(), &words));
    until("it has subscribed", || connections(&subscriber) == 1);
    subscriber
}

/// How many times the broker has confirmed a subscription.
fn connections(subscriber: &Program) -> usize {
    subscriber.stdout().matches("received SUBACK").count()
}

fn publish(env: &TestEnv, address: SocketAddr, message: &str) {
    run(env, client("mosquitto_pub", address, &["-t", "news", "-q", "1", "-m", message]));
}

fn has_heard(subscriber: &Program, message: &str) -> bool {
    subscriber.stdout().lines().any(|line| line == message)
}

#[test]
fn a_subscriber_that_is_silent_for_longer_than_the_idle_timeout_is_closed() {
    let name = "a_subscriber_that_is_silent_for_longer_than_the_idle_timeout_is_closed";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _broker) = start(&env);
    let config = Config::new(&env).frontend("idle_timeout = \"1s\"").server("a", address);
    let balancer = Balancer::start(&env, &config);
    let subscriber = subscribe(&env, "60");
    balancer.session_ended("idle_timeout");
    until("it was told, and connects again", || connections(&subscriber) == 2);
    drop(subscriber);
    let metrics = balancer.assert_no_leaks();
    assert!(metrics.closed("idle_timeout") >= 1.0);
}

#[test]
fn without_an_idle_timeout_a_silent_subscriber_stays_connected() {
    let name = "without_an_idle_timeout_a_silent_subscriber_stays_connected";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _broker) = start(&env);
    let config = Config::new(&env).frontend("idle_timeout = \"off\"").server("a", address);
    let balancer = Balancer::start(&env, &config);
    let subscriber = subscribe(&env, "60");
    let active = || balancer.metrics().value("evenkeel_sessions_active", &[]) == 1.0;
    assert!(holds_for(Duration::from_secs(3), active));
    publish(&env, address, "at last");
    until("it hears", || has_heard(&subscriber, "at last"));
    assert_eq!(connections(&subscriber), 1);
    drop(subscriber);
    balancer.assert_no_leaks();
}

#[test]
fn pings_of_mqtt_keep_a_session_open_beyond_the_idle_timeout() {
    let name = "pings_of_mqtt_keep_a_session_open_beyond_the_idle_timeout";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _broker) = start(&env);
    let config = Config::new(&env).frontend("idle_timeout = \"8s\"").server("a", address);
    let balancer = Balancer::start(&env, &config);
    // The shortest that mosquitto_sub accepts.
    let subscriber = subscribe(&env, "5");
    let subscribed = Instant::now();
    until("the broker answers two pings, 5 s apart", || {
        subscriber.stdout().matches("received PINGRESP").count() == 2
    });
    assert!(subscribed.elapsed() > Duration::from_secs(8));
    publish(&env, address, "still there");
    until("it hears", || has_heard(&subscriber, "still there"));
    assert_eq!((connections(&subscriber), balancer.metrics().closed("idle_timeout")), (1, 0.0));
}

#[test]
fn the_broker_publishes_the_will_of_a_client_that_dies() {
    let name = "the_broker_publishes_the_will_of_a_client_that_dies";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let (address, _broker) = start(&env);
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", address));
    let subscriber = subscribe(&env, "60");
    let words = ["-t", "other", "-d", "--will-topic", "news", "--will-payload", "it has died"];
    let dying = Program::start(&env, client("mosquitto_sub", env.frontend(), &words));
    until("it has subscribed", || connections(&dying) == 1);
    dying.signal(Signal::SIGKILL);
    until("the other one hears", || has_heard(&subscriber, "it has died"));
    drop((dying, subscriber));
    balancer.assert_no_leaks();
}

/// Probes of a broker on another host.
const HEALTH: &str = "check = \"tcp\"\ninterval = \"300ms\"\ninterval_down = \"300ms\"\n\
                      timeout = \"500ms\"\nrise = 2\nfall = 2";
/// What they need to notice: the rest of an interval, and two probes that time out.
const NOTICED: Duration = Duration::from_millis(300 + 2 * (300 + 500));

/// What `keepalive = "1s"` needs to notice: 1 s of silence, three probes 1 s apart, and an eighth
/// more for the timers of the kernel.
const TOLD: Duration = Duration::from_millis(4500);

/// For what follows from either, on a machine that may be busy.
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn with_on_down_close_a_subscriber_of_a_broker_whose_link_dies_moves_to_another_one() {
    let name = "with_on_down_close_a_subscriber_of_a_broker_whose_link_dies_moves_to_another_one";
    if !has_programs(name, &PROGRAMS) || !namespace::enter(name) {
        return;
    }
    let env = TestEnv::new();
    let host = Host::new(&env);
    let (far, near) = (host.address(1883), env.port(1883));
    let _far = start_with(&env, far, host.command("mosquitto"));
    let _near = start_with(&env, near, command("mosquitto"));
    let config = Config::new(&env).backend("on_down = \"close\"").health(HEALTH);
    let config = config.server("far", far).server_with("near", near, "backup = true");
    let balancer = Balancer::start(&env, &config);
    let subscriber = subscribe(&env, "60");
    publish(&env, far, "from far");
    until("it hears", || has_heard(&subscriber, "from far"));

    host.cut();
    let cut = Instant::now();
    let record = balancer.session_ended("server_down");
    assert!(record.contains(" DD "), "{record}");
    assert!(cut.elapsed() < NOTICED + SLACK, "{:?}", cut.elapsed());
    until("it was told, and connects again", || connections(&subscriber) == 2);
    publish(&env, near, "from near");
    until("it hears", || has_heard(&subscriber, "from near"));
    drop(subscriber);
    balancer.assert_no_leaks();
}

#[test]
fn with_keepalive_a_client_of_a_broker_whose_link_dies_is_told() {
    let name = "with_keepalive_a_client_of_a_broker_whose_link_dies_is_told";
    if !has_programs(name, &PROGRAMS) || !namespace::enter(name) {
        return;
    }
    let env = TestEnv::new();
    let host = Host::new(&env);
    let far = host.address(1883);
    let config = Config::new(&env).frontend("idle_timeout = \"off\"");
    let config = config.backend("keepalive = \"1s\"").server("far", far);
    let _far = start_with(&env, far, host.command("mosquitto"));
    let balancer = Balancer::start(&env, &config);
    let subscriber = subscribe(&env, "60");
    let silent = connect(env.frontend());
    balancer.metrics_until("both are connected", |metrics| {
        metrics.value("evenkeel_sessions_active", &[]) == 2.0
    });
    // Longer than the time of its probes: a server that answers them keeps its sessions.
    let active = || balancer.metrics().value("evenkeel_sessions_active", &[]) == 2.0;
    assert!(holds_for(Duration::from_secs(3), active));

    host.cut();
    let cut = Instant::now();
    assert_eq!(read_to_end(&silent).1, Ending::Reset);
    assert!(cut.elapsed() < TOLD + SLACK, "{:?}", cut.elapsed());
    drop(subscriber);
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("idle_timeout"), 0.0);
}
