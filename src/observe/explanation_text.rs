//! The answer to `evenkeel explain` as text for a terminal.

use std::fmt::Write;

use crate::observe::report_text::{plain, table};
use crate::shared::explanation::{
    BackendExplanation, Explanation, Outcome, ServerExplanation, Verdict,
};

/// For a terminal: the rules, then each backend with its servers.
#[must_use]
pub(super) fn text(explanation: &Explanation) -> String {
    let client = match explanation.client {
        Some(client) => format!("client {client}"),
        None => "any client".to_owned(),
    };
    let verdict = match explanation.verdict {
        Verdict::Admitted => "admitted",
        Verdict::Depends => "depends (see the rules)",
        Verdict::Waits => "waits in the backlog of the kernel",
        Verdict::Refused => "refused",
    };
    let mut out = format!("frontend {}, {client}: {verdict}\n", plain(&explanation.frontend));
    let keys = explanation.rules.iter().map(|rule| rule.key.len());
    let width = keys.max().unwrap_or(0);
    for rule in &explanation.rules {
        let word = match rule.verdict {
            Verdict::Admitted => "passes",
            Verdict::Depends => "depends",
            Verdict::Waits => "waits",
            Verdict::Refused => "refuses",
        };
        // Writing to a String cannot fail, here and below.
        _ = writeln!(out, "  {:width$}  {word}: {}", rule.key, plain(&rule.why));
    }
    for backend in &explanation.backends {
        backend_text(backend, &mut out);
    }
    out.trim_end().to_owned()
}

fn backend_text(backend: &BackendExplanation, out: &mut String) {
    let name = plain(&backend.name);
    let get = match (backend.outcome, &backend.server, &backend.address) {
        (Outcome::Server, Some(server), Some(address)) => {
            format!("gets {name}/{} at {}", plain(server), plain(address))
        }
        (Outcome::Queue, ..) => "waits".to_owned(),
        (Outcome::Reset, ..) => "is reset".to_owned(),
        (Outcome::Server | Outcome::Open, ..) => "gets one of several servers".to_owned(),
    };
    _ = writeln!(out, "\nbackend {name} ({}): the client {get}", plain(&backend.clients));
    _ = writeln!(out, "  balance = {:?}: {}", backend.balance, plain(&backend.why));
    _ = writeln!(out, "  queue: {} of {}", backend.queue_sessions, backend.queue_max);
    let head = ["", "SERVER", "STATE", "WEIGHT", "ACTIVE", "MAX", "WHY"];
    table(out, &head, backend.servers.iter().map(|server| row(&name, server)).collect());
}

fn row(backend: &str, server: &ServerExplanation) -> [String; 7] {
    let backup = if server.backup { " (backup)" } else { "" };
    [
        if server.chosen { "->" } else { "" }.to_owned(),
        format!("{backend}/{}{backup}", plain(&server.name)),
        server.state.clone(),
        server.weight.to_string(),
        server.sessions_active.to_string(),
        server.sessions_max.map_or_else(|| "-".to_owned(), |max| max.to_string()),
        plain(&server.why),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::explanation::RuleExplanation;

    #[test]
    fn the_text_has_the_rules_and_a_row_for_each_server() {
        let server = |name: &str, chosen: bool, why: &str| ServerExplanation {
            name: name.to_owned(),
            state: "up".to_owned(),
            weight: 100,
            sessions_active: 2,
            sessions_max: chosen.then_some(9),
            backup: !chosen,
            chosen,
            chance: None,
            why: why.to_owned(),
        };
        let explanation = Explanation {
            frontend: "http".to_owned(),
            client: "192.0.2.7".parse().ok(),
            verdict: Verdict::Admitted,
            rules: vec![RuleExplanation {
                key: "deny".to_owned(),
                verdict: Verdict::Admitted,
                why: "192.0.2.7 is in none of its networks".to_owned(),
            }],
            backends: vec![BackendExplanation {
                name: "web".to_owned(),
                clients: "every client".to_owned(),
                balance: "first".to_owned(),
                queue_sessions: 0,
                queue_max: 1024,
                outcome: Outcome::Server,
                server: Some("web1".to_owned()),
                address: Some("192.0.2.1:80".to_owned()),
                why: "because".to_owned(),
                servers: vec![server("web1", true, "first"), server("web2", false, "\u{7}")],
            }],
        };
        let expected = "\
frontend http, client 192.0.2.7: admitted
  deny  passes: 192.0.2.7 is in none of its networks

backend web (every client): the client gets web/web1 at 192.0.2.1:80
  balance = \"first\": because
  queue: 0 of 1024

    SERVER             STATE  WEIGHT  ACTIVE  MAX  WHY
->  web/web1           up     100     2       9    first
    web/web2 (backup)  up     100     2       -    \\u{7}";
        assert_eq!(text(&explanation), expected);
    }
}
