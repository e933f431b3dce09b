//! The protocol of the control socket: one line of JSON each way.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::AdminState;
use crate::shared::orders::{Order, ServerName};

/// For the control thread to answer.
pub(super) const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// For an order to be carried out: a reload resolves host names first.
pub(super) const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// A request, as written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Ask {
    Status,
    Sessions,
    Kill {
        id: String,
    },
    State {
        server: String,
        state: StateName,
    },
    Weight {
        server: String,
        weight: u32,
    },
    Reload {
        /// Only say what would change. A balancer that does not know it refuses the request.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    },
    Upgrade,
    Explain {
        frontend: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<IpAddr>,
    },
}

// serde passes a reference.
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// [`AdminState`], as written.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StateName {
    Ready,
    Drain,
    Maint,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer<T> {
    Ok(T),
    Error(String),
}

impl Ask {
    /// The order to the control thread.
    pub(super) fn order(self) -> Result<Order, String> {
        match self {
            Self::Status
            | Self::Sessions
            | Self::Kill { .. }
            | Self::Explain { .. }
            | Self::Reload { dry_run: true } => {
                Err("not an order to the control thread".to_owned())
            }
            Self::Reload { dry_run: false } => Ok(Order::Reload),
            Self::Upgrade => Ok(Order::Upgrade),
            Self::State { server, state } => {
                Ok(Order::SetState(server_name(&server)?, state.into()))
            }
            Self::Weight { server, weight: weight @ 0..=1000 } => {
                Ok(Order::SetWeight(server_name(&server)?, weight))
            }
            Self::Weight { weight, .. } => Err(format!("weight {weight} is not within 0-1000")),
        }
    }
}

impl From<&Order> for Ask {
    fn from(order: &Order) -> Self {
        let written = |name: &ServerName| format!("{}/{}", name.backend, name.server);
        match order {
            Order::Reload => Self::Reload { dry_run: false },
            Order::Upgrade => Self::Upgrade,
            Order::SetWeight(name, weight) => {
                Self::Weight { server: written(name), weight: *weight }
            }
            Order::SetState(name, state) => {
                Self::State { server: written(name), state: (*state).into() }
            }
        }
    }
}

impl From<StateName> for AdminState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Ready => Self::Ready,
            StateName::Drain => Self::Drain,
            StateName::Maint => Self::Maint,
        }
    }
}

impl From<AdminState> for StateName {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Drain => Self::Drain,
            AdminState::Maint => Self::Maint,
        }
    }
}

fn server_name(text: &str) -> Result<ServerName, String> {
    match text.split_once('/') {
        Some((backend, server)) if !backend.is_empty() && !server.is_empty() => {
            Ok(ServerName { backend: backend.to_owned(), server: server.to_owned() })
        }
        _ => Err(format!("{text:?} is not BACKEND/SERVER")),
    }
}

pub(super) fn encode<T: Serialize>(answer: &Answer<T>) -> String {
    let line = serde_json::to_string(answer);
    // Strings and numbers can always be encoded.
    line.unwrap_or_else(|_| r#"{"error":"the answer cannot be encoded"}"#.to_owned()) + "\n"
}
