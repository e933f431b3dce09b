//! One probe: it connects, sends a PROXY header and does the TLS handshake where those are set, and
//! then checks the server by an HTTP request or a dialogue.

use std::borrow::Cow;
use std::net::SocketAddr;

use tokio::time::Instant;

use crate::config::Check;
use crate::control::cluster::{ProbeCheck, ProbeTarget};
use crate::control::probe_exchange;
use crate::control::probe_failure::Failure;
use crate::control::probe_http;
use crate::control::probe_stream::ProbeStream;
use crate::control::probe_tls;
use crate::shared::proxy_header::{ProxyTlvs, ProxyVersion, header};
use crate::sys::probe_socket::ProbeSocket;

/// Probes a target, from the source address whose `turn` it is. The result is for the operator.
pub(super) async fn probe(
    target: &ProbeTarget,
    turn: usize,
    deadline: Instant,
) -> Result<Cow<'static, str>, Failure> {
    let ProbeCheck { health, proxy, source: sources } = &*target.check;
    let timeout = health.timeout;
    let mut address = target.address.clone();
    if let Some(port) = health.port {
        address.set_port(port);
    }
    let ip = address.for_client(None); // none: a unix socket
    if let Some(ip) = ip.filter(|ip| sources.lacks_family_of(*ip)) {
        return Err(Failure::no_source(ip));
    }
    let source = ip.and_then(|ip| sources.of_turn(ip, turn));
    let not_connected = |error| Failure::of(error, "no connection", timeout);
    let is_tcp = matches!(health.check, Check::Tcp | Check::Off);
    if is_tcp && health.tls.is_none() && proxy.is_none() {
        let connected = ProbeSocket::connect_without_ack(source, &address, deadline).await;
        return connected.map(|_| Cow::Borrowed("connected")).map_err(not_connected);
    }
    let socket = ProbeSocket::connect(source, &address, deadline).await.map_err(not_connected)?;
    if let Some(version) = proxy {
        let header = proxy_header(*version, &socket, ip);
        socket.send(header).await.map_err(|error| Failure::of(error, "not sent", timeout))?;
    }
    let mut stream = match &health.tls {
        None => ProbeStream::plain(socket),
        Some((tls, _)) => {
            let client = probe_tls::client(tls.verify).map_err(Failure::unable)?;
            let name = probe_tls::name(tls, target.host.as_deref(), ip);
            let name = name.map_err(Failure::unable)?;
            ProbeStream::tls(socket, client, name, timeout).await?
        }
    };
    match health.check {
        Check::Http => {
            probe_http::check(&mut stream, &health.http, &target.host_header, timeout).await
        }
        Check::Exchange => probe_exchange::check(&mut stream, &health.exchange.0, timeout).await,
        Check::Tcp | Check::Off if health.tls.is_some() => {
            return Ok(Cow::Borrowed("TLS handshake completed"));
        }
        Check::Tcp | Check::Off => return Ok(Cow::Borrowed("connected")),
    }
    .map(Cow::Owned)
}

/// The PROXY header of a probe, as HAProxy sends it: that of version 1 has the addresses of this
/// connection, that of version 2 says that the proxy itself connects (LOCAL).
fn proxy_header(version: ProxyVersion, socket: &ProbeSocket, peer: Option<SocketAddr>) -> Vec<u8> {
    let (own, peer) = match version {
        ProxyVersion::V1 => (socket.local_address(), peer),
        ProxyVersion::V2 => (None, None),
    };
    header(version, own, peer, &ProxyTlvs::default())
}
