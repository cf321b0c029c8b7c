//! mvm: point it at a Nix flake, get a running microVM.
//!
//! The rooms, lowest floor first; a room uses rooms below it, never above.

pub mod artifacts;
pub mod event;
pub mod guest;
pub mod host;
pub mod image;
pub mod store;
