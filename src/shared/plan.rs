//! The answer to `evenkeel reload --dry-run`: what a reload would change.

use serde::{Deserialize, Serialize};

/// What a reload would do, a line for each item. Nothing was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadPlan {
    /// Problems of the file. If there is one, a reload changes nothing.
    pub problems: Vec<String>,
    /// Why this process rejects a file that is valid: an address in use, too few descriptors.
    pub rejected: Vec<String>,
    /// What changes.
    pub changes: Vec<String>,
    /// What takes effect after a restart or an upgrade.
    pub after_restart: Vec<String>,
}
