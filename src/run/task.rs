//! A task's frame: that it began, and how it ended.

use std::time::Instant;

use crate::event::{EventSink, Kind, Outcome, TaskKind};
use crate::host::setup::SetupError;
use crate::image::error::BuildError;
use crate::run::RunError;
use crate::run::app::AppError;
use crate::run::dev::DevError;
use crate::run::wish::WishError;
use crate::store::StoreError;
use crate::vm::lifecycle::LifecycleError;
use crate::vm::network::ports::PortError;

/// How a task failed.
#[derive(Debug)]
pub struct Failure {
    /// What failed, on what, and what to do next.
    pub error: String,
    /// The last lines of the log that matters.
    pub tail: Vec<String>,
    /// Whether the user ended it.
    pub cancelled: bool,
    /// Whether a deadline passed.
    pub late: bool,
}

impl Failure {
    fn new(error: impl std::error::Error) -> Self {
        Self { error: error.to_string(), tail: Vec::new(), cancelled: false, late: false }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let (tail, cancelled) = (error.tail(), matches!(error, BuildError::Cancelled));
        Self { tail, cancelled, ..Self::new(error) }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let (tail, cancelled, late) = (error.tail(), error.is_cancelled(), error.is_late());
        Self { tail, cancelled, late, ..Self::new(error) }
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let (tail, cancelled) = (error.tail(), error.is_cancelled());
        Self { tail, cancelled, ..Self::new(error) }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let cancelled = error.is_cancelled();
        Self { cancelled, ..Self::new(error) }
    }
}

impl From<WishError> for Failure {
    fn from(error: WishError) -> Self {
        Self::new(error)
    }
}

impl From<DevError> for Failure {
    fn from(error: DevError) -> Self {
        match error {
            DevError::Run(error) => error.into(),
            DevError::Wish(error) => error.into(),
            error => Self::new(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error)
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        Self::new(error)
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::new(error)
    }
}

/// Does `work`, telling `sink` that the task began and how it ended. The sink goes with it.
pub async fn frame<T, E: Into<Failure>>(
    sink: EventSink,
    kind: TaskKind,
    title: String,
    work: impl AsyncFnOnce(&EventSink) -> Result<T, E>,
) -> Result<T, Failure> {
    let since = Instant::now();
    sink.send(Kind::TaskStarted { kind, title });
    let result = work(&sink).await.map_err(Into::into);
    let outcome = match &result {
        Ok(_) => Outcome::Ok,
        Err(failure) if failure.cancelled => Outcome::Cancelled,
        Err(failure) => Outcome::Failed { error: failure.error.clone(), tail: failure.tail.clone() },
    };
    let duration_ms = since.elapsed().as_millis() as u64;
    let dropped = sink.dropped();
    sink.send(Kind::TaskEnded { outcome, duration_ms, dropped });
    result
}
