//! The one place where errors are printed and become exit codes.

use std::io::Write;
use std::process::ExitCode;

use crate::event::text::strip;
use crate::headless::colours;

/// Exit code of a failure.
pub const FAILURE: u8 = 1;
/// Exit code of wrong usage.
pub const USAGE: u8 = 2;
/// Exit code when a deadline passed.
pub const TIMEOUT: u8 = 124;
/// Exit code when the reader of standard output went away, as of a program that SIGPIPE ends:
/// `mvm logs x | head` is no failure to speak of.
pub const BROKEN_PIPE: u8 = 141;
/// Exit code after an interruption.
pub const INTERRUPTED: u8 = 130;

/// A value given on the command line is wrong: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The user interrupted: exit code 130, and nothing more to say.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// A deadline passed: exit code 124.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TimedOut(pub String);

/// Prints an error with its causes and returns its exit code.
pub fn print(error: &anyhow::Error) -> ExitCode {
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    if error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    {
        return ExitCode::from(BROKEN_PIPE);
    }
    // Standard error may be closed; there is nowhere else to say so.
    let _ = std::io::stderr().write_all(render(error, colours()).as_bytes());
    ExitCode::from(match () {
        () if error.is::<Usage>() => USAGE,
        () if error.is::<TimedOut>() => TIMEOUT,
        () => FAILURE,
    })
}

/// The text of an error: the message, then `help:` lines in their own colour.
fn render(error: &anyhow::Error, colour: bool) -> String {
    let mut out = String::new();
    let styled = |style: &str, word: &str, rest: &str| match colour {
        true => format!("\x1b[{style}m{word}\x1b[0m{rest}\n"),
        false => format!("{word}{rest}\n"),
    };
    // Names in it may be a flake's or a guest's.
    for (index, line) in strip(&error.to_string()).lines().enumerate() {
        out += &match (index, line.strip_prefix("help:")) {
            (0, _) => styled("1;31", "error:", &format!(" {line}")),
            (_, Some(help)) => styled("1;32", "help:", help),
            _ => format!("{line}\n"),
        };
    }
    out
}
