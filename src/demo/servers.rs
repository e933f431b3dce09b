//! The web servers of the tour: each answers every request with its name, and closes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

/// A web server on loopback. Dropping it stops the server and closes its port.
#[derive(Debug)]
pub(super) struct WebServer {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Browsers open connections in advance and may leave them idle for longer; they then open others.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// More than a browser sends.
const REQUEST_MAX: usize = 16 * 1024;

impl WebServer {
    /// Starts a server that answers `name` on `port`.
    pub(super) fn start(name: &str, port: u16) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name(name.to_owned()).spawn({
            let (name, listener) = (name.to_owned(), Arc::clone(&listener));
            let stopped = Arc::clone(&stopped);
            move || serve(&listener, &name, &stopped)
        })?;
        Ok(Self { address, listener, stopped, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes accept(2), and resets the connections in the backlog.
        let woken = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, name: &str, stopped: &AtomicBool) {
    for stream in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of descriptors: wait until some are closed.
            thread::park_timeout(Duration::from_millis(10));
            continue;
        };
        let name = name.to_owned();
        drop(thread::Builder::new().spawn(move || answer(stream, &name)));
    }
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = stream.read(&mut piece)?;
        if length == 0 || request.len() > REQUEST_MAX {
            return Ok(());
        }
        request.extend_from_slice(&piece[..length]);
    }
    stream.write_all(page(name, &String::from_utf8_lossy(&request)).as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// For a browser, a page without an icon: a request for one would take a turn of the rotation. For
/// every other client, the bare name.
fn page(name: &str, request: &str) -> String {
    let browser = request.lines().any(|line| {
        line.to_ascii_lowercase().strip_prefix("accept:").is_some_and(|v| v.contains("text/html"))
    });
    let (kind, body) = if browser {
        let body = format!(
            "<!doctype html><title>{name}</title><link rel=\"icon\" href=\"data:,\">\
             <h1>{name}</h1><p>Reload, and another server answers.</p>\n"
        );
        ("text/html", body)
    } else {
        ("text/plain", format!("{name}\n"))
    };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::browser;

    #[test]
    fn a_server_answers_its_name_and_refuses_connections_once_it_is_stopped() {
        let server = WebServer::start("pi-7", 0).unwrap();
        let address = server.address();
        assert_eq!(browser::page(address, "/").unwrap(), "pi-7");
        drop(server);
        assert_eq!(
            browser::page(address, "/").unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn an_idle_client_does_not_delay_others() {
        let server = WebServer::start("pi-7", 0).unwrap();
        let silent = TcpStream::connect(server.address()).unwrap();
        assert_eq!(browser::page(server.address(), "/").unwrap(), "pi-7");
        drop(silent);
    }

    #[test]
    fn the_page_for_a_browser_names_an_empty_icon() {
        let page = page("pi-1", "GET / HTTP/1.1\r\nAccept: text/html,*/*\r\n\r\n");
        assert!(page.contains("<h1>pi-1</h1>") && page.contains("data:,"), "{page}");
    }
}
