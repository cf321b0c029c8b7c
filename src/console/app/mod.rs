//! The loop: drain what happened, answer keys, draw once.

mod input;

use std::io;
use std::time::{Duration, Instant};

use crossterm::event::{Event as Input, EventStream as Inputs};
use futures_util::StreamExt;
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use tokio::sync::watch;

use super::act::Effect;
use super::model::Model;
use super::source::Interest;
use super::theme::Theme;
use super::ui::Ui;
use super::view::{self, Scene};
use super::work::Worker;
use crate::event::{Event, EventSink, EventStream, Kind, TaskId};
use crate::host::paths::Paths;

/// Shortest time between two frames: 60 a second.
const FRAME: Duration = Duration::from_micros(16_667);
/// How often clocks on the screen move while something runs.
const TICK: Duration = Duration::from_secs(1);
/// How long events are taken in before keys are looked at again.
const DRAIN: Duration = Duration::from_millis(4);

/// How the console is started.
#[derive(Debug, Default)]
pub struct Options {
    /// The flake that is worked on.
    pub flake: Option<String>,
    /// Whether its sources are watched.
    pub watch: bool,
}

/// The console.
struct App {
    model: Model,
    ui: Ui,
    theme: Theme,
    worker: Worker,
    interest: watch::Sender<Interest>,
    /// Whether the screen shows less than is known.
    stale: bool,
    drawn: Instant,
}

/// Runs the console until the user leaves.
pub async fn run(paths: Paths, options: Options) -> io::Result<()> {
    let (sink, events) = EventSink::new(TaskId::machine());
    let (interest, interested) = watch::channel(Interest::default());
    let worker = Worker::start(paths, sink, interested)?;
    let ui = Ui { page: super::ui::page::Page::Overview, flake: options.flake, ..Ui::default() };
    let theme = Theme::new(&super::theme::Palette::dark(), super::theme::Depth::True, false);
    let drawn = Instant::now() - FRAME;
    let mut app = App { model: Model::default(), ui, theme, worker, interest, stale: true, drawn };
    let mut terminal = ratatui::try_init()?;
    let ended = app.serve(&mut terminal, events).await;
    ratatui::restore();
    app.worker.finish();
    ended
}

impl App {
    async fn serve(&mut self, terminal: &mut DefaultTerminal, mut events: EventStream) -> io::Result<()> {
        let mut inputs = Inputs::new();
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tokio::time::Instant::from_std(self.drawn + FRAME);
            tokio::select! {
                biased;
                input = inputs.next() => match input {
                    Some(Ok(input)) => {
                        if self.input(input) {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(due), if self.stale => self.draw(terminal)?,
                Some(event) = events.next() => self.drain(event, &mut events),
                _ = clock.tick() => self.stale |= self.moves(),
            }
        }
    }

    /// Takes events in, for as long as keys can wait.
    fn drain(&mut self, first: Event, events: &mut EventStream) {
        let since = Instant::now();
        let mut next = Some(first);
        while let Some(event) = next {
            self.stale |= self.model.apply(&event);
            self.follow_up(&event);
            next = if since.elapsed() < DRAIN { events.try_next() } else { None };
        }
        let console = self.ui.vms.vm(&self.model).filter(|vm| vm.is_live()).map(|vm| vm.id.clone());
        self.interest.send_if_modified(|interest| {
            let changed = interest.console != console;
            interest.console = console;
            changed
        });
    }

    /// Does what was to be done once something happened.
    fn follow_up(&mut self, event: &Event) {
        match &event.kind {
            Kind::VmStarted { vm, .. } if self.ui.awaited.as_ref() == Some(&event.task) => {
                self.ui.awaited = None;
                self.perform(Effect::OpenSsh(vm.clone()));
            }
            _ => {}
        }
    }

    /// Whether a clock on the screen moves by itself.
    fn moves(&self) -> bool {
        self.model.tasks.iter().any(|task| task.ended.is_none())
            || self.model.vms.iter().any(|vm| vm.is_live())
    }

    fn input(&mut self, input: Input) -> bool {
        self.stale = true;
        match input {
            Input::Key(key) if key.is_press() => match input::key(key, &self.model, &mut self.ui) {
                Some(effect) => self.perform(effect),
                None => false,
            },
            _ => false,
        }
    }

    /// Does what a command asks for. Returns whether the console is over.
    fn perform(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Work(job) => drop(self.worker.take(job)),
            Effect::WorkThenOpen(job) => self.ui.awaited = Some(self.worker.take(job)),
            Effect::Quit => return true,
            Effect::OpenSsh(_) | Effect::OpenShell | Effect::Suspend => {}
        }
        false
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let scene = Scene { model: &self.model, ui: &self.ui, theme: &self.theme, now: Timestamp::now() };
        terminal.draw(|frame| view::draw(scene, frame.area(), frame.buffer_mut()))?;
        self.drawn = Instant::now();
        self.stale = false;
        Ok(())
    }
}
