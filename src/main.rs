//! The binary: parse, dispatch, exit code.

use std::process::ExitCode;

use mvm::host::lima;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;
    use mvm::cli::{self, Cli, report};
    use mvm::image::bake;

    if let Some(ran) = bake::own().and_then(cli::run_app) {
        return ran.unwrap_or_else(|error| report::print(&error));
    }
    let cli = Cli::parse();
    if lima::is_chosen() && cli.is_for_linux() {
        let args: Vec<_> = std::env::args_os().skip(1).collect();
        return match lima::enter(&args) {
            Ok(never) => match never {},
            Err(error) => report::print(&error.into()),
        };
    }
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => report::print(&error),
    }
}

/// Where there is no Linux, all that mvm does is done in Lima's VM.
#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(answer) = lima::answer(&args) {
        println!("{answer}");
        return ExitCode::SUCCESS;
    }
    match lima::enter(&args) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
