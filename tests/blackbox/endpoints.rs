//! A host name with several addresses: one server with several endpoints.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::access::client_from;
use crate::balancing::{answering, ask_name};
use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{connect, exchange, fetch};
use crate::common::{Balancer, Config, Server, TestEnv, skip, until};

/// Whether this user may mount a private /etc/hosts.
pub(crate) fn can_mount(test: &str) -> bool {
    let can = Command::new("unshare").args(["-rm", "true"]).output();
    let can = can.is_ok_and(|output| output.status.success());
    if !can {
        skip(test, "`unshare -rm` is not permitted");
    }
    can
}

/// evenkeel, with the file `hosts` of `env` as its /etc/hosts.
pub(crate) fn command(env: &TestEnv, config: &Config) -> Command {
    let script = "mount --bind \"$1\" /etc/hosts && exec \"$0\" run -c \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, PROGRAM]).arg(env.file("hosts"));
    command.arg(write_config(env, &config.text()));
    command
}

/// Sets the addresses of `pi.test`. The file is mounted, so that it is not replaced.
fn set_addresses(env: &TestEnv, addresses: &[SocketAddr]) {
    let lines = addresses.iter().map(|address| format!("{} pi.test\n", address.ip()));
    fs::write(env.file("hosts"), lines.collect::<String>()).unwrap();
}

/// A server with the address `pi.test`, and further lines.
fn named(lines: &str) -> String {
    format!("[[backend.web.server]]\nname = \"pi\"\naddress = \"pi.test:9001\"\n{lines}\n")
}

/// The names of the servers, as the metrics have them.
fn series(balancer: &Balancer<'_>) -> Vec<String> {
    let status = balancer.control_ok(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&status).unwrap();
    let servers = report["servers"].as_array().unwrap();
    servers.iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the server has so many addresses.
fn until_addresses(balancer: &Balancer<'_>, count: usize) {
    until("the server has other addresses", || {
        let status = balancer.control_ok(&["status", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&status).unwrap();
        report["servers"][0]["endpoints"].as_array().is_some_and(|all| all.len() == count)
    });
}

#[test]
fn endpoints_share_the_weight_the_limit_and_the_series_of_their_server() {
    let test = "endpoints_share_the_weight_the_limit_and_the_series_of_their_server";
    if !can_mount(test) {
        return;
    }
    let env = TestEnv::new();
    let other = env.another();
    let one = Server::echo(env.port(9001));
    let two = Server::echo(other.port(9001));
    let config = Config::new(&env).more(&named("sessions_max = 2"));
    set_addresses(&env, &[one.address]);
    let balancer = Balancer::start_command(&env, command(&env, &config));
    let first = connect(env.frontend());
    assert_eq!(exchange(&first, b"1"), b"1");
    set_addresses(&env, &[one.address, two.address]);
    balancer.reload(&config);
    until_addresses(&balancer, 2);
    assert_eq!(series(&balancer), ["pi"]);
    let of_pi = [("server", "pi")];
    assert_eq!(balancer.metrics().value("evenkeel_server_sessions_total", &of_pi), 1.0);
    // Two sessions in all, whichever endpoint they are on.
    let second = connect(env.frontend());
    assert_eq!(exchange(&second, b"2"), b"2");
    assert!(crate::common::client::fetch_with(env.frontend(), b"3").is_err());
    set_addresses(&env, &[one.address]);
    balancer.reload(&config);
    until_addresses(&balancer, 1);
    assert_eq!(exchange(&first, b"still"), b"still", "its session continues");
    let metrics = balancer.metrics();
    assert_eq!(metrics.value("evenkeel_server_sessions_total", &of_pi), 2.0);
    assert_eq!(metrics.value("evenkeel_server_sessions_active", &of_pi), 2.0);
    drop((first, second));
    balancer.assert_no_leaks();
}

#[test]
fn a_name_with_two_addresses_gets_its_weight_once() {
    if !can_mount("a_name_with_two_addresses_gets_its_weight_once") {
        return;
    }
    let env = TestEnv::new();
    let other = env.another();
    let one = Server::naming("1", env.port(9001));
    let two = Server::naming("2", other.port(9001));
    let b = Server::naming("b", env.port(9002));
    let config = Config::new(&env).server("b", b.address).more(&named(""));
    set_addresses(&env, &[one.address, two.address]);
    let balancer = Balancer::start_command(&env, command(&env, &config));
    let turns: String = (0..8).map(|_| fetch(env.frontend()).unwrap()).collect();
    let count = |name: char| turns.matches(name).count();
    assert_eq!(['b', '1', '2'].map(count), [4, 2, 2], "{turns}");
    balancer.assert_no_leaks();
}

#[test]
fn every_algorithm_gives_a_name_with_two_addresses_the_weight_of_one_server() {
    let test = "every_algorithm_gives_a_name_with_two_addresses_the_weight_of_one_server";
    if !can_mount(test) {
        return;
    }
    // So many sessions that stay open, how many of them go to b and to the two addresses, and by
    // how much each of these numbers may be off. If each address had the weight of the server, b
    // would get a third.
    for (balance, lines, sessions, expected, tolerance) in [
        ("roundrobin", "", 8, [4, 2, 2], 0),
        ("leastconn", "", 8, [4, 2, 2], 0),
        // Of two endpoints that are drawn, the less loaded one: the loads stay close together.
        ("random", "", 80, [40, 20, 20], 10),
        // By the hash of the client and of the address of the server: 55 is 5.5 times the standard
        // deviation of 400 fair draws.
        ("source", "", 400, [200, 100, 100], 55),
        // No weights, but the limit is that of the server.
        ("first", "sessions_max = 4", 8, [4, 4, 0], 0),
    ] {
        let env = TestEnv::new();
        let other = env.another();
        let servers =
            [answering("b", &env, 9002), answering("1", &env, 9001), answering("2", &other, 9001)];
        let b =
            format!("[[backend.web.server]]\nname = \"b\"\naddress = \"{}\"\n", servers[0].address);
        let config = Config::new(&env).backend(&format!("balance = \"{balance}\""));
        let config = config.more(&named(lines)).more(&b);
        set_addresses(&env, &[servers[1].address, servers[2].address]);
        let balancer = Balancer::start_command(&env, command(&env, &config));
        let mut counts = [0; 3];
        let mut open = Vec::new();
        for number in 0..sessions {
            let ip = format!("127.1.{}.{}", number / 250, 1 + number % 250);
            let client = client_from(&ip, env.frontend()).unwrap();
            let name = ask_name(&client);
            counts[["b", "1", "2"].iter().position(|one| *one == name).unwrap()] += 1;
            open.push(client);
        }
        let off =
            counts.iter().zip(expected).map(|(count, wanted): (&i32, i32)| count.abs_diff(wanted));
        assert!(off.max().unwrap() <= tolerance, "{balance}: {counts:?}, expected {expected:?}");
        drop(open);
        balancer.assert_no_leaks();
    }
}

/// The lines of `evenkeel status` below `web/pi`, each as the cells that are not empty.
fn lines_below(balancer: &Balancer<'_>) -> Vec<Vec<String>> {
    let text = balancer.control_ok(&["status"]);
    let lines = text.lines().skip_while(|line| !line.starts_with("web/pi ")).skip(1);
    let cells = |line: &str| {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    lines.map(cells).collect()
}

#[test]
fn status_lists_the_addresses_of_a_server_and_first_those_that_are_down() {
    if !can_mount("status_lists_the_addresses_of_a_server_and_first_those_that_are_down") {
        return;
    }
    let env = TestEnv::new();
    let others: Vec<TestEnv> = (0..10).map(|_| env.another()).collect();
    let up = Server::echo(env.port(9001));
    let mut addresses = vec![up.address];
    addresses.extend(others.iter().map(|other| other.port(9001)));
    let config = Config::new(&env).quick_health("tcp").more(&named(""));
    set_addresses(&env, &addresses[..2]);
    let balancer = Balancer::start_command(&env, command(&env, &config));
    let down = |lines: &[Vec<String>]| lines.iter().filter(|line| line[1] == "down").count();
    until("one of two is down", || down(&lines_below(&balancer)) == 1);
    let client = connect(env.frontend());
    assert_eq!(exchange(&client, b"1"), b"1");
    let lines = lines_below(&balancer);
    let [first, second] = &*lines else { panic!("{lines:?}") };
    assert_eq!(first[..3], [addresses[1].to_string(), "down".into(), "0".into()], "{lines:?}");
    assert!(first[3].contains("refused"), "{lines:?}");
    assert_eq!(second[..3], [addresses[0].to_string(), "up".into(), "1".into()], "{lines:?}");
    assert!(second[3].starts_with("connected ("), "{lines:?}");

    set_addresses(&env, &addresses);
    balancer.reload(&config);
    until_addresses(&balancer, 11);
    until("ten are down, of which eight are listed", || {
        let lines = lines_below(&balancer);
        lines.len() == 9 && down(&lines[..8]) == 8 && lines[8] == ["3 more (2 down)"]
    });
    set_addresses(&env, &addresses[..1]);
    balancer.reload(&config);
    until_addresses(&balancer, 1);
    assert_eq!(lines_below(&balancer), Vec::<Vec<String>>::new());
}
