//! A report of the open sessions: for `evenkeel sessions`.

use serde::{Deserialize, Serialize};

use crate::observe::report_text::{plain, size, span, table};
use crate::shared::sessions::SessionInfo;

/// An open session. Its JSON is a contract: fields are added, not renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SessionReport {
    /// For `evenkeel kill`.
    pub id: String,
    /// Its frontend.
    pub frontend: String,
    /// Its backend.
    pub backend: String,
    /// The server that it is connected to, or tries.
    pub server: Option<String>,
    /// The address of the client.
    pub client: Option<String>,
    /// `preface`, `routing`, `queued`, `connecting`, `relaying`, `half_closed`, `closing`
    pub state: String,
    /// Since it was accepted.
    pub age_seconds: f64,
    /// Since bytes last moved.
    pub idle_seconds: f64,
    /// Client to server.
    pub bytes_in: u64,
    /// Server to client.
    pub bytes_out: u64,
}

impl From<&SessionInfo> for SessionReport {
    fn from(session: &SessionInfo) -> Self {
        let [bytes_in, bytes_out] = session.bytes;
        Self {
            id: session.id.to_string(),
            frontend: session.frontend.to_string(),
            backend: session.backend.to_string(),
            server: session.server.as_ref().map(ToString::to_string),
            client: session.client.map(|client| client.to_string()),
            state: session.state.to_owned(),
            age_seconds: session.age.as_secs_f64(),
            idle_seconds: session.idle.as_secs_f64(),
            bytes_in,
            bytes_out,
        }
    }
}

/// For a terminal: one line for each session, oldest first.
#[must_use]
pub(super) fn text(sessions: &[SessionReport]) -> String {
    let head = ["ID", "CLIENT", "FRONTEND", "SERVER", "STATE", "AGE", "IDLE", "IN", "OUT"];
    let mut sessions: Vec<&SessionReport> = sessions.iter().collect();
    sessions.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds, not below 0"
    )]
    let row = |one: &&SessionReport| {
        let server = one.server.as_deref().unwrap_or("-");
        [
            one.id.clone(),
            one.client.clone().unwrap_or_else(|| "-".to_owned()),
            plain(&one.frontend),
            plain(&format!("{}/{server}", one.backend)),
            one.state.clone(),
            span(one.age_seconds as u64),
            span(one.idle_seconds as u64),
            size(one.bytes_in),
            size(one.bytes_out),
        ]
    };
    let mut out = format!("sessions: {}\n", sessions.len());
    table(&mut out, &head, sessions.iter().map(row).collect());
    out
}
