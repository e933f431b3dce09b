//! Servers without a port of their own: a session connects to the port that its client connected
//! to, a port of the frontend.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::backend_settings::BackendSettings;
use super::bind_address::BindAddress;
use super::enums::Check;
use super::frontend_settings::FrontendSettings;
use super::problems::{Sink, shown};
use super::settings::Config;

/// The ports that clients of a backend connect to, in ascending order.
fn client_ports<'a>(
    frontends: impl IntoIterator<Item = &'a Arc<FrontendSettings>>,
    backend: &str,
) -> BTreeSet<u16> {
    let leading = frontends.into_iter().filter(|frontend| leads_to(frontend, backend));
    let addresses = leading.flat_map(|frontend| &frontend.bind).map(|(bind, _)| bind.addresses());
    addresses.flatten().filter_map(|address| address.port()).collect()
}

/// The port that all clients of a backend connect to, if there is only one.
#[must_use]
pub fn only_client_port<'a>(
    frontends: impl IntoIterator<Item = &'a Arc<FrontendSettings>>,
    backend: &str,
) -> Option<u16> {
    let ports = client_ports(frontends, backend);
    ports.first().copied().filter(|_| ports.len() == 1)
}

/// Whether sessions of a frontend may go to a backend.
fn leads_to(frontend: &FrontendSettings, backend: &str) -> bool {
    frontend.backends().any(|(name, _)| name == backend)
}

/// Reports servers without a port for which there is none to connect to, or none to probe.
pub(super) fn check(config: &Config, sink: &Sink<'_>) {
    for backend in &config.backends {
        if let Some(server) = backend.servers.iter().find(|server| server.address.lacks_port()) {
            let name =
                format!("server {} of backend {}", shown(&server.name), shown(&backend.name));
            if let Some(text) = problem(config, backend, &name) {
                sink.push_at(server.span, text);
            }
        }
    }
}

fn problem(config: &Config, backend: &BackendSettings, name: &str) -> Option<String> {
    let leading = config.frontends.iter().filter(|one| leads_to(one, &backend.name));
    for frontend in leading {
        let mut binds = frontend.bind.iter().map(|(bind, _)| bind);
        if let Some(unix) = binds.find(|bind| matches!(bind, BindAddress::Unix(_))) {
            return Some(format!(
                "{name} has no port, and neither has a client of frontend {} at {unix}; write the \
                 port of the server after a colon",
                shown(&frontend.name)
            ));
        }
    }
    if backend.health.check == Check::Off || backend.health.port.is_some() {
        return None;
    }
    match client_ports(&config.frontends, &backend.name).len() {
        1 => None,
        0 => Some(format!(
            "{name} has no port, and no frontend has a port for it; write one after a colon, such \
             as \"web1.lan:80\""
        )),
        ports => Some(format!(
            "{name} has no port, and its frontends have {ports}, so that health checks do not know \
             which one to probe; write the port of the server after a colon, set health.port, or \
             set health.check = \"off\""
        )),
    }
}
