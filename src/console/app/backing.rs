//! What stands behind the screen: this machine's state and a worker, or a recording.

use std::io;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::session;
use crate::console::model::Model;
use crate::console::recording::Recording;
use crate::console::source::Interest;
use crate::console::ui::tabs::{Program, Tab};
use crate::console::work::{Job, Worker};
use crate::event::{EventSink, TaskId};
use crate::host::paths::Paths;
use crate::terminal::Size;

/// Where what is shown comes from.
#[derive(Debug)]
pub enum Origin {
    /// The state in these directories.
    State(Paths),
    /// What was recorded once.
    Recording(Recording),
}

/// An origin at work.
#[derive(Debug)]
pub enum Backing {
    /// Does what it is asked for.
    Live {
        /// Directories of the state.
        paths: Paths,
        /// Does the work.
        worker: Worker,
        /// What the user looks at.
        interest: watch::Sender<Interest>,
    },
    /// Plays a recording, and does nothing.
    Demo(JoinHandle<()>),
}

impl Backing {
    /// Begins to tell `sink` what happens.
    pub fn start(origin: Origin, sink: EventSink) -> io::Result<Self> {
        Ok(match origin {
            Origin::State(paths) => {
                let (interest, interested) = watch::channel(Interest::default());
                let worker = Worker::start(paths.clone(), sink, interested)?;
                Self::Live { paths, worker, interest }
            }
            Origin::Recording(recording) => Self::Demo(tokio::spawn(recording.play(sink))),
        })
    }

    /// Has a job done; `None` where nothing is.
    pub fn take(&self, job: Job) -> Option<TaskId> {
        match self {
            Self::Live { worker, .. } => Some(worker.take(job)),
            Self::Demo(_) => None,
        }
    }

    /// Starts a program in a tab; `None` where none is.
    pub fn session(&self, program: Program, model: &Model, size: Size, scrollback: usize) -> Option<Tab> {
        match self {
            Self::Live { paths, .. } => Some(session::open(program, model, paths, size, scrollback)),
            Self::Demo(_) => None,
        }
    }

    /// Has what is of interest looked at.
    pub fn look_at(&self, wish: Interest) {
        let Self::Live { interest, .. } = self else { return };
        interest.send_if_modified(|interest| {
            let changed = *interest != wish;
            *interest = wish;
            changed
        });
    }

    /// Ends what is under way.
    pub async fn finish(self) {
        match self {
            Self::Live { worker, .. } => {
                // A panic of its own was reported already.
                let _ = tokio::task::spawn_blocking(|| worker.finish()).await;
            }
            Self::Demo(player) => player.abort(),
        }
    }
}
