//! TLS around health checks: `ssl`, `check-ssl` and their parameters, on some servers or all.

use super::exchange::Dialogue;
use super::servers::Input;
use crate::convert::draft::{Address, Entry};
use crate::convert::literal;
use crate::convert::report::Report;

/// Adds the key `tls` of `health`, if a check has TLS. HAProxy has that for each server, evenkeel
/// for a backend.
pub(super) fn tls(
    servers: &[Input],
    (dialogue, only_connects): (&Dialogue, bool),
    entries: &mut Vec<Entry>,
    report: &Report,
) {
    let (asking, plain): (Vec<&Input>, Vec<&Input>) = servers.iter().partition(|it| asks(it));
    let is_checked = |server: &&&Input| server.has("check");
    let Some(server) = asking
        .iter()
        .find(is_checked)
        .or_else(|| plain.iter().find(is_checked).filter(|_| dialogue.has_tls))
    else {
        return;
    };
    // A server that does not speak TLS would be down. One that does accepts a connection as well.
    if !dialogue.has_tls && !plain.is_empty() {
        if only_connects {
            let reason = "evenkeel probes all servers of a backend with TLS or none: the probe of \
                          this one only connects";
            return asking.iter().for_each(|server| report.urgent(server.place, reason));
        }
        let reason = "health.tls: evenkeel probes all servers of a backend with TLS or none: this \
                      one is down if it does not speak TLS";
        plain.iter().for_each(|server| report.urgent(server.place, reason));
    }
    let verifies = server.value("verify").is_some_and(|it| it == "required");
    let name = server.value("check-sni").or(dialogue.name.as_deref());
    // `evenkeel check` refuses a unix socket without a name.
    let is_unix = |server: &&Input| matches!(server.address, Address::Path(_));
    let unnamed = servers.iter().find(is_unix).filter(|_| name.is_none());
    if let Some(server) = unnamed.filter(|_| verifies) {
        let reason = "health.tls verifies the name of the server, and a unix socket has none: the \
                      probe does not use TLS";
        return report.report(server.place, reason);
    }
    if let Some(server) = unnamed {
        let reason = "health.tls: the probe of a unix socket sends the server name localhost";
        report.near(server.place, reason);
    }
    let name = name.or_else(|| unnamed.map(|_| "localhost"));
    if verifies {
        let place = server.has("ca-file").then(|| server.place_of("ca-file"));
        report.near(
            place.unwrap_or(server.place),
            "the probe verifies by the root certificates of this machine (or of SSL_CERT_FILE), \
             not by those of ca-file, and that the certificate has the name of the server",
        );
    }
    let mut parts = vec![format!("verify = {verifies}")];
    if let Some(name) = name {
        parts.push(format!("name = {}", literal::quoted(name)));
    }
    entries.push(("tls", format!("{{ {} }}", parts.join(", "))));
}

/// Whether the probes of a server have TLS, if it has any.
fn asks(server: &Input) -> bool {
    let implied = server.has("ssl") && !server.has("port") && !server.has("addr");
    (server.has("check-ssl") || implied) && !server.has("no-check-ssl")
}
