//! `mvm log`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueHint};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::context::{Context, print, say};
use super::task::Interrupt;
use crate::artifacts::Artifacts;
use crate::event::words::drv_name;
use crate::event::{Event, Kind, Outcome, SCHEMA_VERSION, Source, TaskId};
use crate::headless::lines::{Line, Lines, Tone};
use crate::headless::takes_colours;
use crate::image::drvlog::{self, is_store_path};
use crate::image::machines::StoreUri;
use crate::image::nix::Nix;
use crate::run::follow::{Depth, Record};
use crate::run::past::{self, Past, Wanted};

/// Pause between two looks at a record that is followed.
const POLL: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  mvm log                            the newest build, failed or not
  mvm log nix/examples/hello         the newest of a flake
  mvm log 4n56drqr                   by the beginning of its id, as `mvm status` shows it
  mvm log b-19c2f3a7d10-1f2e --drv hello-rootfs
  mvm log -f                         a build that another terminal has started

Shown is what the record of the build's task kept; of a failed one, the whole logs of the
derivations that failed, from Nix. --drv shows the log of one derivation and nothing else.
With --json the events are printed, as `mvm build --json` does.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LogArgs {
    /// The build: how its id or its task's (`b-…`) begins, its directory, or a flake [default: the newest]
    #[arg(value_hint = ValueHint::AnyPath)]
    build: Option<String>,
    /// Only the whole log of this derivation: its name, how that begins, or its path in the Nix store
    #[arg(long, value_name = "NAME")]
    drv: Option<String>,
    /// Go on until the build is over
    #[arg(long, short)]
    follow: bool,
}

/// Shows the log of a build.
pub async fn log(context: &mut Context, args: LogArgs) -> Result<ExitCode> {
    let cancel = Interrupt::heard();
    let show = Show { context, cancel: &cancel, colour: takes_colours(&std::io::stdout()) };
    // What has a path needs no record.
    if let Some(path) = args.drv.as_deref().filter(|drv| args.build.is_none() && is_store_path(drv)) {
        show.kept_by_nix(&TaskId::machine(), path, None, "").await?.then_some(()).with_context(|| {
            format!("Nix has no log of `{path}`\nhelp: `mvm log --drv NAME` shows what the newest build kept of one")
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = args.build.as_deref().map_or(Ok(Wanted::Newest), str::parse)?;
    let all = past::list(&context.paths).context("cannot read the records of tasks")?;
    let past = match wanted.find(&all) {
        Ok(past) => past,
        // Its record is gone, and Nix may know its log all the same.
        Err(error) => match known(context, &wanted) {
            Some(artifacts) => {
                let path = artifacts.manifest.store_path.display().to_string();
                say(&format!("note: mvm has no record of the build any more; this is Nix's log of {path}"));
                show.kept_by_nix(&TaskId::machine(), &path, None, "").await?.then_some(()).ok_or(error)?;
                return Ok(ExitCode::SUCCESS);
            }
            None => return Err(error.into()),
        },
    };
    match &args.drv {
        Some(name) => show.derivation(past, past.drv(name)?, args.follow).await?,
        None => show.whole(past, args.follow).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The artifacts of a build that is there, though no record tells of it.
fn known(context: &Context, wanted: &Wanted) -> Option<Artifacts> {
    let Wanted::Build(begin) = wanted else { return None };
    let builds = context.store.builds().ok()?;
    let mut fit = builds.iter().filter(|build| build.id.starts_with(begin.as_str()));
    let (build, None) = (fit.next()?, fit.next()) else { return None };
    Artifacts::open(&context.paths.builds().join(&build.id)).ok()
}

/// How logs are shown.
struct Show<'a> {
    context: &'a Context,
    cancel: &'a CancellationToken,
    colour: bool,
}

impl Show<'_> {
    /// A build that is over, or one that goes on: to its end if it is followed.
    async fn whole(&self, past: &Past, follow: bool) -> Result<()> {
        if self.context.json {
            return self.record(past, follow, |_| true).await;
        }
        self.line(&Line { tone: Tone::Lasting, word: "log", text: heading(past) })?;
        if past.outcome.is_none() {
            return self.record(past, follow, |_| true).await;
        }
        // They come whole, and at the end.
        let failed = past.failed();
        let is_later = |event: &Event| match &event.kind {
            Kind::Log { source: Source::Build { drv }, .. } => failed.contains(&drv.as_str()),
            Kind::TaskEnded { .. } => true,
            _ => false,
        };
        self.record(past, false, |event| !is_later(event)).await?;
        for drv in &failed {
            let prefix = format!("{}> ", drv_name(drv));
            if !self.kept_by_nix(&past.task, drv, past.store.as_deref(), &prefix).await? {
                self.record(past, false, |event| is_of(event, drv)).await?;
            }
        }
        self.record(past, false, |event| matches!(event.kind, Kind::TaskEnded { .. })).await
    }

    /// The log of one derivation: from Nix once it is whole there, else what came by.
    async fn derivation(&self, past: &Past, drv: &str, follow: bool) -> Result<()> {
        // Nix knows nothing of layers.
        let over = past.outcome.is_some() && is_store_path(drv);
        if over && self.kept_by_nix(&past.task, drv, past.store.as_deref(), "").await? {
            return Ok(());
        }
        if over {
            say(&format!("note: Nix has no log of {}; this is what mvm kept of it", drv_name(drv)));
        }
        let bare = |event: Event| match event.kind {
            Kind::Log { text, .. } => self.text(&past.task, drv, &text),
            Kind::TaskEnded { outcome, dropped, .. } => self.missing(past, drv, &outcome, dropped),
            _ => Ok(()),
        };
        let wanted = |event: &Event| is_of(event, drv) || matches!(event.kind, Kind::TaskEnded { .. });
        self.events(past, follow, wanted, bare).await
    }

    /// What is to be said of a derivation's log that found no room in the record: how it ended, if it failed.
    fn missing(&self, past: &Past, drv: &str, outcome: &Outcome, dropped: u64) -> Result<()> {
        if dropped == 0 {
            return Ok(());
        }
        match outcome {
            Outcome::Failed { tail, .. } if past.failed() == [drv] => {
                say(&format!("note: {}; what follows are the last", left_out(dropped)));
                tail.iter().try_for_each(|text| self.text(&past.task, drv, text))
            }
            _ => {
                say(&format!("note: {}", left_out(dropped)));
                Ok(())
            }
        }
    }

    /// The events of the record that are `wanted`.
    async fn record(&self, past: &Past, follow: bool, wanted: impl Fn(&Event) -> bool) -> Result<()> {
        let mut lines = Lines::new(true);
        self.events(past, follow, wanted, |event| {
            if self.context.json {
                return print(&serde_json::to_string(&event)?);
            }
            match &event.kind {
                Kind::TaskEnded { outcome: Outcome::Failed { error, tail }, dropped, .. } => {
                    let raw = |text: &str| self.line(&Line { tone: Tone::Log, word: "", text: text.into() });
                    if *dropped > 0 {
                        let text = format!("{}; what follows are the last", left_out(*dropped));
                        self.line(&Line { tone: Tone::Warning, word: "warning", text })?;
                    }
                    // Logs of derivations are shown already.
                    if past.drvs.is_empty() || past.build.is_some() || *dropped > 0 {
                        tail.iter().try_for_each(|text| raw(text))?;
                    }
                    let (first, rest) = error.split_once('\n').unwrap_or((error, ""));
                    self.line(&Line { tone: Tone::Warning, word: "failed", text: first.into() })?;
                    rest.lines().try_for_each(raw)
                }
                _ => lines.lines(&event).iter().try_for_each(|line| self.line(line)),
            }
        })
        .await
    }

    /// Gives `each` the events of the record that are `wanted`; to its end if it is followed.
    async fn events(
        &self,
        past: &Past,
        follow: bool,
        wanted: impl Fn(&Event) -> bool,
        mut each: impl FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let record = Record::open(&self.context.paths.tasks(), past.task.clone(), Depth::Whole)?;
        let mut record = record.context("the record was removed meanwhile\nhelp: the newest 50 are kept")?;
        loop {
            let mut shown = Ok(());
            let over = record.read(&mut |event| {
                if shown.is_ok() && wanted(&event) {
                    shown = each(event);
                }
            });
            shown?;
            if over || !follow {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// What Nix kept of a derivation's log, each line behind `prefix`; false when it has none.
    async fn kept_by_nix(
        &self,
        task: &TaskId,
        path: &str,
        store: Option<&str>,
        prefix: &str,
    ) -> Result<bool> {
        let store = store.and_then(|store| store.parse::<StoreUri>().ok());
        let nix = Nix { dir: None, inputs: None, elsewhere: None, background: false, cancel: self.cancel };
        let mut shown = Ok(());
        let there = drvlog::read(path, store.as_ref(), &nix, |line| {
            if shown.is_ok() {
                shown = self.text(task, path, &format!("{prefix}{line}"));
            }
        });
        let there = there.await?;
        shown.map(|()| there)
    }

    /// A line of a derivation's log.
    fn text(&self, task: &TaskId, drv: &str, text: &str) -> Result<()> {
        if !self.context.json {
            return self.line(&Line { tone: Tone::Log, word: "", text: text.into() });
        }
        let kind = Kind::Log { source: Source::Build { drv: drv.into() }, text: text.into() };
        let event = Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: task.clone(), kind };
        print(&serde_json::to_string(&event)?)
    }

    fn line(&self, line: &Line) -> Result<()> {
        print(line.render(self.colour).trim_end_matches('\n'))
    }
}

fn left_out(dropped: u64) -> String {
    format!("{dropped} lines found no room in the record of the task")
}

/// Which build it is.
fn heading(past: &Past) -> String {
    format!("{} of {}, {:.0}: {}", past.task.as_str(), past.flake, past.began, past.state())
}

fn is_of(event: &Event, wanted: &str) -> bool {
    matches!(&event.kind, Kind::Log { source: Source::Build { drv }, .. } if drv == wanted)
}
