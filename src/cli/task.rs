//! A task in the foreground: its events shown and recorded, ended by ^C.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
    run_until(context, &on_interrupt(), kind, title, work).await
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

/// A token that the first signal which asks for an end cancels.
pub fn on_interrupt() -> CancellationToken {
    let cancel = CancellationToken::new();
    tokio::spawn(interrupted(cancel.clone()));
    cancel
}

async fn interrupted(cancel: CancellationToken) {
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
}

/// Exit code as a number of a process.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}
