//! mvm: point it at a Nix flake, get a running microVM.
//!
//! The rooms, lowest floor first; a room uses rooms below it, never above. On macOS there is only the
//! way into Lima's VM, where this same program has them all.

/// The one vocabulary of everything that happens.
#[cfg(target_os = "linux")]
pub mod event;

/// What a build yields and a VM boots: the only type `image` and `vm` share.
#[cfg(target_os = "linux")]
pub mod artifacts;

/// What runs inside the guest, and the frames it shares with `vm`.
#[cfg(target_os = "linux")]
pub mod guest;

/// This machine: paths, locks, child processes, what is installed, setup.
pub mod host;

/// Durable state: one SQLite database.
#[cfg(target_os = "linux")]
pub mod store;

/// Source → artifacts: flakes, Nix and its log, the cache.
#[cfg(target_os = "linux")]
pub mod image;

/// Artifacts → running microVM.
#[cfg(target_os = "linux")]
pub mod vm;

/// A terminal of one's own: PTY and emulator; knows no UI.
#[cfg(target_os = "linux")]
pub mod terminal;

/// Image, then VM, as one task.
#[cfg(target_os = "linux")]
pub mod run;

/// Tenants, pools and instances: desired state, and what makes it true.
#[cfg(target_os = "linux")]
pub mod fleet;

/// The fleet behind QUIC and mutual TLS: server, client, certificates.
#[cfg(target_os = "linux")]
pub mod agent;

/// The TCP front door, which wakes who is asked for.
#[cfg(target_os = "linux")]
pub mod coordinator;

/// Agent and coordinator on this machine: init, up, status, down.
#[cfg(target_os = "linux")]
pub mod cluster;

/// Models and views of the full-screen UI.
#[cfg(target_os = "linux")]
pub mod console;

/// Plain text, JSON lines and the live view, from the same events.
#[cfg(target_os = "linux")]
pub mod headless;

/// The words: command line to calls of the rooms.
#[cfg(target_os = "linux")]
pub mod cli;
