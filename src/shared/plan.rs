//! The answer to `evenkeel reload --dry-run`: what a reload would change.

use serde::{Deserialize, Serialize};

/// What a reload would do, a line for each item. Nothing was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadPlan {
    /// What changes.
    pub changes: Vec<String>,
    /// What takes effect after a restart or an upgrade.
    pub after_restart: Vec<String>,
}
