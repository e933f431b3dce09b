//! The control plane: what is decided away from the data path, and handed to it as a table.

pub mod budget;
pub mod health;
pub mod listeners;
pub mod notify;
mod probe;
pub mod prober;
pub mod reload;
pub mod resolve;
mod rhythm;
pub mod roster;
pub mod server;
pub mod signals;
pub mod steering;
