//! Signals that concern the terminal.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{self, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End.
    Terminate,
    /// The terminal is gone: end, and do not draw.
    Hangup,
    /// End what is under way; from outside only, as `^C` is a key here.
    Interrupt,
    /// Stop until the shell continues mvm; from outside only, as `^Z` is a key here.
    Suspend,
    /// mvm was continued.
    Continue,
    /// The terminal has another size.
    Resize,
}

/// Every signal that concerns the terminal; of several that wait, those that end mvm come first.
pub struct Signals {
    streams: [(Signal, unix::Signal); 7],
}

impl Signals {
    /// Starts to listen. From now on none of these signals ends or stops the process by itself.
    pub fn new() -> io::Result<Self> {
        let stream = |kind: SignalKind, asks: Signal| signal(kind).map(|stream| (asks, stream));
        let number = |signal: nix::sys::signal::Signal| SignalKind::from_raw(signal as i32);
        Ok(Self {
            streams: [
                stream(SignalKind::hangup(), Signal::Hangup)?,
                stream(SignalKind::terminate(), Signal::Terminate)?,
                stream(SignalKind::quit(), Signal::Terminate)?,
                stream(SignalKind::interrupt(), Signal::Interrupt)?,
                stream(number(nix::sys::signal::Signal::SIGTSTP), Signal::Suspend)?,
                stream(number(nix::sys::signal::Signal::SIGCONT), Signal::Continue)?,
                stream(SignalKind::window_change(), Signal::Resize)?,
            ],
        })
    }

    /// The next signal; nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (asks, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*asks);
                }
            }
            Poll::Pending
        })
        .await
    }
}
