//! Changes of the flake that the user watches.

use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use super::Interest;
use crate::event::{EventSink, Kind, Source};
use crate::host::paths::Paths;
use crate::image::flake::{FlakeRef, RefError};
use crate::run::watch::{Manner, News, WatchError, Watching};

/// Tells `sink` of changes of the sources that are of interest, until `cancel` fires or the other end of
/// `interest` is gone.
pub async fn follow(
    paths: Paths,
    mut interest: Receiver<Interest>,
    sink: EventSink,
    cancel: CancellationToken,
) {
    loop {
        let watched = interest.borrow_and_update().sources.clone();
        let telling = async {
            let Some(flake) = &watched else { return std::future::pending().await };
            let Err(error) = tell(flake, &paths, &sink).await;
            sink.warn(error.to_string());
            // It is built once all the same.
            sink.send(Kind::SourcesChanged { paths: Vec::new(), more: 0 });
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = telling => {}
            wished = interest.wait_for(|interest| interest.sources != watched) => if wished.is_err() { return },
        }
    }
}

/// Why a flake is not watched.
#[derive(Debug, thiserror::Error)]
enum Blind {
    #[error(transparent)]
    Flake(#[from] RefError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

async fn tell(flake: &str, paths: &Paths, sink: &EventSink) -> Result<std::convert::Infallible, Blind> {
    let flake: FlakeRef = flake.parse()?;
    let mut watching = Watching::begin(&flake, Manner::default(), paths).await?;
    // What was saved before is part of the first build, and what is saved from now on is told.
    sink.send(Kind::SourcesChanged { paths: Vec::new(), more: 0 });
    loop {
        match watching.next().await {
            News::Changed(change) => {
                sink.send(Kind::SourcesChanged { paths: change.names(), more: change.more });
            }
            News::Note(level, text) => sink.send(Kind::Log { source: Source::Mvm { level }, text }),
        }
    }
}
