//! What the agent does for the cluster, as news of the task that waits for it.

use crate::agent::client::Client;
use crate::agent::response::Notice;
use crate::event::{Event, EventSink, Kind, Level, Source};

/// Passes on what the agent says until this is dropped. What cannot be heard is no reason to fail:
/// the database says as well how things stand.
pub async fn pass(client: &Client, sink: &EventSink) {
    if let Ok(mut events) = client.subscribe().await {
        let mut phases = Phases::default();
        while let Some(Ok(notice)) = events.next().await {
            if let Notice::Event { event } = notice {
                forward(*event, &mut phases, sink);
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Phases go forward only: several pools are built and booted side by side.
#[derive(Debug, Default)]
struct Phases {
    build: bool,
    boot: bool,
}

fn forward(event: Event, phases: &mut Phases, sink: &EventSink) {
    match event.kind {
        Kind::Phase { name } => match name.as_str() {
            "evaluate" | "build" | "collect" if !phases.build && !phases.boot => {
                phases.build = true;
                sink.phase("build");
            }
            "spawn" | "boot" if !phases.boot => {
                phases.boot = true;
                sink.phase("boot");
            }
            _ => {}
        },
        // Of the task: it began and ends as its own.
        Kind::TaskStarted { .. } | Kind::TaskEnded { .. } => {}
        // A plan is nothing to somebody who waits for its outcome.
        Kind::Log { source: Source::Mvm { level: Level::Info }, .. } => {}
        kind @ (Kind::ActivityStarted { .. }
        | Kind::ActivityPhase { .. }
        | Kind::ActivityStopped { .. }
        | Kind::Progress { .. }
        | Kind::Log { .. }
        | Kind::ArtifactsReady { .. }
        | Kind::VmState { .. }
        | Kind::VmStarted { .. }
        | Kind::SnapshotTaken { .. }) => sink.send(kind),
        _ => {}
    }
}
