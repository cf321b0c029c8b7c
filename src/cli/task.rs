//! A task in the foreground: its events shown and recorded, ended by ^C.

use std::ops::Deref;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::context::{Context, say};
use super::report::{Interrupted, TimedOut};
use crate::event::{EventSink, TaskId, TaskKind};
use crate::headless;
use crate::host::paths::Paths;
use crate::run::record::{Recorded, Recorder};
use crate::run::task::{self, Failure};
use crate::store::Store;

/// Runs `work`, showing its events as the user wishes. ^C, SIGTERM and SIGHUP cancel it.
pub async fn run<T>(
    context: &mut Context,
    kind: TaskKind,
    title: String,
    work: impl AsyncFnOnce(&Paths, &mut Store, &EventSink, &CancellationToken) -> Result<T, Failure>,
) -> Result<T> {
    let interrupt = Interrupt::heard();
    interrupt.bound(run_until(context, &interrupt, kind, title, work)).await
}

/// The same for work that others cancel.
pub async fn run_until<T>(
    context: &mut Context,
    cancel: &CancellationToken,
    kind: TaskKind,
    title: String,
    work: impl AsyncFnOnce(&Paths, &mut Store, &EventSink, &CancellationToken) -> Result<T, Failure>,
) -> Result<T> {
    let id = TaskId::new(kind.letter());
    let recorder = match Recorder::new(&context.paths, &id) {
        Ok(recorder) => Some(recorder),
        Err(error) => {
            say(&format!("warning: this task leaves no record: {error}"));
            None
        }
    };
    let mode = context.mode();
    let (sink, events) = EventSink::new(id);
    let shown = headless::show(Recorded::new(events, recorder), mode, context.verbose);
    let (paths, store) = (&context.paths, &mut context.store);
    let worked = task::frame(sink, kind, title, async |sink| work(paths, store, sink, cancel).await);
    let (result, ()) = tokio::join!(worked, shown);
    result.map_err(|failure| match failure {
        Failure { cancelled: true, .. } => Interrupted.into(),
        Failure { late: true, error, .. } => TimedOut(error).into(),
        failure => anyhow!(failure.error),
    })
}

/// The signals that ask for an end, heard as long as this is there. It is the token that the first cancels.
pub struct Interrupt {
    cancel: CancellationToken,
    again: CancellationToken,
    _hearing: AbortOnDropHandle<()>,
}

impl Deref for Interrupt {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.cancel
    }
}

impl Interrupt {
    /// Begins to hear them.
    pub fn heard() -> Self {
        let [cancel, again] = [(); 2].map(|()| CancellationToken::new());
        let hearing = tokio::spawn(hear([cancel.clone(), again.clone()]));
        Self { cancel, again, _hearing: AbortOnDropHandle::new(hearing) }
    }

    /// Does the work. A ^C after it was asked to end does not wait for what it still has to tidy up: the next
    /// command does.
    pub async fn bound<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.again.cancelled() => Err(Interrupted.into()),
        }
    }
}

async fn hear([cancel, again]: [CancellationToken; 2]) {
    let streams = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    cancel.cancel();
    // Only a user has no patience: the end of a session sends several of the others at once.
    interrupt.recv().await;
    again.cancel();
}

/// Exit code as a number of a process.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}
