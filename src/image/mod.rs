//! Source → artifacts: a Nix flake or an Mvmfile is built, or found built already.

pub mod attribute;
pub mod bake;
pub mod build;
pub mod builders;
pub mod cache;
pub mod collect;
pub mod copied;
pub mod copy;
pub mod drv;
pub mod drvlog;
pub mod elsewhere;
pub mod error;
pub mod failure;
pub mod flake;
pub mod hold;
pub mod log;
pub mod machines;
pub mod mvmfile;
pub mod nix;
pub mod nixmsg;
pub mod offer;
pub mod origin;
pub mod profiles;
pub mod request;
pub mod source;
pub mod template;
pub mod watch;

pub use build::build;
pub use error::BuildError;
pub use flake::FlakeRef;
pub use request::BuildRequest;
