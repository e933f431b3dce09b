//! The answer to `evenkeel explain`: what happens to a client that connects now, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What happens to a client of a frontend. Its JSON is a contract: fields are added, not renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The frontend.
    pub frontend: String,
    /// The client; none: any client.
    pub client: Option<IpAddr>,
    /// The strictest verdict of `rules`.
    pub verdict: Verdict,
    /// The rules that a connection meets, in the order in which they are checked; those that are
    /// not configured are left out.
    pub rules: Vec<RuleExplanation>,
    /// The backends that the frontend can reach.
    pub backends: Vec<BackendExplanation>,
}

/// What a rule says about a client. Ordered: the later ones are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is admitted.
    Admitted,
    /// Something decides that is not given: the address of the client, the peer that sends its
    /// PROXY header, or its server name.
    Depends,
    /// It waits in the backlog of the kernel.
    Waits,
    /// Its connection is reset or refused.
    Refused,
}

/// A rule that a connection meets before a server is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleExplanation {
    /// The key of the configuration: "deny", "allow".
    pub key: String,
    /// What it says.
    pub verdict: Verdict,
    /// Why: "3 of 10 sessions of this client are open".
    pub why: String,
}

/// A backend that the frontend can reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendExplanation {
    /// The backend.
    pub name: String,
    /// Which clients it gets: "every client".
    pub clients: String,
    /// How it chooses a server.
    pub balance: String,
    /// Sessions that wait because every server is full.
    pub queue_sessions: u64,
    /// As many may wait.
    pub queue_max: u32,
    /// What happens.
    pub outcome: Outcome,
    /// The server that is chosen, if that is certain.
    pub server: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Why.
    pub why: String,
    /// Every server, in the order of the file.
    pub servers: Vec<ServerExplanation>,
}

impl BackendExplanation {
    /// The rule `key` refuses the client: it gets no server.
    pub fn refuse(&mut self, key: &str) {
        self.why = format!("{key} refuses the client before a server is chosen");
        self.outcome = Outcome::Reset;
        (self.server, self.address) = (None, None);
        for server in &mut self.servers {
            if std::mem::take(&mut server.chosen) {
                server.why = format!("not reached: {key} refuses the client");
            }
            server.chance = None;
        }
    }
}

/// What happens to a client at its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It gets `server`.
    Server,
    /// One of several servers; a random number decides, or the address of a client that is not
    /// given.
    Open,
    /// It waits in the queue.
    Queue,
    /// It is reset.
    Reset,
}

/// A server of the backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerExplanation {
    /// The server.
    pub name: String,
    /// "up", "down", "drain", "maint"
    pub state: String,
    /// 0-1000
    pub weight: u32,
    /// Sessions that hold it now.
    pub sessions_active: u32,
    /// Its limit of sessions.
    pub sessions_max: Option<u32>,
    /// Used when all the others are down.
    pub backup: bool,
    /// Whether the client gets it.
    pub chosen: bool,
    /// How likely the client gets it, if that is open: 0 to 1.
    pub chance: Option<f64>,
    /// Why it is chosen, or is not.
    pub why: String,
}
