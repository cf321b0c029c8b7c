//! `mvm-guest`, the agent inside the guest, and a listener for its services.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mvm::guest::agent;
use mvm::guest::channel::Line;
use mvm::guest::listen;
use mvm::guest::system::Linux;

const USAGE: &str = "usage: mvm-guest [--channel DEVICE | --channel-fd N]
       mvm-guest listen PORT PROGRAM [ARGUMENT...]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let line = match arguments[..] {
        [] => {
            name_streams();
            Line::find()
        }
        ["--channel", path] => Line::open(Path::new(path)),
        ["--channel-fd", number] => match number.parse() {
            Ok(number) => inherited(number),
            Err(_) => return usage(),
        },
        ["listen", port, _, ..] => {
            let Ok(port) = port.parse() else { return usage() };
            let command: Vec<_> = std::env::args_os().skip(3).collect();
            return match listen::listen(port, &command) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("mvm-guest: port {port}: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        ["--version"] => {
            println!("mvm-guest {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => return usage(),
    };
    // A machine with vsock is Firecracker's, which goes on when its guest powers off, and ends at a reset.
    let serve = |line: Line| {
        let linux = Linux { ends_by_reset: matches!(line, Line::Listener(_)) };
        agent::serve(line, "/".into(), Arc::new(linux))
    };
    match line.and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mvm-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the links by which programs find their own descriptors: the kernel makes none.
fn name_streams() {
    let fd = "/proc/self/fd";
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        // There already, or nothing to be done.
        let _ = std::os::unix::fs::symlink(format!("{fd}{target}"), format!("/dev/{name}"));
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// A stream that whoever started the agent left open for it.
fn inherited(number: RawFd) -> std::io::Result<Line> {
    // Opened anew through /proc it would be another socket; so it must be taken over as it is.
    if !Path::new("/proc/self/fd").join(number.to_string()).exists() {
        return Err(std::io::Error::other(format!("descriptor {number} is not open")));
    }
    // SAFETY: it is open, and nothing else in this program knows of it.
    let stream = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(Line::Stream(stream.into()))
}
