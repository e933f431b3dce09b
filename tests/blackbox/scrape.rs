//! The HTTP server under stress (case 98): long scrapes, clients that do not read, many
//! connections. Probes, orders and traffic go on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::common::client::{Ending, connect, exchange, read_to_end, shut_down};
use crate::common::process::Descriptors;
use crate::common::wait::{until_ok, until_some};
use crate::common::{Balancer, Config, Server, TestEnv, http, until};

/// A scrape of so many has 5 MB, more than the buffers of two sockets.
const SERVERS: u16 = 1500;

/// Documents that are sent at a time.
const DOCUMENTS_MAX: usize = 4;

/// That many servers, of which none listens, behind an echo server that is probed.
pub(crate) fn many(env: &TestEnv, echo: &Server) -> Config {
    let one = Config::new(env).quick_health("tcp").server("echo", echo.address);
    let mut servers =
        "[frontend.idle]\nbind = [\"unix:PATH\"]\nbackend = \"idle\"\n[backend.idle.health]\n\
                       check = \"off\"\n"
            .replace("PATH", &env.file("idle.sock").display().to_string());
    for number in 0..SERVERS {
        let address = env.port(10_000 + number);
        servers += &format!(
            "[[backend.idle.server]]\nname = \"server{number}\"\naddress = \"{address}\"\n"
        );
    }
    one.more(&servers)
}

/// Sends a request for `path`, with room for a few kilobytes of the answer.
fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    stream
}

/// Waits for the first bytes of an answer.
fn begun(mut stream: TcpStream) -> TcpStream {
    assert!(stream.read(&mut [0; 16]).is_ok_and(|read| read > 0));
    stream
}

/// Probes, orders and sessions go on.
fn assert_control_works(env: &TestEnv, balancer: &Balancer<'_>) {
    let probes = || {
        let status = balancer.control_ok(&["status", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&status).unwrap();
        let mut servers = report["servers"].as_array().unwrap().iter();
        let echo = servers.find(|server| server["name"] == "echo").unwrap();
        assert_eq!(echo["state"], "up");
        echo["probes_passed"].as_u64().unwrap()
    };
    let before = probes();
    balancer.control_ok(&["reload"]);
    until("the server is probed", || probes() > before + 1);
    assert_eq!(exchange(&connect(env.frontend()), b"hello"), b"hello");
}

#[test]
fn a_client_that_has_shut_down_gets_the_whole_scrape() {
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let _balancer = Balancer::start(&env, &many(&env, &echo));
    let client = ask(env.observe(), "/metrics");
    shut_down(&client);
    let (answer, ending) = read_to_end(&client);
    assert_eq!(ending, Ending::Orderly);
    assert!(answer.len() > 1_000_000 && answer.ends_with(b"\r\n0\r\n\r\n"), "{}", answer.len());
}

#[test]
fn scrapes_at_the_same_time_are_all_complete() {
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &many(&env, &echo));
    thread::scope(|scope| {
        let scrapes = [(); 3].map(|()| scope.spawn(|| http::get(env.observe(), "/metrics")));
        for scrape in scrapes {
            let (status, text) = scrape.join().unwrap().unwrap();
            assert_eq!(status, 200, "{text}");
            let up = text.lines().filter(|line| line.starts_with("evenkeel_server_up{")).count();
            assert_eq!(up, usize::from(SERVERS) + 1);
            assert!(text.lines().last().unwrap().starts_with("process_cpu_seconds_total "));
        }
    });
    assert_control_works(&env, &balancer);
}

#[test]
fn clients_that_do_not_read_are_cut_off_and_others_get_their_places() {
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &many(&env, &echo));
    let stalled = [(); DOCUMENTS_MAX].map(|()| begun(ask(env.observe(), "/metrics")));
    assert_control_works(&env, &balancer);
    until_ok("a scrape is answered", || match http::get(env.observe(), "/metrics").unwrap() {
        (200, _) => Ok(()),
        (503, text) if text.starts_with("too many documents are being sent") => Err(text),
        other => panic!("{other:?}"),
    });
    for mut stream in stalled {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_err() || !rest.ends_with(b"\r\n0\r\n\r\n"), "{} bytes", rest.len());
    }
    balancer.assert_no_leaks();
}

#[test]
fn beyond_the_documents_that_are_sent_a_scrape_is_refused_with_the_reason() {
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let balancer = Balancer::start(&env, &many(&env, &echo));
    // Some take the places of those that are cut off; the last ones wait too long.
    let stalled = [(); 3 * DOCUMENTS_MAX].map(|()| ask(env.observe(), "/metrics"));
    let healthy = http::get(env.observe(), "/healthz").unwrap();
    assert_eq!(healthy, (200, "ok\n".to_owned()), "it needs no place");
    let refused = until_some("a scrape is refused", || stalled.iter().find_map(refusal));
    let lower = refused.to_ascii_lowercase();
    assert!(lower.starts_with("http/1.1 503 ") && lower.contains("\r\nretry-after: 1\r\n"));
    assert!(refused.ends_with("too many documents are being sent; try again\n"), "{refused}");
    drop(stalled);
    balancer.assert_no_leaks();
}

/// The answer of a scrape, if it was refused.
fn refusal(stream: &TcpStream) -> Option<String> {
    let mut answer = [0; 1024];
    stream.set_nonblocking(true).unwrap();
    let length = stream.peek(&mut answer).unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    (text.starts_with("HTTP/1.1 503 ") && text.ends_with("again\n")).then_some(text)
}

#[test]
fn a_megabyte_in_a_request_line_is_refused() {
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let config = Config::new(&env).quick_health("tcp").server("echo", echo.address);
    let balancer = Balancer::start(&env, &config);
    for _ in 0..20 {
        let mut stream = connect(env.observe());
        // It may be closed before all was sent, with a reset.
        drop(stream.write_all(format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20)).as_bytes()));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    assert_control_works(&env, &balancer);
    balancer.assert_no_leaks();
}

#[test]
fn ten_thousand_connections_leave_probes_orders_and_sessions_alone() {
    let env = TestEnv::exclusive();
    let echo = Server::echo(env.port(9001));
    let config = Config::new(&env).quick_health("tcp").server("echo", echo.address);
    let balancer = Balancer::start(&env, &config);
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let count = usize::try_from(limit / 4).unwrap().min(10_000);
    let flood: Vec<Socket> = (0..count).map(|_| begin_connect(env.observe())).collect();
    assert_control_works(&env, &balancer);
    let base = balancer.base.sockets;
    let open = Descriptors::of(balancer.pid()).sockets;
    assert!(open < base + 200, "{open} sockets, {base} without the connections");
    drop(flood);
    until("a scrape is answered", || {
        http::get(env.observe(), "/metrics").is_ok_and(|(status, _)| status == 200)
    });
    balancer.assert_no_leaks();
}

fn begin_connect(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let begun = socket.connect(&address.into());
    let is_under_way = |error: &io::Error| error.raw_os_error() == Some(nix::libc::EINPROGRESS);
    assert!(begun.as_ref().err().is_none_or(is_under_way), "{begun:?}");
    socket
}

#[test]
fn clients_that_do_not_read_do_not_delay_the_exit() {
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let mut balancer = Balancer::start(&env, &many(&env, &echo));
    let control = || UnixStream::connect(env.file("control.sock")).unwrap();
    let (mut status, silent) = (control(), control());
    status.write_all(b"{\"do\":\"status\"}\n").unwrap();
    let scrapes = ["/metrics", "/status.json", "/"].map(|path| begun(ask(env.observe(), path)));
    // It is being written.
    status.read_exact(&mut [0; 16]).unwrap();
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait().success());
    drop((status, silent, scrapes));
}
