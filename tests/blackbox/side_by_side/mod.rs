//! One configuration in HAProxy, or in nginx, and in evenkeel after `evenkeel convert`: the same
//! clients and servers see the same outcome.
//!
//! The configurations are templates: `{ip}` is the address of the test, `{other}` a second
//! one, `{folder}` its directory.
//! A test names the keys of its result that a version of evenkeel may not have; such a version
//! skips it, and any other refusal of the result fails it.

mod case;
mod clients;
mod haproxy;
mod losses;
mod nginx;
