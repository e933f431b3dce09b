//! The data plane: the way of a connection. Listen, pick, connect, relay, close.

pub mod worker;
