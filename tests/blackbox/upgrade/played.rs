//! A new process whose old one the test plays: it serves nobody before it is put in charge.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use evenkeel::sys::child::die_with_parent;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::common::client::{connect, exchange};
use crate::common::wait::{TIMEOUT, holds_for, until_some};
use crate::common::{Server, http};

/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(500);

/// The first totals, which put a new process in charge: a message without counters.
const TOTALS: &[u8] = b"\x02\0\0\0{}";

/// A new process that is ready, and the old one's part of what both have.
struct New {
    child: Child,
    stream: UnixStream,
    frontend: Socket,
    observe: TcpListener,
}

impl New {
    /// Starts it with two workers, of which one has a socket, and waits for its report.
    fn ready(env: &TestEnv) -> Self {
        let config = Config::new(env).server("a", env.port(9001)).workers(2);
        let frontend = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        frontend.set_reuse_address(true).unwrap();
        frontend.set_reuse_port(true).unwrap();
        frontend.bind(&env.frontend().into()).unwrap();
        frontend.listen(64).unwrap();
        let observe = TcpListener::bind(env.observe()).unwrap();
        let (mut stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut command = run_command(env, &config.text());
        command.env("EVENKEEL_UPGRADE", "1").env("NO_COLOR", "1").stdin(OwnedFd::from(theirs));
        let log = fs::File::create(env.file("application.log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        die_with_parent(&mut command);
        let child = command.spawn().unwrap();
        drop(command);
        let roles = ["frontend", "observe"];
        let sockets = roles.map(|role| format!(r#"{{"role":"{role}","file":null}}"#)).join(",");
        let offer = format!(r#"{{"protocol":1,"pid":1,"version":"0","sockets":[{sockets}]}}"#);
        stream.write_all(&message(&offer)).unwrap();
        let both = [frontend.as_fd(), observe.as_fd()];
        evenkeel::sys::descriptors::send(&stream, &both).unwrap();
        stream.write_all(&message("{}")).unwrap();
        let mut new = Self { child, stream, frontend, observe };
        let report = new.report();
        assert!(report.contains("ready"), "{report}: {}", log_of(env));
        new
    }

    fn report(&mut self) -> String {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Its exit code.
    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        until_some("it has ended", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for New {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(super) fn message(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn log_of(env: &TestEnv) -> String {
    fs::read_to_string(env.file("application.log")).unwrap()
}

/// A client that has sent something.
fn asking(address: SocketAddr, text: &[u8]) -> TcpStream {
    let mut client = connect(address);
    client.write_all(text).unwrap();
    client
}

/// Whether a client has got no answer and no end for a while.
fn is_unserved(clients: &[&TcpStream]) -> bool {
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    let waits = |mut client: &TcpStream| {
        client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let unserved = holds_for(A_WHILE, || clients.iter().all(|client| waits(client)));
    clients.iter().for_each(|client| client.set_nonblocking(false).unwrap());
    unserved
}

#[test]
fn a_new_process_serves_nobody_before_the_last_byte_that_puts_it_in_charge() {
    let env = TestEnv::new();
    let _server = Server::echo(env.port(9001));
    let mut new = New::ready(&env);
    let clients: Vec<TcpStream> = (0..40).map(|_| asking(env.frontend(), b"hello")).collect();
    let scrape = asking(env.observe(), b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut waiting: Vec<&TcpStream> = clients.iter().collect();
    waiting.push(&scrape);
    assert!(is_unserved(&waiting), "{}", log_of(&env));
    let (last, first) = TOTALS.split_last().unwrap();
    new.stream.write_all(first).unwrap();
    assert!(is_unserved(&waiting), "{}", log_of(&env));
    new.stream.write_all(&[*last]).unwrap();
    for mut client in &clients {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(exchange(client, b"again"), b"again");
    }
    assert_eq!(http::get(env.observe(), "/readyz").unwrap().0, 200);
    // Each worker accepts: the second one from a socket of its own.
    for _ in 0..40 {
        assert_eq!(exchange(&connect(env.frontend()), b"later"), b"later");
    }
}

#[test]
fn a_new_process_that_is_not_put_in_charge_ends_with_1_and_leaves_every_client_to_the_old_one() {
    for sent in [&b""[..], &TOTALS[..TOTALS.len() - 1]] {
        let env = TestEnv::new();
        let mut new = New::ready(&env);
        let client = asking(env.frontend(), b"hello");
        let scrape = asking(env.observe(), b"GET");
        new.stream.write_all(sent).unwrap();
        assert!(is_unserved(&[&client, &scrape]), "{}", log_of(&env));
        new.stream.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(new.code(), Some(1), "{}", log_of(&env));
        assert!(log_of(&env).contains("has not handed over"), "{}", log_of(&env));
        assert!(!env.file("control.sock").exists(), "it has removed what it had bound");
        new.frontend.set_nonblocking(true).unwrap();
        let (accepted, _) =
            until_some("the client is still in the backlog", || new.frontend.accept().ok());
        let mut text = [0; 5];
        TcpStream::from(accepted).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        new.observe.accept().unwrap();
    }
}

#[test]
fn a_signal_to_end_is_obeyed_by_a_new_process_once_it_is_in_charge() {
    let env = TestEnv::new();
    let mut new = New::ready(&env);
    let client = asking(env.frontend(), b"hello");
    let pid = crate::common::chain::pid(new.child.id());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(is_unserved(&[&client]), "{}", log_of(&env));
    drop(client);
    new.stream.write_all(TOTALS).unwrap();
    assert_eq!(new.code(), Some(0), "{}", log_of(&env));
    assert!(log_of(&env).contains("draining for"), "{}", log_of(&env));
}
