//! `PostgreSQL`: psql with a password, a cancel request, and pgbench while a server is drained.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use crate::common::wait::{StopOnDrop, holds_for, until, until_some};
use crate::common::{Balancer, Config, TestEnv, skip};
use crate::program::{Program, run, run_text};

const PASSWORD: &str = "correct horse";

/// Longer than any test waits.
const SLEEP: &str = "select pg_sleep(300)";

/// Two servers with the same data; `cluster_name` tells them apart.
#[derive(Debug)]
struct Cluster<'a> {
    env: &'a TestEnv,
    /// The folder of the programs.
    programs: PathBuf,
    servers: [(SocketAddr, Program); 2],
}

/// The folder of the newest installed version. Its programs are not in PATH.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "psql", "pgbench"].iter().all(|name| folder.join(name).is_file())
    };
    folders.filter(complete).max()
}

/// Starts two servers, or reports `test` as skipped.
fn start<'a>(test: &str, env: &'a TestEnv) -> Option<Cluster<'a>> {
    let Some(programs) = programs() else {
        skip(test, "not installed: PostgreSQL with pgbench (tests/run installs what is missing)");
        return None;
    };
    // The server refuses to run as root.
    let account = geteuid().is_root().then(|| {
        let named = |name| User::from_name(name).unwrap();
        named("postgres").or_else(|| named("nobody")).expect("there is such an account")
    });
    let folder = env.file("postgres");
    let password = folder.join("password");
    fs::create_dir(&folder).unwrap();
    fs::write(&password, PASSWORD).unwrap();
    if let Some(account) = &account {
        for path in [&folder, &password] {
            chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())).unwrap();
        }
    }
    let command = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir(&folder).env("LC_ALL", "C");
        if let Some(account) = &account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        command
    };
    let [a, b] = ["a", "b"].map(|name| folder.join(name));
    let mut initdb = command("initdb");
    initdb.args(["--username=postgres", "--auth-host=scram-sha-256", "--auth-local=trust"]);
    initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--pwfile"]);
    run(env, {
        initdb.arg(&password).arg("-D").arg(&a);
        initdb
    });
    let mut copy = Command::new("cp");
    copy.arg("-a").args([&a, &b]);
    run(env, copy);
    let server = |data: &Path, port| {
        let (name, address) = (data.file_name().unwrap().to_str().unwrap(), env.port(port));
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(data).arg("-k").arg(&folder);
        postgres.args(["-h", &address.ip().to_string(), "-p", &port.to_string()]);
        for setting in ["fsync=off", "shared_buffers=16MB", &format!("cluster_name={name}")] {
            postgres.args(["-c", setting]);
        }
        // A fast shutdown waits for a checkpoint.
        (address, Program::start(env, postgres).ended_by(Signal::SIGQUIT))
    };
    let servers = [server(&a, 5432), server(&b, 5433)];
    let mut cluster = Cluster { env, programs: programs.clone(), servers };
    for index in 0..2 {
        let address = cluster.servers[index].0;
        until("the server answers", || {
            assert!(!cluster.servers[index].1.has_ended(), "{}", cluster.servers[index].1.stderr());
            let answer = Program::start(env, cluster.psql(address, "select 1")).wait();
            answer.status.success()
        });
    }
    Some(cluster)
}

impl Cluster<'_> {
    fn config(&self, backend: &str) -> Config {
        let [(a, _), (b, _)] = &self.servers;
        Config::new(self.env).workers(2).backend(backend).server("a", *a).server("b", *b)
    }

    /// A client program, with the password.
    fn client(&self, program: &str, address: SocketAddr) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20").env("LC_ALL", "C");
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-U", "postgres"]);
        command
    }

    /// One query.
    fn psql(&self, address: SocketAddr, query: &str) -> Command {
        let mut psql = self.client("psql", address);
        psql.args(["-d", "postgres", "-X", "-A", "-t", "-c", query]);
        psql
    }

    /// The server that runs [`SLEEP`].
    fn sleeping(&self) -> Option<usize> {
        let query = "select count(*) from pg_stat_activity \
                     where state = 'active' and query like 'select pg_sleep%'";
        let count = |index: usize| run_text(self.env, self.psql(self.servers[index].0, query));
        (0..2).find(|index| count(*index) == "1")
    }
}

/// Sessions that each server got so far.
fn sessions(balancer: &Balancer<'_>) -> [f64; 2] {
    let metrics = balancer.metrics();
    ["a", "b"].map(|server| metrics.sum("evenkeel_server_sessions_total", &[("server", server)]))
}

#[test]
fn psql_logs_in_with_a_password_and_the_servers_take_turns() {
    let env = TestEnv::new();
    let name = "psql_logs_in_with_a_password_and_the_servers_take_turns";
    let Some(cluster) = start(name, &env) else { return };
    let balancer = Balancer::start(&env, &cluster.config(""));
    let name_of_server =
        || run_text(&env, cluster.psql(env.frontend(), "select current_setting('cluster_name')"));
    let names: Vec<String> = (0..6).map(|_| name_of_server()).collect();
    assert_eq!(names, ["a", "b", "a", "b", "a", "b"]);
    let large = run_text(&env, cluster.psql(env.frontend(), "select repeat('x', 10000000)"));
    assert!(large.len() == 10_000_000 && large.bytes().all(|byte| byte == b'x'));
    let mut wrong = cluster.psql(env.frontend(), "select 1");
    wrong.env("PGPASSWORD", "wrong");
    let refused = Program::start(&env, wrong).wait();
    let message = "password authentication failed for user \"postgres\"";
    assert!(!refused.status.success() && refused.stderr.contains(message), "{}", refused.stderr);
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("done"), 8.0);
}

#[test]
fn with_source_an_interrupted_query_is_cancelled() {
    let env = TestEnv::new();
    let name = "with_source_an_interrupted_query_is_cancelled";
    let Some(cluster) = start(name, &env) else { return };
    let balancer = Balancer::start(&env, &cluster.config("balance = \"source\""));
    let psql = Program::start(&env, cluster.psql(env.frontend(), SLEEP));
    let server = until_some("a server runs the query", || cluster.sleeping());
    psql.signal(Signal::SIGINT);
    let ended = psql.wait();
    let message = "canceling statement due to user request";
    assert!(ended.stderr.contains(message), "{}", ended.stderr);
    assert_eq!(cluster.sleeping(), None);
    let mut expected = [0.0; 2];
    expected[server] = 2.0;
    assert_eq!(sessions(&balancer), expected, "the request is a connection of its own");
    balancer.assert_no_leaks();
}

#[test]
fn with_roundrobin_a_cancel_request_reaches_the_other_server() {
    let env = TestEnv::new();
    let name = "with_roundrobin_a_cancel_request_reaches_the_other_server";
    let Some(cluster) = start(name, &env) else { return };
    let balancer = Balancer::start(&env, &cluster.config(""));
    let mut psql = Program::start(&env, cluster.psql(env.frontend(), SLEEP));
    let server = until_some("a server runs the query", || cluster.sleeping());
    psql.signal(Signal::SIGINT);
    until("the request is sent", || psql.stderr().contains("Cancel request sent"));
    assert_eq!(sessions(&balancer), [1.0, 1.0]);
    let goes_on = || !psql.has_ended() && cluster.sleeping() == Some(server);
    assert!(holds_for(Duration::from_secs(1), goes_on));
}

#[test]
fn pgbench_fails_no_transaction_while_a_server_is_drained_and_comes_back() {
    let env = TestEnv::new();
    let name = "pgbench_fails_no_transaction_while_a_server_is_drained_and_comes_back";
    let Some(cluster) = start(name, &env) else { return };
    for (address, _) in &cluster.servers {
        let mut fill = cluster.client("pgbench", *address);
        fill.args(["--initialize", "--quiet", "postgres"]);
        run(&env, fill);
    }
    let balancer = Balancer::start(&env, &cluster.config(""));
    let stopped = AtomicBool::new(false);
    // Many clients, and a connection for each transaction.
    let bench = || {
        let mut processed = 0;
        while !stopped.load(Ordering::Relaxed) {
            let mut pgbench = cluster.client("pgbench", env.frontend());
            pgbench.args(["--select-only", "--connect", "--no-vacuum", "--client=16"]);
            pgbench.args(["--jobs=2", "--time=1", "postgres"]);
            let text = run_text(&env, pgbench);
            assert_eq!(number(&text, "number of failed transactions:"), 0, "{text}");
            processed += number(&text, "number of transactions actually processed:");
        }
        processed
    };
    let processed = thread::scope(|scope| {
        let bench = scope.spawn(bench);
        let stop = StopOnDrop(&stopped);
        let more = |server: usize, count: f64| {
            let before = sessions(&balancer)[server];
            until("the server gets sessions", || {
                bench.is_finished() || sessions(&balancer)[server] >= before + count
            });
        };
        more(0, 20.0);
        balancer.control_ok(&["drain", "web/a"]);
        let active = [("server", "a")];
        balancer.metrics_until("the server has no session", |metrics| {
            metrics.value("evenkeel_server_sessions_active", &active) == 0.0
        });
        let drained = sessions(&balancer)[0];
        more(1, 50.0);
        assert_eq!(sessions(&balancer)[0], drained, "a drained server gets no session");
        balancer.control_ok(&["ready", "web/a"]);
        more(0, 20.0);
        drop(stop);
        bench.join().unwrap()
    });
    assert!(processed >= 90, "{processed}");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.sum("evenkeel_server_connect_failures_total", &[]), 0.0);
}

/// The number behind `label` in the report of pgbench.
#[track_caller]
fn number(text: &str, label: &str) -> u64 {
    let rest = text.split_once(label).map(|(_, rest)| rest.split_whitespace().next());
    rest.flatten().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{label} in {text}"))
}
