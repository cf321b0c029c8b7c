//! Agent and coordinator on this machine, as background processes of one state: their files are
//! written, both are started, looked at and ended.
//!
//! Nothing here knows how guests are run or connections carried: it starts the two programs that do,
//! and asks them and the database how things stand.

pub mod down;
pub mod error;
pub mod init;
pub mod logs;
pub mod part;
pub mod plan;
mod ports;
mod progress;
mod ready;
pub mod status;
mod turn;
pub mod up;

/// The name of the node, of its certificates and of the tenant.
pub const NAME: &str = "dev";
