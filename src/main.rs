//! The binary: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;
use mvm::cli::{Cli, report};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match mvm::cli::run(cli) {
        Ok(code) => code,
        Err(error) => report::print(&error),
    }
}
