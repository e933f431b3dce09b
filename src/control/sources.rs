//! The addresses that connections to servers come from, as far as this machine has them: without
//! one, each connect from it fails with the reason `no_source`.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use crate::config::{BackendSettings, Config, Span};
use crate::sys::socket_options::{may_be_transparent, try_source};
use crate::sys::zone;

/// What is wrong now with the source addresses of a backend: "what is wrong; what to do".
#[must_use]
pub fn problems(backend: &BackendSettings) -> Vec<(Span, String)> {
    let addresses = backend.source.addresses();
    let tried =
        addresses.filter_map(|(source, span)| Some((source, span, try_source(source).err()?)));
    let addresses = tried.map(|(source, span, error)| (span, explain(source, &error)));
    addresses.chain(denied(backend)).collect()
}

/// The backends that may not connect from the addresses of their clients.
#[must_use]
pub fn denied_all(config: &Config) -> Vec<(Span, String)> {
    config.backends.iter().filter_map(|backend| denied(backend)).collect()
}

fn denied(backend: &BackendSettings) -> Option<(Span, String)> {
    let span = backend.source.client()?;
    let error = may_be_transparent().err()?;
    let text = format!(
        "source = \"client\" is not permitted ({error}); grant CAP_NET_ADMIN (systemd: \
         AmbientCapabilities= and CapabilityBoundingSet=), or start evenkeel as root, and restart \
         it"
    );
    Some((span, text))
}

/// Logs what is wrong with the source addresses of a configuration.
pub fn warn(config: &Config) {
    for backend in &config.backends {
        for (span, problem) in problems(backend) {
            tracing::warn!("{}backend {}: {problem}", config.locate(span), backend.name);
        }
    }
}

/// Why connections cannot come from `source`.
#[must_use]
pub fn explain(source: SocketAddr, error: &io::Error) -> String {
    if let Some(interface) = zone::missing(source) {
        return format!("source {}: this machine has no interface {interface}", source.ip());
    }
    let ip = source.ip();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRNOTAVAIL) => format!(
            "source {ip} is not an address of this machine (EADDRNOTAVAIL); add it (`ip address \
             add`), or correct it"
        ),
        _ => format!("source {ip} cannot be used: {error}; correct it"),
    }
}
