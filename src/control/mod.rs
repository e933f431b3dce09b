//! The control plane: what is decided away from the data path, and handed to it as a table.

pub mod config;
pub mod drain;
pub mod file;
pub mod health;
pub mod prober;
pub mod resolve;
pub mod table;
