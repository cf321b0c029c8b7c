//! The loop: drain what happened, answer keys, draw once.

mod input;
mod session;
mod terminal;

use std::io;
use std::time::{Duration, Instant};

use crossterm::cursor::SetCursorStyle;
use crossterm::event::{Event as Input, EventStream as Inputs};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;

use super::act::Effect;
use super::command;
use super::config::{self, Config};
use super::fault;
use super::keymap::Keymap;
use super::model::Model;
use super::screen::{self, Screen, Signal, Signals};
use super::source::Interest;
use super::surroundings::Surroundings;
use super::theme::Theme;
use super::ui::Ui;
use super::ui::page::Page;
use super::ui::tabs::{Program, Tab};
use super::view::spot::Spots;
use super::view::{self, Scene};
use super::work::Worker;
use crate::event::{Event, EventSink, EventStream, Kind, Outcome, TaskId};
use crate::host::paths::Paths;
use crate::terminal::Size;
use crate::terminal::grid::{Cursor, Shape};
use crate::terminal::session::Pumped;

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

/// What to say on the shell's screen once the console is gone.
#[derive(Debug, Default)]
pub struct Parting {
    /// Tasks of this console that failed: title, error and the tail of the log.
    pub failures: Vec<(String, String, Vec<String>)>,
    /// How it ended.
    pub end: End,
}

/// How the console ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// The user left.
    #[default]
    Left,
    /// By a signal, or because the terminal is gone.
    Interrupted,
    /// Another thread panicked, and has said so.
    Panicked,
}

/// Where the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    Leave(End),
}

/// The console.
struct App {
    model: Model,
    ui: Ui,
    theme: Theme,
    keymap: Keymap,
    paths: Paths,
    scrollback: usize,
    worker: Worker,
    interest: watch::Sender<Interest>,
    spots: Spots,
    /// Whether the screen shows less than is known.
    stale: bool,
    drawn: Instant,
}

/// Runs the console until the user leaves.
pub async fn run(paths: Paths, around: Surroundings, options: Options) -> io::Result<Parting> {
    let names: Vec<&str> = command::COMMANDS.iter().map(|command| command.name).collect();
    let (config, problems) = config::path().map_or_else(Default::default, |path| Config::load(&path, &names));
    let mut signals = Signals::new()?;
    let mut screen = Screen::enter(&screen::Options { mouse: config.mouse, title: "mvm".into() })?;
    let (sink, events) = EventSink::new(TaskId::machine());
    let (interest, interested) = watch::channel(Interest::default());
    let worker = Worker::start(paths.clone(), sink, interested)?;
    let mut ui = Ui { page: Page::Overview, flake: options.flake, watching: options.watch, ..Ui::default() };
    for problem in &problems {
        tracing::warn!("{problem}");
        ui.word = Some(problem.to_string());
    }
    let mut app = App {
        model: Model::default(),
        ui,
        theme: config.theme(&around),
        keymap: Keymap::new(config.prefix, &config.keys),
        paths,
        scrollback: config.scrollback,
        worker,
        interest,
        spots: Spots::default(),
        stale: true,
        drawn: Instant::now() - FRAME,
    };
    let ended = match app.serve(&mut screen, &mut signals, events).await {
        // A frame that fails can be the first to notice.
        Err(_) if screen.given_back().now_or_never().is_some() => Ok(End::Panicked),
        ended => ended,
    };
    drop(screen);
    let failures = app.failures();
    app.worker.finish();
    ended.map(|end| Parting { failures, end })
}

impl App {
    async fn serve(
        &mut self,
        screen: &mut Screen,
        signals: &mut Signals,
        mut events: EventStream,
    ) -> io::Result<End> {
        let mut inputs = Inputs::new();
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tokio::time::Instant::from_std(self.drawn + FRAME);
            let next = tokio::select! {
                biased;
                signal = signals.next() => self.signal(signal, screen)?,
                // Another thread panicked: what happened is on the shell's screen.
                () = screen.given_back() => Next::Leave(End::Panicked),
                input = inputs.next() => match input {
                    Some(input) => self.input(input?, screen)?,
                    None => Next::Leave(End::Interrupted),
                },
                () = tokio::time::sleep_until(due), if self.stale => {
                    self.draw(screen)?;
                    Next::Stay
                }
                index = self.ui.tabs.ready() => self.pump(index, screen)?,
                Some(event) = events.next() => self.drain(event, &mut events, screen)?,
                _ = clock.tick() => {
                    self.stale |= self.moves();
                    Next::Stay
                }
            };
            if let Next::Leave(end) = next {
                return Ok(end);
            }
        }
    }

    fn signal(&mut self, signal: Signal, screen: &mut Screen) -> io::Result<Next> {
        self.stale = true;
        match signal {
            Signal::Terminate | Signal::Hangup | Signal::Interrupt => {
                return Ok(Next::Leave(End::Interrupted));
            }
            Signal::Suspend => screen.suspend()?,
            Signal::Continue => screen.resume()?,
            Signal::Resize => {}
        }
        Ok(Next::Stay)
    }

    /// Takes events in, for as long as keys can wait.
    fn drain(&mut self, first: Event, events: &mut EventStream, screen: &mut Screen) -> io::Result<Next> {
        let since = Instant::now();
        let mut next = Some(first);
        while let Some(event) = next {
            self.stale |= self.model.apply(&event);
            if let Kind::VmStarted { vm, .. } = &event.kind
                && let Some(at) = self.ui.awaited.iter().position(|task| *task == event.task)
            {
                self.ui.awaited.remove(at);
                self.ui.leashed.push(vm.clone());
                self.perform(Effect::Open(Program::Ssh(vm.clone())), screen)?;
            }
            next = if since.elapsed() < DRAIN { events.try_next() } else { None };
        }
        Ok(Next::Stay)
    }

    /// Whether a clock on the screen moves by itself.
    fn moves(&self) -> bool {
        self.model.tasks.iter().any(|task| task.ended.is_none())
            || self.model.vms.iter().any(|vm| vm.is_live())
    }

    fn input(&mut self, input: Input, screen: &mut Screen) -> io::Result<Next> {
        self.stale = true;
        let effect = match input {
            Input::Key(key) => input::key(key, &self.keymap, &self.model, &mut self.ui),
            Input::Mouse(mouse) => input::mouse(mouse, &self.spots, &self.model, &mut self.ui),
            Input::Paste(text) => {
                fault::at("paste");
                input::paste(&text, &mut self.ui);
                None
            }
            Input::FocusGained | Input::FocusLost => {
                terminal::focus(input == Input::FocusGained, &mut self.ui);
                None
            }
            Input::Resize(..) => None,
        };
        self.tell_interest();
        effect.map_or(Ok(Next::Stay), |effect| self.perform(effect, screen))
    }

    /// Has read what is looked at.
    fn tell_interest(&self) {
        let console = self.ui.vms.vm(&self.model).map(|vm| vm.id.clone());
        self.interest.send_if_modified(|interest| {
            let changed = interest.console != console;
            interest.console = console;
            changed
        });
    }

    /// Does what a command asks for.
    fn perform(&mut self, effect: Effect, screen: &mut Screen) -> io::Result<Next> {
        match effect {
            Effect::Work(job) => drop(self.worker.take(job)),
            Effect::WorkThenOpen(job) => self.ui.awaited.push(self.worker.take(job)),
            Effect::Suspend => screen.suspend()?,
            Effect::Quit => return Ok(Next::Leave(End::Left)),
            Effect::Open(program) => {
                let tab = self.session(program);
                self.ui.tabs.open(tab);
                self.ui.page = Page::Terminal;
            }
            Effect::Reopen(program) => {
                let tab = self.session(program);
                self.ui.tabs.list[self.ui.tabs.active] = tab;
            }
            Effect::Copy(text) => {
                let word = match screen.copy(&text) {
                    Ok(()) => format!("copied {} characters", text.chars().count()),
                    Err(error) => error.to_string(),
                };
                self.ui.word = Some(word);
            }
            Effect::Forward { .. } => {}
        }
        Ok(Next::Stay)
    }

    fn session(&self, program: Program) -> Tab {
        session::open(program, &self.model, &self.paths, self.ui.tabs.size(), self.scrollback)
    }

    /// Takes in what a session has to say.
    fn pump(&mut self, index: usize, screen: &mut Screen) -> io::Result<Next> {
        let Pumped { effects, exit, .. } = self.ui.tabs.pump(index);
        self.stale |= effects.changed || effects.title || exit.is_some();
        if effects.bell {
            screen.bell()?;
        }
        match effects.clipboard {
            Some(text) => self.perform(Effect::Copy(text), screen),
            None => Ok(Next::Stay),
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let (model, ui, keymap, theme) = (&self.model, &mut self.ui, &self.keymap, &self.theme);
        let (spots, now) = (&mut self.spots, Timestamp::now());
        let mut shape = SetCursorStyle::DefaultUserShape;
        screen.draw(|frame| {
            let area = frame.area();
            let session = view::session(ui, area);
            ui.tabs.resize(Size::new(session.width, session.height));
            let scene = Scene { model, ui, keymap, theme, now };
            *spots = view::draw(scene, area, frame.buffer_mut());
            if let Some((place, cursor)) = view::cursor(ui, area) {
                frame.set_cursor_position(place);
                shape = cursor_style(cursor);
            }
        })?;
        screen.set_cursor(shape)?;
        self.drawn = Instant::now();
        self.stale = false;
        Ok(())
    }

    /// Tasks of this console that failed.
    fn failures(&self) -> Vec<(String, String, Vec<String>)> {
        let failed = self.model.tasks.iter().rev().filter(|task| task.own);
        let failures = failed.filter_map(|task| match &task.outcome {
            Some(Outcome::Failed { error, tail }) => Some((task.title.clone(), error.clone(), tail.clone())),
            _ => None,
        });
        failures.collect()
    }
}

fn cursor_style(cursor: Cursor) -> SetCursorStyle {
    match (cursor.shape, cursor.blinking) {
        (Shape::Block, true) => SetCursorStyle::BlinkingBlock,
        (Shape::Block, false) => SetCursorStyle::SteadyBlock,
        (Shape::Underline, true) => SetCursorStyle::BlinkingUnderScore,
        (Shape::Underline, false) => SetCursorStyle::SteadyUnderScore,
        (Shape::Bar, true) => SetCursorStyle::BlinkingBar,
        (Shape::Bar, false) => SetCursorStyle::SteadyBar,
    }
}
