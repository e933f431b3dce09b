//! What fuzzing checks of what the operator sees: HTTP answers every request once, and text from
//! elsewhere adds no line, no series, no element and no control character.

#![expect(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what does not hold is found by a panic"
)]

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::config::LogFormat;
use crate::observe::connection_limit::RequestArrived;
use crate::observe::exposition::{Exposition, Recorder};
use crate::observe::report::Report;
use crate::observe::sample::{World, world};
use crate::observe::{application_log, http, page, sample};
use crate::shared::records::SessionRecord;
use crate::shared::snapshot::Snapshot;

/// Bytes of a client of `observe.bind`. The first byte chooses how many come at a time.
pub fn http_request(input: &[u8]) {
    let Some((step, bytes)) = input.split_first() else { return };
    let bytes = &bytes[..bytes.len().min(32 * 1024)];
    let piece = usize::from(*step).max(bytes.len() / 16).max(1);
    let whole = status(&http_answer(bytes, bytes.len().max(1)));
    let in_pieces = status(&http_answer(bytes, piece));
    // hyper hangs up on the preface of HTTP/2 without an answer, if it comes at once.
    if let (Some(whole), Some(in_pieces)) = (whole, in_pieces) {
        assert_eq!(whole, in_pieces, "in pieces of {piece} bytes");
    }
    for status in whole.into_iter().chain(in_pieces) {
        assert!(matches!(status, 200 | 400 | 404 | 405 | 413 | 414 | 431), "{status}");
    }
}

/// What a client gets that sends these bytes, so many at a time, and then nothing more.
fn http_answer(bytes: &[u8], piece: usize) -> Vec<u8> {
    let World { runtime, control, shared } = world();
    runtime.block_on(async {
        let (mut client, server) = duplex(1024 * 1024);
        let router = http::router(control.clone(), Arc::clone(shared));
        let serving = tokio::spawn(http::converse(server, RequestArrived::default(), router));
        for piece in bytes.chunks(piece) {
            // It may have answered and hung up.
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(client.shutdown().await);
        let mut received = Vec::new();
        drop(client.read_to_end(&mut received).await);
        assert!(serving.await.is_ok(), "a connection panicked");
        received
    })
}

/// The status of the only response; none: there is none.
fn status(received: &[u8]) -> Option<u16> {
    if received.is_empty() {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(received) else {
        panic!("{}", received.escape_ascii());
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name == name);
        header.and_then(|header| str::from_utf8(header.value).ok())
    };
    let body = &received[head..];
    let is_one = if value("transfer-encoding") == Some("chunked") {
        body.is_empty() || is_one_chunked(body)
    } else if let Some(length) = value("content-length") {
        body.is_empty() || length.parse() == Ok(body.len())
    } else {
        // The end of the connection is the end of the body.
        response.version == Some(0) || value("connection") == Some("close")
    };
    assert!(is_one, "one response: {}", received.escape_ascii());
    response.code
}

/// Whether these bytes are one chunked body, with nothing behind it (RFC 9112, 7.1).
fn is_one_chunked(mut body: &[u8]) -> bool {
    while let Ok(httparse::Status::Complete((head, length))) = httparse::parse_chunk_size(body) {
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(head);
        let Some(rest) = body.get(end..).and_then(|rest| rest.strip_prefix(b"\r\n")) else {
            return false;
        };
        if length == 0 {
            return rest.is_empty();
        }
        body = rest;
    }
    false
}

/// Texts from elsewhere, each ends with a zero byte: the names of a frontend, a backend and a
/// server, and why a probe failed. In a name they would come from a configuration, in a reason from
/// a server.
pub fn output(input: &[u8]) {
    let input = &input[..input.len().min(4096)];
    let mut parts = input.splitn(4, |byte| *byte == 0);
    let texts: [String; 4] =
        std::array::from_fn(|_| String::from_utf8_lossy(parts.next().unwrap_or_default()).into());
    session_log(&texts);
    application_log(&texts[3]);
    let shared = &world().shared;
    let exposition = Exposition::new(snapshot(&texts), Arc::clone(shared), &Recorder::new());
    metrics(&exposition.collect::<String>(), &texts);
    let report = Report::new(&snapshot(&texts), shared);
    let usual = Report::new(&snapshot(&["a", "b", "c", "d"].map(str::to_owned)), shared);
    let plain = report.text();
    assert_eq!(plain.lines().count(), usual.text().lines().count(), "{plain:?}");
    assert!(!plain.contains(|c: char| c.is_control() && c != '\n'), "{plain:?}");
    let (html, usual) = (page::render(&report), page::render(&usual));
    for mark in ['<', '>', '"'] {
        assert_eq!(html.matches(mark).count(), usual.matches(mark).count(), "{mark}: {html}");
    }
}

fn session_log([frontend, backend, server, _]: &[String; 4]) {
    let record = SessionRecord {
        frontend: frontend.as_str().into(),
        backend: backend.as_str().into(),
        server: Some(server.as_str().into()),
        ..SessionRecord::sample()
    };
    let (mut text, mut json, mut usual) = (String::new(), String::new(), String::new());
    record.line(LogFormat::Text, &mut text);
    record.line(LogFormat::Json, &mut json);
    SessionRecord::sample().line(LogFormat::Text, &mut usual);
    one_line(&text);
    // A configuration accepts no name with a control character that JSON does not escape.
    assert!(json.ends_with('\n') && json.lines().count() == 1, "{json:?}");
    let names = [frontend, backend, server];
    if names.iter().all(|name| !name.is_empty()) {
        let words = |line: &str| line.split_whitespace().count();
        assert_eq!(words(&text), words(&usual), "{text:?}");
    }
    let Ok(serde_json::Value::Object(read)) = serde_json::from_str(&json) else {
        panic!("{json:?}");
    };
    for (key, name) in ["frontend", "backend", "server"].into_iter().zip(names) {
        // An empty name, which a configuration does not accept, stands for one that is not known.
        let found = read.get(key).and_then(serde_json::Value::as_str);
        assert_eq!(found.unwrap_or_default(), name);
    }
}

fn application_log(text: &str) {
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = application_log::line(format, &format!("server a/b is down: {text}"));
        one_line(&line);
        assert!(line.contains("server a/b is down: "), "{line:?}");
    }
}

/// One line, and no control characters but its end.
fn one_line(line: &str) {
    let inside = line.strip_suffix('\n');
    assert!(inside.is_some_and(|inside| !inside.contains(char::is_control)), "{line:?}");
}

/// The sample, with these names and this reason.
fn snapshot([frontend, backend, server, reason]: &[String; 4]) -> Snapshot {
    let mut snapshot = sample::snapshot();
    snapshot.frontends[0].name = frontend.as_str().into();
    snapshot.frontends[0].backend = backend.as_str().into();
    snapshot.backends[0].name = backend.as_str().into();
    let mut named = sample::server(server, false);
    named.backend = backend.as_str().into();
    named.written = server.as_str().into();
    named.last_probe.detail = reason.as_str().into();
    snapshot.servers[0] = named;
    snapshot
}

/// Every line is a comment or a sample with the labels that were given.
fn metrics(text: &str, [frontend, backend, server, _]: &[String; 4]) {
    assert!(text.ends_with('\n'));
    let names = [("frontend", frontend), ("backend", backend), ("server", server)];
    let mut found = [false; 3];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((labels, value)) = series(line) else { panic!("{line:?}") };
        assert!(value.parse::<f64>().is_ok(), "{line:?}");
        for ((name, wanted), found) in names.into_iter().zip(&mut found) {
            *found |= labels.iter().any(|(key, value)| *key == name && value == wanted);
        }
    }
    assert_eq!(found, [true; 3], "every name is a label:\n{text}");
}

/// The labels of a line of the text format, and its value.
fn series(line: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let is_name = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_numeric())
    };
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let label = label.strip_prefix(',').unwrap_or(label);
            let (value, behind) = unquoted(quoted)?;
            labels.push((label, value));
            rest = behind;
            if !is_name(label) {
                return None;
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?;
    (is_name(name) && !value.contains(' ')).then_some((labels, value))
}

/// A label value up to its quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.chars());
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
}
