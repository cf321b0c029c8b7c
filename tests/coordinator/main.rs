//! The coordinator, as a process of its own, with real TCP clients and a real QUIC server for an agent.
//! Only who owns the fleet plays a part: what it is told to say, it says (see `agent.rs`). The end-to-end
//! tests with real guests are in `tests/cluster.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod breaks;
mod changes;
mod leases;
mod limits;
mod place;
#[path = "../support/mod.rs"]
mod support;
mod wakes;
