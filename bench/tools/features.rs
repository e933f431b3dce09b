//! The cost of a connection with what a balancer may do for it: other ways to balance, a PROXY
//! header, routing by server name. Each row sets up HAProxy for the same.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::configuration::Setup;
use crate::rounds::{Bench, Comparison, Layout};
use crate::work::{Load, connections};

/// What a balancer does for each connection, beside relaying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Round robin, and nothing else.
    RoundRobin,
    /// The server with the fewest sessions.
    LeastConnections,
    /// By the client's address.
    Source,
    /// A PROXY header of version 2 to the server.
    SendProxy,
    /// The backend by the server name of the `ClientHello`.
    ServerName,
}

impl Feature {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::RoundRobin, "feature-roundrobin", "a connection, round robin"),
        (Self::LeastConnections, "feature-leastconn", "a connection, leastconn"),
        (Self::Source, "feature-source", "a connection, by the client's address"),
        (Self::SendProxy, "feature-send-proxy", "a connection, PROXY v2 to the server"),
        (Self::ServerName, "feature-sni", "a connection, backend by server name"),
    ];

    /// For evenkeel: the name of the algorithm, lines for the frontend, and lines for the backend.
    pub(crate) fn evenkeel(self) -> [&'static str; 3] {
        match self {
            Self::RoundRobin => ["roundrobin", "backend = \"bench\"\n", ""],
            Self::LeastConnections => ["leastconn", "backend = \"bench\"\n", ""],
            Self::Source => ["source", "backend = \"bench\"\n", ""],
            Self::SendProxy => ["roundrobin", "backend = \"bench\"\n", "send_proxy = \"v2\"\n"],
            Self::ServerName => ["roundrobin", "sni = { \"bench.example\" = \"bench\" }\n", ""],
        }
    }

    /// The same for HAProxy; in place of lines for the backend, options of each server.
    pub(crate) fn haproxy(self) -> [&'static str; 3] {
        let default = "    default_backend bench\n";
        match self {
            Self::RoundRobin => ["roundrobin", default, ""],
            Self::LeastConnections => ["leastconn", default, ""],
            Self::Source => ["source", default, ""],
            Self::SendProxy => ["roundrobin", default, " send-proxy-v2"],
            Self::ServerName => [
                "roundrobin",
                "    tcp-request inspect-delay 3s\n    tcp-request content accept if { \
                 req.ssl_hello_type 1 }\n    use_backend bench if { req.ssl_sni -i bench.example \
                 }\n",
                "",
            ],
        }
    }
}

impl Bench {
    /// All of them, compared with each other as well.
    pub(crate) fn features(&self) -> io::Result<()> {
        let hello: &'static [u8] = client_hello()?.leak(); // of a few hundred bytes, once
        let comparisons = Feature::ALL.map(|(feature, name, title)| {
            let hello = if feature == Feature::ServerName { hello } else { &[] };
            let setup = Setup { feature, hello, ..self.layout().setup };
            let layout = Layout { setup, ..self.layout() };
            let load = Load { hello, ..connections(64) };
            Comparison::throughput(name.to_owned(), title.to_owned(), load, layout)
        });
        self.compare_apart(&comparisons)
    }
}

/// The first bytes of a TLS client that asks for `bench.example`.
fn client_hello() -> io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("bench.example").map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}
