//! The kernel behind safe types: the only folder with `unsafe` in it.

#![expect(unsafe_code, reason = "this is the folder for it")]

mod alarm;
pub mod buffer;
pub mod pipe;
pub mod ring;
pub mod socket;
pub mod waker;

pub mod child;
pub mod features;
pub mod interfaces;
pub mod probe_socket;
pub mod release;
pub mod scheduler;
pub mod thread;
