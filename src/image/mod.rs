//! Source → artifacts: a Nix flake is built, or found built already.

pub mod flake;
pub mod log;
pub mod nixmsg;
pub mod origin;
pub mod source;
pub mod text;
