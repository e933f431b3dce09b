//! evenkeel: a Layer-4 TCP load balancer on io_uring. ARCHITECTURE.md is the map.

pub mod terms;

pub mod sys;

pub mod config;

pub mod convert;

pub mod shared;

pub mod proxy;

pub mod control;

pub mod observe;

pub mod run;

pub mod doctor;

pub mod demo;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub mod cli;
