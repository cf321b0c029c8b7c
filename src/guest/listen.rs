//! A program for each connection, as inetd does: `mvm-guest listen PORT PROGRAM [ARGUMENT…]`.
//!
//! The listener holds no secret and draws no random number, so it may be there before the guest is
//! saved; each program begins anew in the guest that goes on.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Programs at a time; a connection beyond is closed.
const MOST: usize = 256;

/// Listens on `port` of all addresses and starts the program, the first of `command`, for each
/// connection, which is its standard input and output. Returns only when it cannot listen.
pub fn listen(port: u16, command: &[OsString]) -> io::Result<()> {
    // A kernel without IPv6 has the other.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    serve(&listener, command)
}

fn serve(listener: &TcpListener, command: &[OsString]) -> io::Result<()> {
    // A connection may be gone before it is taken.
    listener.set_nonblocking(true)?;
    let interrupt = SigAction::new(SigHandler::Handler(ignore), SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: the handler does nothing. It is there so that an end interrupts the wait below.
    unsafe { sigaction(Signal::SIGCHLD, &interrupt) }?;
    let mut running: Vec<Child> = Vec::new();
    loop {
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let Ok((stream, _)) = listener.accept() else { continue };
        if running.len() < MOST {
            match start(stream, command) {
                Ok(child) => running.push(child),
                Err(error) => eprintln!("mvm-guest: cannot start {:?}: {error}", command[0]),
            }
        }
    }
}

fn start(stream: TcpStream, command: &[OsString]) -> io::Result<Child> {
    stream.set_nonblocking(false)?;
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let output = OwnedFd::from(stream.try_clone()?);
    Command::new(program).args(arguments).stdin(OwnedFd::from(stream)).stdout(output).spawn()
}

extern "C" fn ignore(_: c_int) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::thread;

    #[test]
    fn each_connection_has_a_program_of_its_own() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let command = ["sh", "-c", "read -r line; echo \"$line from $$\""].map(OsString::from);
        // It ends with the test.
        thread::spawn(move || serve(&listener, &command));
        let ask = |word: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            writeln!(stream, "{word}").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let idle = TcpStream::connect(address).unwrap();
        let (one, two) = (ask("hello"), ask("hello"));
        assert!(one.starts_with("hello from ") && two.starts_with("hello from "), "{one} {two}");
        assert_ne!(one, two);
        drop(idle);
    }
}
