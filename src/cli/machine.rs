//! `mvm setup` and `mvm doctor`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::{Context, print, print_json, say};
use super::task;
use crate::event::TaskKind;
use crate::host::doctor;
use crate::host::setup::{self, Options};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mvm setup\n  mvm setup --yes --recreate\n\nInstalls Debian packages (asking first), unpacks a kernel and lays out the tools that\nimages are made from. Nothing is done twice; what an earlier setup left half-done is mended.")]
pub struct SetupArgs {
    /// Do not ask before packages are installed
    #[arg(long, short)]
    yes: bool,
    /// Lay out kernel and tools anew
    #[arg(long)]
    recreate: bool,
}
