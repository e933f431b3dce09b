//! The kernel behind safe types: the only folder with `unsafe` in it.

pub mod ring;
pub mod features;
pub mod child;
