//! What a running coordinator can be asked to do, by those who reach its socket.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::status::Status;

/// An order, and who waits for its outcome.
#[derive(Debug)]
pub enum Order {
    /// Say how things stand.
    Status(oneshot::Sender<Status>),
    /// Do something with a route.
    Route {
        /// Where the route listens.
        listen: SocketAddr,
        /// What.
        op: RouteOp,
        /// Takes the outcome: an error is for people, and may end with a `help:` line.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
}

/// What can be done with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteOp {
    /// Have an instance awake, as a connection would.
    Wake,
    /// Let its instances go to sleep now, if nobody is connected.
    Sleep,
    /// Take nothing new; what is there goes on to its end.
    Drain,
    /// Take connections again.
    Resume,
}

impl RouteOp {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Wake, Self::Sleep, Self::Drain, Self::Resume];

    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Sleep => "sleep",
            Self::Drain => "drain",
            Self::Resume => "resume",
        }
    }

    /// What is so once it is done, for people.
    pub fn done(self) -> &'static str {
        match self {
            Self::Wake => "an instance is awake",
            Self::Sleep => "its instances are let go to sleep",
            Self::Drain => "nothing new is taken",
            Self::Resume => "connections are taken again",
        }
    }
}
