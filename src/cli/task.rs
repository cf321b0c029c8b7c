//! A long task with its events shown, its record kept and ^C honoured.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::context::{Context, say};
use super::report::{Interrupted, TimedOut};
use crate::event::{EventSink, Kind, Outcome, TaskId, TaskKind};
use crate::headless;
use crate::host::paths::Paths;
use crate::host::setup::SetupError;
use crate::image::error::BuildError;
use crate::run::RunError;
use crate::run::record::Recorder;
use crate::store::Store;

/// How a task failed.
pub struct Failure {
    error: anyhow::Error,
    tail: Vec<String>,
    cancelled: bool,
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let (tail, cancelled) = (error.tail(), matches!(error, BuildError::Cancelled));
        Self { error: error.into(), tail, cancelled }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let (tail, cancelled) = (error.tail(), error.is_cancelled());
        let error = if error.is_late() { TimedOut(error.to_string()).into() } else { error.into() };
        Self { error, tail, cancelled }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let cancelled = error.is_cancelled();
        Self { error: error.into(), tail: Vec::new(), cancelled }
    }
}

/// Sorts of task by the letter of their ids.
fn letter(kind: TaskKind) -> char {
    match kind {
        TaskKind::Build => 'b',
        TaskKind::Run => 'r',
        TaskKind::Setup => 's',
    }
}

/// Runs `work`, showing its events as the user wishes. ^C, SIGTERM and SIGHUP cancel it.
pub async fn run<T>(
    context: &mut Context,
    kind: TaskKind,
    title: String,
    work: impl AsyncFnOnce(&Paths, &mut Store, &EventSink, &CancellationToken) -> Result<T, Failure>,
) -> Result<T> {
    let id = TaskId::new(letter(kind));
    let recorder = match Recorder::new(&context.paths, &id) {
        Ok(recorder) => Some(recorder),
        Err(error) => {
            say(&format!("warning: this task leaves no record: {error}"));
            None
        }
    };
    let mode = context.mode();
    let (sink, events) = EventSink::new(id);
    let cancel = CancellationToken::new();
    let since = Instant::now();
    sink.send(Kind::TaskStarted { kind, title });
    let watch = tokio::spawn(interrupted(cancel.clone()));
    let shown = headless::show(events, mode, context.verbose, recorder);
    let (paths, store) = (&context.paths, &mut context.store);
    let worked = async {
        let result = work(paths, store, &sink, &cancel).await;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(failure) if failure.cancelled => Outcome::Cancelled,
            Err(failure) => Outcome::Failed { error: failure.error.to_string(), tail: failure.tail.clone() },
        };
        let duration_ms = since.elapsed().as_millis() as u64;
        let dropped = sink.dropped();
        sink.send(Kind::TaskEnded { outcome, duration_ms, dropped });
        drop(sink);
        result
    };
    let (result, ()) = tokio::join!(worked, shown);
    watch.abort();
    result.map_err(|failure| if failure.cancelled { Interrupted.into() } else { failure.error })
}

/// Cancels at the first signal that asks for an end.
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
