//! What the suites share: the real binary in a place of its own, peers that do as they are told,
//! and the books.

pub(crate) mod balancer;
pub(crate) mod books;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod http;
pub(crate) mod place;
pub(crate) mod server;
pub(crate) mod wait;

pub(crate) use balancer::Balancer;
pub(crate) use config::Config;
pub(crate) use place::Place;
pub(crate) use server::Server;
pub(crate) use wait::until;
