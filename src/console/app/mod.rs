//! The loop: drain what happened, answer keys, draw once.

mod input;
mod journal;
mod session;
mod terminal;

use std::io;
use std::time::{Duration, Instant};

use crossterm::cursor::SetCursorStyle;
use crossterm::event::{Event as Input, EventStream as Inputs};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::act::{self, Effect};
use super::command;
use super::config::{self, Config};
use super::keymap::Keymap;
use super::model::Model;
use super::screen::{self, Screen, Signal, Signals};
use super::source::Interest;
use super::surroundings::Surroundings;
use super::theme::Theme;
use super::ui::Ui;
use super::ui::page::Page;
use super::ui::tabs::{Program, Tab};
use super::view;
use super::view::spot::Spots;
use super::work::{Job, Worker};
use crate::event::text::strip;
use crate::event::{Event, EventSink, EventStream, Kind, Level, Outcome, Source, TaskId};
use crate::host::paths::Paths;
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
}

/// Where the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    Leave,
}

/// What the loop was woken by.
enum Woken {
    Signal(Signal),
    Frame,
    Input(Input),
    Work(Work),
}

/// What can wait for keys.
enum Work {
    Session(usize),
    Event(Event),
    Logged,
    Clock,
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
    let bell = journal::begin();
    let (config, problems) = config::path().map_or_else(Default::default, |path| Config::load(&path, &names));
    let mut signals = Signals::new()?;
    let mut screen = Screen::enter(&screen::Options { mouse: config.mouse, title: "mvm".into() })?;
    let (sink, events) = EventSink::new(TaskId::machine());
    let (interest, interested) = watch::channel(Interest::default());
    let worker = Worker::start(paths.clone(), sink, interested)?;
    let mut ui = Ui { page: Page::Overview, flake: options.flake, watching: options.watch, ..Ui::default() };
    problems.iter().for_each(|problem| tracing::warn!("{problem}"));
    ui.word = match problems.as_slice() {
        [] => None,
        [problem] => Some(problem.to_string()),
        [..] => Some(format!("{} mistakes in the configuration: the page Log names them", problems.len())),
    };
    let mut app = App {
        model: Model::new(config.log_limit_mib << 20),
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
    if app.ui.watching
        && let Some(Effect::Work(job)) = act::again(&app.model, &app.ui)
    {
        app.work(job);
    }
    let ended = app.serve(&mut screen, &mut signals, events, &bell).await;
    drop(screen);
    let parting = app.parting();
    app.worker.finish();
    ended.map(|()| parting)
}

impl App {
    async fn serve(
        &mut self,
        screen: &mut Screen,
        signals: &mut Signals,
        mut events: EventStream,
        bell: &Notify,
    ) -> io::Result<()> {
        let mut inputs = Inputs::new();
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tokio::time::Instant::from_std(self.drawn + FRAME);
            let tabs = &self.ui.tabs;
            // None of these may keep another waiting, however much it has to say.
            let work = async {
                tokio::select! {
                    index = tabs.ready() => Work::Session(index),
                    Some(event) = events.next() => Work::Event(event),
                    () = bell.notified() => Work::Logged,
                    _ = clock.tick() => Work::Clock,
                }
            };
            let woken = tokio::select! {
                biased;
                signal = signals.next() => Woken::Signal(signal),
                // Another thread panicked: what happened is on the shell's screen.
                () = screen.given_back() => return Ok(()),
                () = tokio::time::sleep_until(due), if self.stale => Woken::Frame,
                input = inputs.next() => match input {
                    Some(input) => Woken::Input(input?),
                    None => return Ok(()),
                },
                work = work => Woken::Work(work),
            };
            let next = match woken {
                Woken::Signal(signal) => self.signal(signal, screen)?,
                Woken::Frame => self.draw(screen)?,
                Woken::Input(input) => self.input(input, screen)?,
                Woken::Work(Work::Session(index)) => self.pump(index, screen)?,
                Woken::Work(Work::Event(event)) => self.drain(event, &mut events, screen)?,
                Woken::Work(Work::Logged) => self.look_again(self.ui.page == Page::Log),
                Woken::Work(Work::Clock) => self.look_again(self.moves()),
            };
            if next == Next::Leave {
                return Ok(());
            }
        }
    }

    fn look_again(&mut self, stale: bool) -> Next {
        self.stale |= stale;
        Next::Stay
    }

    fn signal(&mut self, signal: Signal, screen: &mut Screen) -> io::Result<Next> {
        self.stale = true;
        match signal {
            Signal::Terminate | Signal::Hangup | Signal::Interrupt => return Ok(Next::Leave),
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
            self.hear(&event, screen)?;
            next = if since.elapsed() < DRAIN { events.try_next() } else { None };
        }
        Ok(Next::Stay)
    }

    /// Does what an event calls for beyond being shown.
    fn hear(&mut self, event: &Event, screen: &mut Screen) -> io::Result<()> {
        match &event.kind {
            Kind::VmStarted { vm, .. } if event.task.is_own() => {
                self.ui.vms.select(vm);
                if self.ui.awaited.as_ref() == Some(&event.task) {
                    self.ui.awaited = None;
                    self.perform(Effect::Open(Program::Ssh(vm.clone())), screen)?;
                }
            }
            Kind::Log { source: Source::Mvm { level }, text } if event.task == TaskId::machine() => {
                match level {
                    Level::Info => tracing::info!("{}", strip(text)),
                    Level::Warning => tracing::warn!("{}", strip(text)),
                }
            }
            Kind::TaskEnded { outcome: Outcome::Failed { error, .. }, .. } if event.task.is_own() => {
                tracing::error!("{}", strip(error));
                if self.ui.page != Page::Builds {
                    let title = self.model.task(&event.task).map_or("a task", |task| task.title.as_str());
                    let first = error.lines().next().unwrap_or_default();
                    self.ui.word = Some(format!("{title} failed: {first}"));
                }
            }
            _ => {}
        }
        Ok(())
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
                input::paste(&text, &self.model, &mut self.ui);
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
            Effect::Work(job) => drop(self.work(job)),
            Effect::WorkThenOpen(job) => self.ui.awaited = Some(self.work(job)),
            Effect::Suspend => screen.suspend()?,
            Effect::Quit => return Ok(Next::Leave),
            Effect::Open(program) => {
                let tab = self.session(program);
                self.ui.tabs.open(tab);
                self.ui.page = Page::Terminal;
            }
            Effect::Reopen(program) => {
                let tab = self.session(program);
                self.ui.tabs.list[self.ui.tabs.active] = tab;
            }
            Effect::Export(path) => {
                let Some((log, state)) = self.ui.shown_log(&self.model) else { return Ok(Next::Stay) };
                let word = match state.export(log, &path) {
                    Ok(1) => format!("wrote 1 line to {}", path.display()),
                    Ok(lines) => format!("wrote {lines} lines to {}", path.display()),
                    Err(error) => error.to_string().replace('\n', "; "),
                };
                self.ui.word = Some(word);
            }
            Effect::Copy(text) => {
                let word = match screen.copy(&text) {
                    Ok(()) => format!("copied {} characters", text.chars().count()),
                    Err(error) => error.to_string(),
                };
                self.ui.word = Some(word);
            }
        }
        Ok(Next::Stay)
    }

    /// Has a job done; a task among them is what is looked at from now on.
    fn work(&mut self, job: Job) -> TaskId {
        let is_task = matches!(job, Job::Build(_) | Job::Run(_) | Job::Restart(_));
        let id = self.worker.take(job);
        if is_task {
            self.ui.builds.select(id.clone());
        }
        id
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

    fn draw(&mut self, screen: &mut Screen) -> io::Result<Next> {
        let (model, ui, keymap, theme) = (&self.model, &mut self.ui, &self.keymap, &self.theme);
        let (spots, now) = (&mut self.spots, Timestamp::now());
        let mut shape = SetCursorStyle::DefaultUserShape;
        journal::take_in();
        screen.draw(|frame| {
            let area = frame.area();
            *spots = view::show((model, ui), (keymap, theme), now, area, frame.buffer_mut());
            if let Some((place, cursor)) = view::cursor(ui, area) {
                frame.set_cursor_position(place);
                shape = cursor_style(cursor);
            }
        })?;
        screen.set_cursor(shape)?;
        self.drawn = Instant::now();
        // A large log is looked through over several frames.
        self.stale = self.ui.is_scanning(&self.model);
        Ok(Next::Stay)
    }

    fn parting(&self) -> Parting {
        let mut failures = Vec::new();
        for task in self.model.tasks.iter().rev().filter(|task| task.own) {
            if let Some(Outcome::Failed { error, tail }) = &task.outcome {
                let failure = (task.title.clone(), error.clone(), tail.clone());
                // What was tried again and failed the same way is told once.
                failures.retain(|earlier| *earlier != failure);
                failures.push(failure);
            }
        }
        Parting { failures }
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
