//! What `evenkeel status`, its JSON and the status page show of a server.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::client::{Ending, connect, connect_and_read, fetch};
use crate::common::server::BlackHole;
use crate::common::wait::{pause, until_some};
use crate::common::{Balancer, Config, Server, TestEnv, http, until};

/// A server in the JSON.
fn report(balancer: &Balancer<'_>, server: &str) -> Value {
    let report: Value = serde_json::from_str(&balancer.control_ok(&["status", "--json"])).unwrap();
    let servers = report["servers"].as_array().unwrap();
    servers.iter().find(|one| one["name"] == server).unwrap().clone()
}

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {report}"))
}

/// What the table of servers shows for `web/SERVER` in a column.
fn cell(balancer: &Balancer<'_>, server: &str, column: &str) -> String {
    let text = balancer.control_ok(&["status"]);
    let line = |start: String| text.lines().find(|line| line.starts_with(&start)).unwrap();
    let (head, row) = (line("SERVER ".to_owned()), line(format!("web/{server} ")));
    let at = head.find(column).unwrap_or_else(|| panic!("no column {column}: {head}"));
    // An empty last cell is not there.
    row.get(at..).unwrap_or_default().split("  ").next().unwrap().to_owned()
}

/// Asserts that the state of the server began at `order` or later, although the server has been up
/// for longer.
#[track_caller]
fn state_began_at(balancer: &Balancer<'_>, server: &str, order: Instant) {
    let shown = cell(balancer, server, "FOR");
    let seconds: u64 = shown.trim_end_matches('s').parse().unwrap();
    assert!(seconds <= order.elapsed().as_secs(), "{shown}");
    let report = report(balancer, server);
    assert!(number(&report, "state_since_seconds") <= order.elapsed().as_secs(), "{report}");
    assert!(number(&report, "since_seconds") >= 2, "{report}");
}

#[test]
fn drain_maint_and_removal_show_the_time_since_they_were_set() {
    let env = TestEnv::new();
    let (a, b) = (Server::echo(env.port(9001)), Server::naming("b", env.port(9002)));
    let config = Config::new(&env);
    let with_a = config.clone().server("a", a.address).server("b", b.address);
    let balancer = Balancer::start(&env, &with_a);
    let _session = connect(env.frontend());
    until("the servers have been up for 2 s", || {
        number(&report(&balancer, "b"), "since_seconds") >= 2
    });
    for order in ["drain", "maint"] {
        let begun = Instant::now();
        balancer.control_ok(&[order, "web/a"]);
        state_began_at(&balancer, "a", begun);
    }
    let begun = Instant::now();
    let drained = config.server_with("b", b.address, "state = \"drain\"");
    balancer.reload(&drained);
    assert_eq!(report(&balancer, "a")["state"], "removed");
    state_began_at(&balancer, "a", begun);
    assert_eq!(report(&balancer, "b")["state"], "drain");
    state_began_at(&balancer, "b", begun);
    let (_, page) = http::get(env.observe(), "/").unwrap();
    assert!(page.contains("drain</span> (up) for "), "{page}");
}

#[test]
fn a_server_in_maint_and_one_without_checks_show_that_they_are_not_probed() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).server("a", server.address);
    let balancer = Balancer::start(&env, &config.clone().quick_health("tcp"));
    let probe = || report(&balancer, "a")["last_probe"].clone();
    until("a probe has passed", || probe() == "connected");
    let is_not_probed = || {
        let report = report(&balancer, "a");
        for probed in [&report, &report["endpoints"][0]] {
            assert_eq!(probed["last_probe"], "not probed", "{report}");
            assert!(probed["last_probe_ms"].is_null(), "{report}");
        }
        assert_eq!(cell(&balancer, "a", "LAST PROBE"), "not probed");
        let (_, page) = http::get(env.observe(), "/").unwrap();
        assert!(page.contains("<td>not probed</td>"), "{page}");
    };
    balancer.control_ok(&["maint", "web/a"]);
    is_not_probed();
    balancer.control_ok(&["ready", "web/a"]);
    until("it is probed again", || probe() == "connected");
    balancer.reload(&config);
    is_not_probed();
}

#[test]
fn until_its_first_probe_has_ended_a_server_shows_that_it_is_not_probed_yet() {
    let env = TestEnv::new();
    let hole = BlackHole::open(env.port(9001));
    let health = "check = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"1m\"";
    let config = Config::new(&env).health(health).server("a", hole.address);
    let balancer = Balancer::start(&env, &config);
    let shown = || cell(&balancer, "a", "LAST PROBE");
    assert_eq!(shown(), "not probed yet");
    for order in ["ready", "drain"] {
        balancer.control_ok(&["maint", "web/a"]);
        assert_eq!(shown(), "not probed");
        balancer.control_ok(&[order, "web/a"]);
        assert_eq!(shown(), "not probed yet", "{order}");
        assert_eq!(report(&balancer, "a")["endpoints"][0]["last_probe"], "not probed yet");
    }
}

#[test]
fn the_queue_the_refusals_and_the_limits_are_shown() {
    let env = TestEnv::new();
    let server = Server::echo(env.port(9001));
    let backup = Server::echo(env.port(9002));
    let config = Config::new(&env)
        .frontend("clients_max = 3")
        .backend("queue_max = 7\nqueue_timeout = \"1m\"")
        .server_with("a", server.address, "sessions_max = 1")
        .server_with("b", backup.address, "backup = true");
    let balancer = Balancer::start(&env, &config);
    let clients = [(); 3].map(|()| connect(env.frontend()));
    let state =
        || -> Value { serde_json::from_str(&balancer.control_ok(&["status", "--json"])).unwrap() };
    until("two wait", || state()["backends"][0]["queue_sessions"] == 2);
    assert_eq!(connect_and_read(env.frontend()), (Vec::new(), Ending::Reset));
    let json = state();
    let backend = &json["backends"][0];
    assert_eq!((&backend["queue_max"], &backend["servers"]), (&7.into(), &2.into()));
    assert_eq!(backend["backups_in_use"], false);
    assert_eq!(json["frontends"][0]["refused_by_reason"]["limit"], 1);
    assert_eq!(report(&balancer, "a")["sessions_max"], 1);
    assert!(report(&balancer, "b")["sessions_max"].is_null());
    let text = balancer.control_ok(&["status"]);
    assert!(text.contains("1 (limit 1)"), "{text}");
    let line = text.lines().find(|line| line.starts_with("web ") && line.contains("2 of 2"));
    let cells: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(cells, ["web", "roundrobin", "2", "of", "2", "2", "7"], "{text}");
    assert_eq!(cell(&balancer, "a", "MAX"), "1");
    assert!(text.contains("web/b (backup)"), "{text}");
    let (_, page) = http::get(env.observe(), "/").unwrap();
    for part in ["1 (limit 1)", "<td>2 of 2</td><td class=\"n\">2</td><td class=\"n\">7</td>"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    drop(clients);
    balancer.control_ok(&["maint", "web/a"]);
    until("the backup is used", || state()["backends"][0]["backups_in_use"] == true);
    assert!(balancer.control_ok(&["status"]).contains("1 of 2, backups in use"));
    balancer.assert_no_leaks();
}

#[test]
fn the_last_probe_shows_how_long_it_took() {
    const DELAY: Duration = Duration::from_millis(150);
    let env = TestEnv::new();
    let slow = Server::start(env.port(9001), |mut stream| {
        drop(stream.read(&mut [0; 4096]));
        pause(DELAY);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    });
    let silent = Server::start(env.port(9002), |mut stream| {
        drop(io::copy(&mut stream, &mut io::sink()));
    });
    let health = "check = \"http\"\ninterval = \"100ms\"\ntimeout = \"2s\"";
    let config = Config::new(&env).health(health).server("slow", slow.address);
    let balancer = Balancer::start(&env, &config.server("silent", silent.address));
    let probed = until_some("a probe has passed", || {
        Some(report(&balancer, "slow")).filter(|report| report["last_probe"] == "status 200")
    });
    for probed in [&probed, &probed["endpoints"][0]] {
        let took = probed["last_probe_ms"].as_f64().unwrap_or_else(|| panic!("{probed}"));
        assert!((150.0..2000.0).contains(&took), "{probed}");
    }
    let shown = cell(&balancer, "slow", "LAST PROBE");
    let took = shown.strip_prefix("status 200 (").and_then(|rest| rest.strip_suffix(" ms)"));
    assert!(took.unwrap().parse::<f64>().unwrap() >= 150.0, "{shown}");
    let (_, page) = http::get(env.observe(), "/").unwrap();
    assert!(page.contains("<td>status 200 (") && page.contains(" ms)</td>"), "{page}");

    let timeout = "no answer within 2s";
    until("a probe has timed out", || cell(&balancer, "silent", "LAST PROBE") == timeout);
    let report = report(&balancer, "silent");
    assert_eq!(report["last_probe"], timeout);
    assert!(report["last_probe_ms"].is_null(), "the text says it: {report}");
}

#[test]
fn a_server_that_is_slow_to_connect_is_seen_without_the_log() {
    let env = TestEnv::new();
    let hole = BlackHole::open(env.port(9001));
    let quick = Server::naming("quick", env.port(9002));
    let config = Config::new(&env).backend("connect_timeout = \"10s\"");
    let config = config.server("slow", hole.address).server("quick", quick.address);
    let balancer = Balancer::start(&env, &config);
    assert!(report(&balancer, "slow")["connect_mean_ms"].is_null());
    assert_eq!(cell(&balancer, "slow", "CONNECT"), "-");
    // One of two clients gets the server that does not answer yet: the kernel sends the SYN again
    // after a second.
    std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| scope.spawn(|| fetch(env.frontend()).unwrap()));
        balancer.metrics_until("one is connected and the other is not", |metrics| {
            let of_quick = metrics.sum("evenkeel_server_sessions_total", &[("server", "quick")]);
            let of_slow = metrics.sum("evenkeel_server_sessions_active", &[("server", "slow")]);
            of_quick == 1.0 && of_slow == 1.0
        });
        let _server = hole.become_server(|mut stream| drop(stream.write_all(b"slow")));
        let answers = clients.map(|client| client.join().unwrap());
        assert!(answers.contains(&"slow".to_owned()), "{answers:?}");
    });
    let mean = |server| report(&balancer, server)["connect_mean_ms"].as_f64().unwrap();
    let (slow, quick) = (mean("slow"), mean("quick"));
    assert!((500.0..10_000.0).contains(&slow), "{slow}");
    assert!(quick < slow, "{quick}, {slow}");
    let shown = cell(&balancer, "slow", "CONNECT");
    assert!(shown.strip_suffix(" ms").unwrap().parse::<f64>().unwrap() >= 500.0, "{shown}");
    let (_, page) = http::get(env.observe(), "/").unwrap();
    assert!(page.contains(&format!("<td class=\"n\">{shown}</td>")), "{page}");
}
