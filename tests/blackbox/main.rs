//! The evenkeel binary between scripted clients and servers on loopback. "case N" in a test is the
//! number of a fault in the list that the project is tested against.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod answers;
mod network_namespace;
mod balancing;
mod binding;
mod chains;
mod confinement;
mod connects;
mod control_socket;
mod dry_run;
mod discovery;
mod endings;
mod endpoints;
mod explain;
mod hostile;
mod health;
mod health_errors;
mod health_exchange;
mod health_proxy;
mod health_tls;
mod fast_open;
mod keepalive;
mod life;
mod limits;
mod machines;
mod descriptors;
mod mdns;
mod memory;
mod orders;
mod outputs;
mod proxy_peers;
mod proxy_protocol;
mod ports;
mod queue;
mod recovery;
mod relay;
mod reload;
mod resets;
mod ring_errors;
mod rotation;
mod scrape;
mod sessions;
mod side_by_side;
mod slow_readers;
mod sources;
mod sni;
mod startup;
mod stuck;
mod status;
mod supervisor;
mod tls_server;
mod transparent;
mod zones;
mod unix;
mod upgrade;
mod unix_paths;
