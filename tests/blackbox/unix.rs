//! Unix sockets on both sides: sessions over them, and their files.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::balancer::{printed, run_command};
use crate::common::wait::{TIMEOUT, until, until_some};
use crate::common::{Balancer, Config, Server, TestEnv, client, skip};

const MIB: usize = 1 << 20;

/// Which sides of a session are unix sockets: the client's, the server's.
const SIDES: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

/// A balancer with one server, which the test plays.
struct Scene<'a> {
    balancer: Balancer<'a>,
    frontend: SockAddr,
    listener: Socket,
}

impl<'a> Scene<'a> {
    fn start(env: &'a TestEnv, sides: (bool, bool)) -> Self {
        Self::with(env, sides, &Config::new(env).workers(2))
    }

    fn with(env: &'a TestEnv, (client, server): (bool, bool), config: &Config) -> Self {
        let path = env.file("server.sock");
        let at = if server { SockAddr::unix(&path).unwrap() } else { env.port(9001).into() };
        let listener = listen(&at, 128);
        let text = if server {
            named("a", &path)
        } else {
            format!("[[backend.web.server]]\nname = \"a\"\naddress = \"{}\"\n", env.port(9001))
        };
        let config = config.clone().more(&frontend(env, "")).more(&text);
        let frontend = if client { socket_of(env) } else { env.frontend().into() };
        Self { balancer: Balancer::start(env, &config), frontend, listener }
    }

    /// A client, and the connection of its session at the server.
    fn session(&self) -> (Socket, Socket) {
        (dial(&self.frontend).unwrap(), accept(&self.listener))
    }
}

/// A listening socket whose backlog is full, and the connections in it.
pub(crate) fn full_backlog(path: &Path) -> (Socket, Vec<Socket>) {
    let address = SockAddr::unix(path).unwrap();
    let listener = listen(&address, 0);
    let fill = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&address).ok().map(|()| socket)
    };
    let connections = std::iter::from_fn(fill).collect();
    (listener, connections)
}

/// A listening socket of the test.
pub(crate) fn listen(address: &SockAddr, backlog: i32) -> Socket {
    let listener = Socket::new(address.domain(), Type::STREAM, None).unwrap();
    listener.bind(address).unwrap();
    listener.listen(backlog).unwrap();
    listener
}

/// The frontend `unix`, beside the frontend of each test.
pub(crate) fn frontend(env: &TestEnv, lines: &str) -> String {
    let path = env.file("web.sock");
    format!("[frontend.unix]\nbind = [\"unix:{}\"]\nbackend = \"web\"\n{lines}\n", path.display())
}

/// A server at a unix socket.
pub(crate) fn named(name: &str, path: &Path) -> String {
    let path = path.display();
    format!("[[backend.web.server]]\nname = \"{name}\"\naddress = \"unix:{path}\"\n")
}

/// The address of the frontend `unix`.
pub(crate) fn socket_of(env: &TestEnv) -> SockAddr {
    SockAddr::unix(env.file("web.sock")).unwrap()
}

pub(crate) fn dial(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

#[track_caller]
pub(crate) fn accept(listener: &Socket) -> Socket {
    listener.set_nonblocking(true).unwrap();
    let (socket, _) = until_some("a connection arrives", || listener.accept().ok());
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// A server at `path` that sends `name` and ends; it listens as long as the value lives.
pub(crate) struct Naming(Socket);

impl Naming {
    pub(crate) fn start(path: &Path, name: &'static str) -> Self {
        Self::answering(path, move |mut stream| {
            drop(stream.write_all(name.as_bytes()));
            drop(stream.shutdown(Shutdown::Write));
            drop(io::copy(&mut stream, &mut io::sink()));
        })
    }

    fn answering(path: &Path, handler: impl Fn(&Socket) + Send + Sync + 'static) -> Self {
        let listener = listen(&SockAddr::unix(path).unwrap(), 128);
        let accepting = listener.try_clone().unwrap();
        let handler = Arc::new(handler);
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let handler = Arc::clone(&handler);
                thread::spawn(move || handler(&stream));
            }
        });
        Self(listener)
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        // Wakes accept(2), which then fails.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

/// Connects, and reads the whole answer.
pub(crate) fn fetch(address: &SockAddr) -> io::Result<String> {
    let mut answer = String::new();
    dial(address)?.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Pseudo-random bytes (xorshift64).
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let words = (0..length / 8).flat_map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    words.collect()
}

/// Sends `bytes` and shuts down.
pub(crate) fn pour(mut socket: &Socket, bytes: &[u8]) {
    socket.write_all(bytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
}

/// Reads until the end.
pub(crate) fn drain(mut socket: &Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn sixteen_mebibytes_arrive_unchanged_in_both_directions_at_once() {
    for sides in SIDES {
        let env = TestEnv::new();
        let scene = Scene::start(&env, sides);
        let (client, server) = scene.session();
        let (up, down) = (noise(1, 16 * MIB), noise(2, 16 * MIB));
        let arrived = thread::scope(|scope| {
            scope.spawn(|| pour(&client, &up));
            scope.spawn(|| pour(&server, &down));
            let at_server = scope.spawn(|| drain(&server));
            let at_client = drain(&client);
            (at_server.join().unwrap() == up, at_client == down)
        });
        assert_eq!(arrived, (true, true), "{sides:?}");
        scene.balancer.session_ended("-- done");
        drop((client, server));
        let metrics = scene.balancer.assert_no_leaks();
        for direction in ["in", "out"] {
            let bytes = metrics.value("evenkeel_bytes_total", &[("direction", direction)]);
            assert_eq!(bytes, (16 * MIB) as f64, "{sides:?} {direction}");
        }
    }
}

#[test]
fn many_small_messages_are_exchanged_over_one_session() {
    for sides in SIDES {
        let env = TestEnv::new();
        let scene = Scene::start(&env, sides);
        let (mut client, mut server) = scene.session();
        for number in 0..500_u32 {
            let mut received = [0; 4];
            client.write_all(&number.to_le_bytes()).unwrap();
            server.read_exact(&mut received).unwrap();
            server.write_all(&received).unwrap();
            client.read_exact(&mut received).unwrap();
            assert_eq!(u32::from_le_bytes(received), number, "{sides:?}");
        }
        drop((client, server));
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn each_direction_has_its_own_end() {
    for sides in SIDES {
        let env = TestEnv::new();
        let scene = Scene::start(&env, sides);
        let (client, server) = scene.session();
        let answer = noise(3, 4 * MIB);
        pour(&client, b"question");
        assert_eq!(drain(&server), b"question", "{sides:?}");
        thread::scope(|scope| {
            scope.spawn(|| pour(&server, &answer));
            assert!(drain(&client) == answer, "{sides:?}");
        });
        let (client, server) = scene.session();
        pour(&server, b"greeting");
        assert_eq!(drain(&client), b"greeting", "{sides:?}");
        thread::scope(|scope| {
            scope.spawn(|| pour(&client, &answer));
            assert!(drain(&server) == answer, "{sides:?}");
        });
        drop((client, server));
        let metrics = scene.balancer.assert_no_leaks();
        assert_eq!(metrics.closed("done"), 2.0, "{sides:?}");
    }
}

#[test]
fn an_upload_goes_on_while_the_server_has_ended_its_direction() {
    // The end of the server is read while a send to it waits for room.
    for sides in SIDES {
        let env = TestEnv::new();
        let scene = Scene::start(&env, sides);
        let (client, server) = scene.session();
        let body = noise(4, 8 * MIB);
        thread::scope(|scope| {
            scope.spawn(|| pour(&client, &body));
            scene.balancer.metrics_until("the server's socket is full", |metrics| {
                metrics.value("evenkeel_bytes_total", &[("direction", "in")]) > 100_000.0
            });
            pour(&server, b"early answer");
            assert_eq!(drain(&client), b"early answer", "{sides:?}");
            assert!(drain(&server) == body, "{sides:?}");
        });
        drop((client, server));
        let metrics = scene.balancer.assert_no_leaks();
        assert_eq!(metrics.closed("done"), 1.0, "{sides:?}");
    }
}

#[test]
fn a_peer_that_closes_with_unread_bytes_has_reset_the_session() {
    for (dies, reason) in [("client", "CD client_reset"), ("server", "SD server_reset")] {
        let env = TestEnv::new();
        let scene = Scene::start(&env, (true, true));
        let (mut client, mut server) = scene.session();
        client.write_all(b"question").unwrap();
        server.read_exact(&mut [0; 8]).unwrap();
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        let (dead, mut other) = if dies == "client" { (client, server) } else { (server, client) };
        other.write_all(b"never read").unwrap();
        until("the bytes have arrived", || {
            dead.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok()
        });
        drop(dead);
        // The other one reads an end: a unix socket has no reset.
        assert_eq!(other.read(&mut [0; 16]).unwrap_or(0), 0);
        scene.balancer.session_ended(reason);
        drop(other);
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_client_that_leaves_ends_its_session() {
    for sides in SIDES {
        let env = TestEnv::new();
        let scene = Scene::start(&env, sides);
        let (mut client, server) = scene.session();
        client.write_all(b"last words").unwrap();
        drop(client);
        assert_eq!(drain(&server), b"last words", "{sides:?}");
        drop(server);
        scene.balancer.session_ended("-- done");
        scene.balancer.assert_no_leaks();
    }
}

#[test]
fn a_server_without_a_listener_is_replaced_by_another_one() {
    let env = TestEnv::new();
    let [missing, stale, full, good] =
        ["missing", "stale", "full", "good"].map(|name| env.file(&format!("{name}.sock")));
    drop(UnixListener::bind(&stale).unwrap());
    let full_backlog = full_backlog(&full);
    let _good = Naming::start(&good, "good");
    let config = Config::new(&env).backend("retries = 3").more(&frontend(&env, ""));
    let config = [("m", &missing), ("s", &stale), ("f", &full), ("g", &good)]
        .iter()
        .fold(config, |config, (name, path)| config.more(&named(name, path)));
    let balancer = Balancer::start(&env, &config);
    for _ in 0..8 {
        assert_eq!(fetch(&socket_of(&env)).unwrap(), "good");
    }
    let metrics = balancer.assert_no_leaks();
    for (server, reason) in [("m", "refused"), ("s", "refused"), ("f", "busy")] {
        let failed = [("server", server), ("reason", reason)];
        let count = metrics.value("evenkeel_server_connect_failures_total", &failed);
        assert!(count >= 2.0, "{server}: {count}");
    }
    assert_eq!(metrics.closed("done"), 8.0);
    drop(full_backlog);
}

#[test]
fn with_every_server_dead_a_client_is_turned_away_at_once() {
    let env = TestEnv::new();
    let config = Config::new(&env).more(&frontend(&env, "")).more(&named("a", &env.file("none")));
    let balancer = Balancer::start(&env, &config);
    assert_eq!(fetch(&socket_of(&env)).unwrap_or_default(), "");
    assert!(client::fetch(env.frontend()).is_err(), "a client over TCP is reset");
    balancer.session_ended("SC connect_failed");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("connect_failed"), 2.0);
}

#[test]
fn probes_by_tcp_and_http_find_out_whether_a_server_listens() {
    for check in ["tcp", "http"] {
        let env = TestEnv::new();
        let path = env.file("server.sock");
        let config = Config::new(&env).quick_health(check).more(&frontend(&env, ""));
        let balancer = Balancer::start(&env, &config.more(&named("a", &path)));
        balancer.metrics_until("the server is down", |metrics| !metrics.up("a"));
        let server = Naming::answering(&path, |mut stream| {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            // A probe by TCP sends nothing.
            let fits =
                String::from_utf8_lossy(&request[..length]).contains("\r\nHost: localhost\r\n");
            let status = if fits { "200 OK" } else { "400 Bad Request" };
            drop(write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        });
        balancer.metrics_until("the server is up", |metrics| metrics.up("a"));
        drop(server);
        balancer.metrics_until("the server is down again", |metrics| !metrics.up("a"));
        balancer.assert_no_leaks();
    }
}

#[test]
fn status_sessions_and_logs_show_the_paths() {
    let env = TestEnv::new();
    let scene = Scene::start(&env, (true, true));
    let (client, server) = scene.session();
    let balancer = &scene.balancer;
    let (bind, address) = (env.file("web.sock"), env.file("server.sock"));
    let [bind, address] = [bind, address].map(|path| format!("unix:{}", path.display()));
    let status: serde_json::Value =
        serde_json::from_str(&balancer.control_ok(&["status", "--json"])).unwrap();
    assert_eq!(status["frontends"][1]["addresses"][0], bind.as_str());
    assert_eq!(status["servers"][0]["address"], address.as_str());
    assert_eq!(status["servers"][0]["endpoints"][0]["address"], address.as_str());
    let text = balancer.control_ok(&["status"]);
    assert!(text.contains(&bind) && text.contains(&address), "{text}");
    let sessions: serde_json::Value =
        serde_json::from_str(&balancer.control_ok(&["sessions", "--json"])).unwrap();
    assert_eq!(sessions[0]["client"], "unix:");
    let id = sessions[0]["id"].as_str().unwrap();
    balancer.control_ok(&["kill", id]);
    // The end of a unix socket: it has no reset.
    assert_eq!(drain(&client), b"");
    let record = balancer.session_ended("KD killed");
    assert!(record.contains(" unix: unix web/a "), "{record}");
    let log = balancer.application_log();
    assert!(log.contains(&format!("listens on {}, {bind}", env.frontend())), "{log}");
    drop((client, server));
    balancer.assert_no_leaks();
}

#[test]
fn networks_and_limits_of_one_client_do_not_apply_to_clients_of_a_unix_socket() {
    let env = TestEnv::new();
    let path = env.file("server.sock");
    let limits = "allow = [\"192.0.2.0/24\"]\nclients_max = 1\nrate.per_client = \"1/h\"";
    let config = Config::new(&env).more(&frontend(&env, limits)).more(&named("a", &path));
    let listener = listen(&SockAddr::unix(&path).unwrap(), 128);
    let balancer = Balancer::start(&env, &config);
    let sessions: Vec<_> =
        (0..3).map(|_| (dial(&socket_of(&env)).unwrap(), accept(&listener))).collect();
    for (client, server) in &sessions {
        pour(client, b"in");
        assert_eq!(drain(server), b"in");
    }
    drop(sessions);
    balancer.assert_no_leaks();
}

#[test]
fn clients_of_a_unix_socket_are_distributed_though_they_have_no_address() {
    let env = TestEnv::new();
    let paths = ["a", "b"].map(|name| env.file(name));
    let _servers = [Naming::start(&paths[0], "a"), Naming::start(&paths[1], "b")];
    let config = Config::new(&env).backend("balance = \"source\"").more(&frontend(&env, ""));
    let config = config.more(&named("a", &paths[0])).more(&named("b", &paths[1]));
    let balancer = Balancer::start(&env, &config);
    let answers: String = (0..200).map(|_| fetch(&socket_of(&env)).unwrap()).collect();
    let of_a = answers.matches('a').count();
    assert!((20..=180).contains(&of_a), "{of_a} of 200");
    balancer.assert_no_leaks();
}

#[test]
fn all_workers_accept_from_one_socket() {
    let env = TestEnv::new();
    let path = env.file("server.sock");
    let _server = Naming::start(&path, "a");
    let config = Config::new(&env).workers(4).more(&frontend(&env, "")).more(&named("a", &path));
    let balancer = Balancer::start(&env, &config);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(fetch(&socket_of(&env)).unwrap(), "a");
                }
            });
        }
    });
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("done"), 800.0);
}

#[test]
fn a_limit_of_sessions_makes_clients_wait_in_the_backlog() {
    let env = TestEnv::new();
    let path = env.file("server.sock");
    let listener = listen(&SockAddr::unix(&path).unwrap(), 128);
    let config = Config::new(&env).workers(2).more(&frontend(&env, "sessions_max = 2"));
    let balancer = Balancer::start(&env, &config.more(&named("a", &path)));
    let frontend = socket_of(&env);
    thread::scope(|scope| {
        let clients = [(); 6].map(|()| scope.spawn(|| fetch(&frontend).unwrap()));
        for _ in 0..clients.len() {
            let server = accept(&listener);
            let active = balancer.metrics().value("evenkeel_sessions_active", &[]);
            assert!(active <= 2.0, "{active} sessions");
            pour(&server, b"served");
        }
        assert!(clients.map(|client| client.join().unwrap()).iter().all(|got| got == "served"));
    });
    balancer.assert_no_leaks();
}

#[test]
fn the_file_is_open_to_all_replaces_a_stale_one_and_is_removed_at_the_end() {
    for signals in 1..=2 {
        let env = TestEnv::new();
        let path = env.file("web.sock");
        drop(UnixListener::bind(&path).unwrap());
        let mut scene = Scene::start(&env, (true, true));
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o666);
        let (client, server) = scene.session();
        scene.balancer.signal(Signal::SIGTERM);
        until("no client can connect any more", || !path.exists());
        // The session continues during the drain.
        pour(&client, b"draining");
        if signals == 2 {
            scene.balancer.signal(Signal::SIGTERM);
        } else {
            assert_eq!(drain(&server), b"draining");
        }
        drop((client, server));
        assert!(scene.balancer.wait().success());
        assert!(!path.exists());
    }
}

#[test]
fn a_socket_in_use_or_a_file_in_the_way_is_an_error_and_is_left_alone() {
    let env = TestEnv::new();
    let path = env.file("web.sock");
    let config = Config::new(&env).more(&frontend(&env, "")).more(&named("a", &env.file("none")));
    let fails = |what: &str| {
        let mut balancer = Balancer::spawn(&env, run_command(&env, &config.text()));
        assert_eq!(balancer.wait().code(), Some(1));
        let log = balancer.application_log();
        let at = format!("evenkeel.toml:{}:", line_of(&config.text(), "unix:"));
        assert!(log.contains(what) && log.contains(&at), "{log}");
        assert!(!env.file("control.sock").exists());
    };
    let theirs = UnixListener::bind(&path).unwrap();
    fails("is used by another process; stop that process");
    assert!(path.exists() && getsockopt(&theirs, AcceptConn).unwrap());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    fails("exists and is not a socket; remove it");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).unwrap() + 1
}

#[test]
fn a_file_of_another_process_is_not_removed_at_the_end() {
    let env = TestEnv::new();
    let path = env.file("web.sock");
    let mut scene = Scene::start(&env, (true, true));
    fs::remove_file(&path).unwrap();
    let _theirs = UnixListener::bind(&path).unwrap();
    scene.balancer.signal(Signal::SIGTERM);
    assert!(scene.balancer.wait().success());
    assert!(path.exists());
}

#[test]
fn a_reload_keeps_a_socket_that_stays_and_removes_one_that_goes() {
    let env = TestEnv::new();
    let (path, server) = (env.file("web.sock"), env.file("server.sock"));
    let _server = Naming::start(&server, "a");
    let without = Config::new(&env).workers(2).more(&named("a", &server));
    let with = without.clone().more(&frontend(&env, ""));
    let balancer = Balancer::start(&env, &with);
    let inode = || fs::symlink_metadata(&path).unwrap().ino();
    let first = inode();
    let mut session = dial(&socket_of(&env)).unwrap();
    session.read_exact(&mut [0]).unwrap();
    balancer.reload(&with.clone().backend("retries = 1"));
    assert_eq!(inode(), first);
    assert_eq!(fetch(&socket_of(&env)).unwrap(), "a");
    balancer.reload(&without);
    assert!(!path.exists());
    session.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&session), b"");
    balancer.reload(&with);
    assert_eq!(fetch(&socket_of(&env)).unwrap(), "a");
    drop(session);
    balancer.assert_no_leaks();
    // A socket in use refuses the reload, and nothing changes.
    let taken = env.file("taken.sock");
    let _theirs = UnixListener::bind(&taken).unwrap();
    let other = format!("[frontend.x]\nbind = [\"unix:{}\"]\nbackend = \"web\"", taken.display());
    balancer.rewrite(&with.clone().more(&other).text());
    assert!(!balancer.control(&["reload"]).status.success());
    assert_eq!(fetch(&socket_of(&env)).unwrap(), "a");
    balancer.assert_no_leaks();
}

#[test]
fn clients_that_come_during_reloads_are_all_served() {
    let env = TestEnv::new();
    let server = env.file("server.sock");
    let _server = Naming::start(&server, "a");
    let config = Config::new(&env).workers(2).more(&frontend(&env, "")).more(&named("a", &server));
    let balancer = Balancer::start(&env, &config);
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            for number in 0..500 {
                assert_eq!(fetch(&socket_of(&env)).unwrap(), "a", "client {number}");
            }
        });
        let mut reloads = 0;
        while !clients.is_finished() {
            balancer.reload(&config.clone().backend(&format!("retries = {}", reloads % 5)));
            reloads += 1;
        }
        clients.join().unwrap();
        assert!(reloads > 0);
    });
    balancer.assert_no_leaks();
}

#[test]
fn after_a_change_of_user_the_socket_belongs_to_that_user_and_is_removed() {
    if !nix::unistd::geteuid().is_root() {
        let test = "after_a_change_of_user_the_socket_belongs_to_that_user_and_is_removed";
        skip(test, "only root can change to another user");
        return;
    }
    const NOBODY: u32 = 65_534;
    let env = TestEnv::new();
    let path = env.file("web.sock");
    chown(env.folder(), Some(NOBODY), Some(NOBODY)).unwrap();
    let server = Server::naming("a", env.port(9001));
    let config = Config::new(&env).global("user = \"nobody\"").more(&frontend(&env, ""));
    let config = config.server("a", server.address);
    // The process reads its file again as that user.
    let mut balancer = Balancer::start(&env, &config);
    assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), NOBODY);
    assert_eq!(fetch(&socket_of(&env)).unwrap(), "a");
    let second = format!(
        "[frontend.second]\nbind = [\"unix:{}\"]\nbackend = \"web\"",
        env.file("second.sock").display()
    );
    let config = config.more(&second);
    balancer.reload(&config);
    let at = SockAddr::unix(env.file("second.sock")).unwrap();
    assert_eq!(fetch(&at).unwrap(), "a");
    // A directory of root: a dry run promises nothing that a reload cannot do.
    fs::create_dir(env.file("closed")).unwrap();
    fs::set_permissions(env.file("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = second.replace("second", "closed").replace("closed.sock", "closed/web.sock");
    balancer.rewrite(&config.more(&closed).text());
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let output = balancer.control(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        let remedy = "allow the user of evenkeel to write in the directory";
        assert!(printed(&output).contains(remedy), "{}", printed(&output));
    }
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    assert!(!path.exists() && !env.file("second.sock").exists());
}

#[test]
fn a_reader_that_takes_its_time_is_not_idle() {
    // Bytes that wait in the socket of the client are progress as long as it reads.
    let env = TestEnv::new();
    let config = Config::new(&env);
    let path = env.file("server.sock");
    let listener = listen(&SockAddr::unix(&path).unwrap(), 128);
    let limits = "idle_timeout = \"5s\"";
    let config = config.more(&frontend(&env, limits)).more(&named("a", &path));
    let balancer = Balancer::start(&env, &config);
    let (mut client, server) = (dial(&socket_of(&env)).unwrap(), accept(&listener));
    let body = noise(5, 96 * 1024);
    (&server).write_all(&body).unwrap();
    let mut received = Vec::new();
    let mut part = vec![0; 4096];
    while received.len() < body.len() {
        client.read_exact(&mut part).unwrap();
        received.extend_from_slice(&part);
        // 12 seconds in all: more than twice the idle timeout.
        crate::common::wait::pause(std::time::Duration::from_millis(500));
    }
    assert!(received == body);
    // And then it is.
    balancer.session_ended("cD idle_timeout");
    drop((client, server));
    balancer.assert_no_leaks();
}
