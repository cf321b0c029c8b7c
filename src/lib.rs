//! mvm: point it at a Nix flake, get a running microVM.
//!
//! The rooms, lowest floor first; a room uses rooms below it, never above.

/// The one vocabulary of everything that happens.
pub mod event;

/// What a build yields and a VM boots: the only type `image` and `vm` share.
pub mod artifacts;

/// What runs inside the guest, and the frames it shares with `vm`.
pub mod guest;

/// This machine: paths, locks, child processes, what is installed, setup.
pub mod host;

/// Durable state: one SQLite database.
pub mod store;

/// Source → artifacts: flakes, Nix and its log, the cache.
pub mod image;

/// Artifacts → running microVM.
pub mod vm;

/// A terminal of one's own: PTY and emulator; knows no UI.
pub mod terminal;

/// Image, then VM, as one task.
pub mod run;

/// Models and views of the full-screen UI.
pub mod console;

/// Plain text, JSON lines and the live view, from the same events.
pub mod headless;

/// The words: command line to calls of the rooms.
pub mod cli;
