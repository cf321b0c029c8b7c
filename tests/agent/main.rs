//! The agent's API over real QUIC on loopback: who gets in, what frames do, load, events, the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod events;
mod frames;
mod load;
mod place;
mod stopping;
