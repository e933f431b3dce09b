//! SMTP: a scripted server that speaks first, and curl, which waits for it; in plain text, and with
//! TLS that begins in the middle (STARTTLS).

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificate::Certificate;
use crate::common::wait::pause;
use crate::common::{Balancer, Config, Server, TestEnv};
use crate::program::run;
use crate::support::{command, has_programs};

/// How long the server thinks before it greets.
const DELAY: Duration = Duration::from_millis(500);

/// The name of the server in its certificate.
const NAME: &str = "mail.test";

/// What a server has received.
#[derive(Debug)]
struct Mail {
    text: String,
    encrypted: bool,
}

/// Starts a server that sends each mail to the receiver. It offers STARTTLS.
fn start(env: &TestEnv, tls: Arc<ServerConfig>) -> (Server, mpsc::Receiver<io::Result<Mail>>) {
    let (sender, mails) = mpsc::channel();
    let server = Server::start(env.port(2525), move |stream| {
        drop(sender.send(serve(stream, Arc::clone(&tls))));
    });
    (server, mails)
}

fn serve(mut stream: TcpStream, tls: Arc<ServerConfig>) -> io::Result<Mail> {
    pause(DELAY);
    stream.set_nonblocking(true)?;
    let early = stream.peek(&mut [0]);
    let waits = early.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    assert!(waits, "the client waits for the greeting");
    stream.set_nonblocking(false)?;
    stream.write_all(b"220 mail.test ready\r\n")?;
    if let Some(text) = dialogue(&mut stream)? {
        return Ok(Mail { text, encrypted: false });
    }
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let text = dialogue(&mut stream)?.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Mail { text, encrypted: true })
}

/// Answers the client up to its QUIT: the mail; none: it wants TLS now.
fn dialogue(stream: &mut (impl Read + Write)) -> io::Result<Option<String>> {
    let mut mail = None;
    loop {
        let line = read_to(stream, "\r\n")?;
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let answer = match &*word {
            "EHLO" => "250-mail.test\r\n250 STARTTLS\r\n",
            "STARTTLS" => "220 go ahead\r\n",
            "DATA" => "354 go ahead\r\n",
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        stream.write_all(answer.as_bytes())?;
        match &*word {
            "STARTTLS" => return Ok(None),
            "QUIT" => return Ok(mail),
            "DATA" => {
                mail = Some(read_to(stream, "\r\n.\r\n")?);
                stream.write_all(b"250 queued\r\n")?;
            }
            _ => {}
        }
    }
}

/// Reads up to `end`, and no byte further: TLS may begin there.
fn read_to(stream: &mut impl Read, end: &str) -> io::Result<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(end.as_bytes()) {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    bytes.truncate(bytes.len() - end.len());
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Sends a mail through the frontend.
fn curl(env: &TestEnv, mail: &str) -> Command {
    let file = env.file("mail");
    fs::write(&file, mail).unwrap();
    let frontend = env.frontend();
    let port = frontend.port();
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]);
    curl.args(["--resolve", &format!("{NAME}:{port}:{}", frontend.ip())]);
    curl.args(["--mail-from", "a@example.org", "--mail-rcpt", "b@example.org", "--upload-file"]);
    curl.arg(file).arg(format!("smtp://{NAME}:{port}"));
    curl
}

/// A mail of many lines, without its last line break.
fn mail() -> String {
    let lines = (0..1000).map(|number| format!("line {number} of a mail\r\n"));
    format!("Subject: test\r\n\r\n{}", lines.collect::<String>()).trim_end().to_owned()
}

#[test]
fn a_client_waits_for_a_server_that_speaks_first() {
    if !has_programs("a_client_waits_for_a_server_that_speaks_first", &["curl"]) {
        return;
    }
    let env = TestEnv::new();
    let (server, mails) = start(&env, Certificate::new(&env, &[NAME]).server_config());
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let began = Instant::now();
    run(&env, curl(&env, &(mail() + "\r\n")));
    assert!(began.elapsed() >= DELAY);
    let received = mails.recv().unwrap().unwrap();
    assert!(!received.encrypted && received.text == mail(), "{received:?}");
    let metrics = balancer.assert_no_leaks();
    assert_eq!(metrics.closed("done"), 1.0);
}

#[test]
fn tls_that_begins_in_the_middle_passes_unchanged() {
    if !has_programs("tls_that_begins_in_the_middle_passes_unchanged", &["curl"]) {
        return;
    }
    let env = TestEnv::new();
    let certificate = Certificate::new(&env, &[NAME]);
    let (server, mails) = start(&env, certificate.server_config());
    let balancer = Balancer::start(&env, &Config::new(&env).server("a", server.address));
    let mut curl = curl(&env, &(mail() + "\r\n"));
    curl.arg("--ssl-reqd").arg("--cacert").arg(&certificate.file);
    run(&env, curl);
    let received = mails.recv().unwrap().unwrap();
    assert!(received.encrypted && received.text == mail(), "{received:?}");
    balancer.assert_no_leaks();
}
