//! Clients and servers of the scenes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::common::client::{connect, connect_and_read, set_timeouts};
use crate::common::{Server, TestEnv};

/// A server that sends its name and shuts down, at port 9000 + the letter of its name.
pub(super) fn naming(env: &TestEnv, name: &str) -> Server {
    Server::naming(name, env.port(port_of(name)))
}

/// A server that answers each message with its name, as long as its client stays.
pub(super) fn answering(env: &TestEnv, name: &'static str) -> Server {
    Server::start(env.port(port_of(name)), move |mut stream| {
        let mut message = [0; 1024];
        while matches!(stream.read(&mut message), Ok(1..)) {
            if stream.write_all(name.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A server that answers `INFO` with its role, and any other message with its name.
pub(super) fn with_role(env: &TestEnv, name: &'static str, role: &'static str) -> Server {
    Server::start(env.port(port_of(name)), move |mut stream| {
        let mut message = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut message) {
            let answer = if message[..count].starts_with(b"INFO") { role } else { name };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// `a` is at port 9001, `b` at 9002.
pub(super) fn port_of(name: &str) -> u16 {
    let letter = name.bytes().next().unwrap_or_default();
    9001 + u16::from(letter - b'a')
}

/// The name of the server that a new client reaches; empty: the client was refused.
pub(super) fn name_at(address: SocketAddr) -> String {
    let (bytes, _) = connect_and_read(address);
    String::from_utf8(bytes).unwrap()
}

/// The names of so many clients, one after the other.
pub(super) fn names_at(address: SocketAddr, clients: usize) -> Vec<String> {
    (0..clients).map(|_| name_at(address)).collect()
}

/// How many of these names are `name`.
pub(super) fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|it| *it == name).count()
}

/// A session that stays open.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) stream: TcpStream,
    /// The server.
    pub(super) name: String,
}

/// Opens a session with a server that answers.
pub(super) fn open(address: SocketAddr) -> Session {
    let stream = connect(address);
    let name = ask(&stream);
    Session { stream, name }
}

/// Sends a message, and returns the answer; empty: the session has ended.
pub(super) fn ask(mut stream: &TcpStream) -> String {
    let mut answer = [0; 64];
    if stream.write_all(b"?").is_err() {
        return String::new();
    }
    let count = stream.read(&mut answer).unwrap_or_default();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

/// The answer to a message of a new client; empty: it was refused.
pub(super) fn name_of_answer(address: SocketAddr) -> String {
    let Ok(stream) = TcpStream::connect(address) else { return String::new() };
    set_timeouts(&stream);
    ask(&stream)
}

/// Whether a new client is served.
pub(super) fn answers(address: SocketAddr) -> bool {
    !name_of_answer(address).is_empty()
}

/// What a client gets that connects from an address of its own: the answer, empty if refused.
pub(super) fn name_from(source: IpAddr, address: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    if socket.connect(&address.into()).is_err() {
        return String::new();
    }
    let mut stream = TcpStream::from(socket);
    set_timeouts(&stream);
    let mut name = String::new();
    // A reset is a refusal as well.
    drop(stream.read_to_string(&mut name));
    name
}

/// A loopback address of this test process that nobody listens on.
pub(super) fn client_address(number: u8) -> IpAddr {
    IpAddr::from([127, 1, 1, number])
}

/// A `ClientHello` with a server name (RFC 8446, 4.1.2; RFC 6066, 3).
pub(super) fn client_hello(name: &str) -> Vec<u8> {
    let with_length = |bytes: &[u8], width: usize| {
        let length = (bytes.len() as u64).to_be_bytes();
        [&length[8 - width..], bytes].concat()
    };
    let host = [&[0][..], &with_length(name.as_bytes(), 2)].concat();
    let extension = [&[0, 0][..], &with_length(&with_length(&host, 2), 2)].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &with_length(&[0x13, 0x01], 2),
        &[1, 0],
        &with_length(&extension, 2),
    ]
    .concat();
    let handshake = [&[1][..], &with_length(&body, 3)].concat();
    [&[22, 3, 1][..], &with_length(&handshake, 2)].concat()
}
