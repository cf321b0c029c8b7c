//! What runs inside the guest (binary `mvm-guest`) and the frames it shares with `vm`.
//!
//! `agent` is the loop, `requests` what it does with frames; `channel` its line to the host,
//! `command` what it runs, `personalise` what turns the sealed image into one VM. `client` and
//! `session` are the host's end of the same frames.

pub mod agent;
pub mod channel;
pub mod client;
mod command;
pub mod frames;
mod hook;
mod jobs;
pub mod listen;
pub mod network;
pub mod personalise;
mod probe;
pub(crate) mod pty;
mod rehearse;
mod requests;
pub mod session;
pub mod system;
mod user;
