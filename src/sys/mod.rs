//! Safe types over system calls and io_uring. No other folder contains `unsafe`.

#![expect(unsafe_code, reason = "the only folder for it")]

pub mod address;
pub mod buffer;
#[cfg(test)]
mod buffer_model;
pub mod buffer_queue;
pub mod ids;
mod peek;
pub mod pipe;
pub mod reuseport;
pub mod ring;
pub mod socket;
pub mod socket_file;
pub mod socket_place;
pub mod socket_options;
mod wait_timer;
pub mod waker;

pub mod capability;
pub mod child;
pub mod descriptors;
pub mod detachable_child;
pub mod features;
pub mod kernel_version;
pub mod landlock;
pub(crate) mod listening;
pub mod local_addresses;
pub mod multicast;
pub mod probe_socket;
pub mod seccomp;
pub mod thread;
pub mod zone;
