//! Test programs that start VMs through the library: a VM's shim is the running program itself, so
//! they are no usual test harness, and called with `shim` they are mvm.

use std::process::ExitCode;

use clap::Parser;

/// A test: its name and what it does.
pub type Test = (&'static str, fn());

/// Runs those of `tests` that are wished for, or is mvm.
pub fn main(tests: &[Test]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // So are agent and coordinator of a cluster, which are called with this word first.
    if args.first().is_some_and(|word| word == "shim" || word == "--no-tui") {
        return mvm::cli::run(mvm::cli::Cli::parse()).unwrap_or(ExitCode::FAILURE);
    }
    // The words of the usual harness, as far as they matter here.
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let wished: Vec<&String> = args.iter().filter(|arg| arg.parse::<u32>().is_err()).collect();
    let wished = |name: &str| {
        let mut names = wished.iter().filter(|arg| !arg.starts_with('-')).peekable();
        names.peek().is_none() || names.any(|part| name.contains(part.as_str()))
    };
    for (name, test) in tests {
        if has("--list") && !has("--ignored") {
            println!("{name}: test");
        } else if !has("--list") && !has("--ignored") && wished(name) {
            println!("test {name}");
            test();
        }
    }
    ExitCode::SUCCESS
}
