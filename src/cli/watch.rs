//! A command done again with each change, until ^C.

use std::time::Instant;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::report::{self, Interrupted};
use super::task::Interrupt;
use crate::event::{Kind, Level, Source};
use crate::headless;
use crate::image::flake::FlakeRef;
use crate::image::watch::Change;
use crate::run::watch::{Manner, News, Watching};

/// Sources that are watched until ^C.
pub struct Session {
    watching: Watching,
    interrupt: Interrupt,
    /// What set off the work that is to be done, and when that was heard.
    change: Option<(Change, Instant)>,
}

impl Session {
    /// Begins to watch.
    pub async fn begin(context: &Context, flake: &FlakeRef, manner: Manner) -> Result<Self> {
        let watching = Watching::begin(flake, manner, &context.paths).await?;
        Ok(Self { watching, interrupt: Interrupt::heard(), change: None })
    }

    /// When the change was heard that is to be worked on.
    pub fn since(&self) -> Option<Instant> {
        self.change.as_ref().map(|(_, since)| *since)
    }

    /// Does the work. A failure is told, and no reason to end.
    pub async fn work<T>(
        &mut self,
        work: impl AsyncFnOnce(Option<Change>, &CancellationToken) -> Result<T>,
    ) -> Option<T> {
        let change = self.change.take().map(|(change, _)| change);
        let done = self.watching.during(&self.interrupt, async |stop| work(change, stop).await);
        let done = self.interrupt.bound(done).await;
        // An interruption needs no words: the next change set it off, or the user.
        done.inspect_err(|error| {
            report::print(error);
        })
        .ok()
    }

    /// Does what is to be done at the end, unless the user has no patience for it.
    pub async fn bound<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.interrupt.bound(work).await
    }

    /// Waits for the next change. Fails when the user has had enough.
    pub async fn change(&mut self, context: &Context) -> Result<()> {
        loop {
            let news = tokio::select! {
                biased;
                () = self.interrupt.cancelled() => return Err(Interrupted.into()),
                news = self.watching.next() => news,
            };
            match news {
                News::Changed(change) => {
                    self.change = Some((change, Instant::now()));
                    return Ok(());
                }
                News::Note(level, text) => self.note(context, level, text),
            }
        }
    }

    /// Tells something that belongs to no task.
    pub fn note(&self, context: &Context, level: Level, text: String) {
        headless::tell(Kind::Log { source: Source::Mvm { level }, text }, context.mode(), context.verbose);
    }
}
