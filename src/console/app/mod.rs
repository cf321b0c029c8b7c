//! The loop: drain what happened, answer keys, draw once.

mod backing;
mod effect;
mod input;
mod journal;
mod session;
mod terminal;

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use crossterm::cursor::SetCursorStyle;
use crossterm::event::{Event as Input, EventStream as Inputs};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;

use backing::Backing;
pub use backing::Origin;
#[cfg(test)]
pub use input::key as pressed;

use super::act::{self, Effect};
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
use super::ui::tabs::Program;
use super::view;
use super::view::spot::Spots;
use crate::event::text::strip;
use crate::event::{Event, EventSink, EventStream, Kind, Level, Outcome, Source, TaskId};
use crate::run::record::Recorder;
use crate::terminal::grid::{Cursor, Shape};

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
    /// Where what is shown is recorded too.
    pub recorder: Option<Recorder>,
}

/// A task that failed: its title, its error and the tail of its log.
type Failed = (String, String, Vec<String>);

/// What is left to do and to say on the shell's screen once the console is gone.
pub struct Parting {
    /// Tasks of this console that failed.
    pub failures: Vec<Failed>,
    /// How it came to its end.
    pub end: End,
    /// What ends with it, by name.
    pub ending: Vec<String>,
    backing: Backing,
    signals: Signals,
}

impl Parting {
    /// Waits until what ends with the console has ended. Another signal leaves that to the kernel.
    pub async fn finish(mut self) {
        tokio::select! {
            () = self.backing.finish() => {}
            _ = self.signals.next() => {}
        }
    }
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
    scrollback: usize,
    backing: Backing,
    recorder: Option<Recorder>,
    spots: Spots,
    /// Whether the screen shows less than is known.
    stale: bool,
    drawn: Instant,
}

/// Runs the console until the user leaves.
pub async fn run(origin: Origin, around: Surroundings, options: Options) -> io::Result<Parting> {
    let names: Vec<&str> = command::COMMANDS.iter().map(|command| command.name).collect();
    let bell = journal::begin();
    let (config, problems) = config::path().map_or_else(Default::default, |path| Config::load(&path, &names));
    let mut signals = Signals::new()?;
    if is_gone() {
        // crossterm would panic.
        return Err(io::Error::other("the terminal was hung up"));
    }
    // Before anything is drawn: whoever sees that may hang up, and there is no other time at which
    // crossterm opens the terminal.
    let inputs = Inputs::new();
    let mut screen = Screen::enter(&screen::Options { mouse: config.mouse, title: "mvm".into() })?;
    let (sink, events) = EventSink::new(TaskId::machine());
    let backing = Backing::start(origin, sink)?;
    let mut ui = Ui { page: Page::Overview, flake: options.flake, watching: options.watch, ..Ui::default() };
    let keymap = Keymap::new(config.prefix, &config.keys);
    let clashes = keymap.clashes().into_iter();
    let clashes = clashes.map(|(key, one, other)| format!("{key} is the key of `{one}` and of `{other}`"));
    let problems: Vec<String> = problems.iter().map(ToString::to_string).chain(clashes).collect();
    problems.iter().for_each(|problem| tracing::warn!("{problem}"));
    ui.word = match problems.as_slice() {
        [] => None,
        [problem] => Some(problem.clone()),
        [..] => Some(format!("{} mistakes in the configuration: the page Log names them", problems.len())),
    };
    let mut app = App {
        model: Model::new(config.log_limit_mib << 20),
        ui,
        theme: config.theme(&around),
        keymap,
        scrollback: config.scrollback,
        backing,
        recorder: options.recorder,
        spots: Spots::default(),
        stale: true,
        drawn: Instant::now() - FRAME,
    };
    let ended = match app.serve(&mut screen, &mut signals, inputs, events, &bell).await {
        // A frame that fails can be the first to notice.
        Err(_) if screen.given_back().now_or_never().is_some() => Ok(End::Panicked),
        Err(_) if is_gone() => Ok(End::Interrupted),
        ended => ended,
    };
    drop(screen);
    app.ui.tabs.hang_up();
    let (failures, ending) = (app.failures(), app.ending());
    ended.map(|end| Parting { failures, end, ending, backing: app.backing, signals })
}

impl App {
    async fn serve(
        &mut self,
        screen: &mut Screen,
        signals: &mut Signals,
        mut inputs: Inputs,
        mut events: EventStream,
        bell: &Notify,
    ) -> io::Result<End> {
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
                () = screen.given_back() => return Ok(End::Panicked),
                () = tokio::time::sleep_until(due), if self.stale => Woken::Frame,
                input = next_input(&mut inputs) => match input {
                    Some(input) => Woken::Input(input?),
                    None => return Ok(End::Interrupted),
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
                // crossterm does not always say so.
                Woken::Work(Work::Clock) if is_gone() => return Ok(End::Interrupted),
                Woken::Work(Work::Clock) => {
                    self.record(Recorder::flush);
                    self.look_again(self.moves())
                }
            };
            if let Next::Leave(end) = next {
                return Ok(end);
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
            self.record(|recorder| recorder.add(&event));
            self.stale |= self.model.apply(&event);
            self.hear(&event, screen)?;
            if let Some(effect) = act::follow(&mut self.model, &self.ui) {
                self.perform(effect, screen)?;
            }
            next = if since.elapsed() < DRAIN { events.try_next() } else { None };
        }
        Ok(Next::Stay)
    }

    /// Does what an event calls for beyond being shown.
    fn hear(&mut self, event: &Event, screen: &mut Screen) -> io::Result<()> {
        match &event.kind {
            Kind::VmStarted { vm, .. } if event.task.is_own() => {
                self.ui.vms.select(vm);
                if let Some(at) = self.ui.awaited.iter().position(|task| *task == event.task) {
                    self.ui.awaited.remove(at);
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

    /// Writes into the recording, as long as that can be done.
    fn record(&mut self, how: impl FnOnce(&mut Recorder) -> io::Result<()>) {
        if let Some(Err(error)) = self.recorder.as_mut().map(how) {
            self.recorder = None;
            self.ui.word = Some(format!("the recording has ended: {error}"));
            self.stale = true;
        }
    }

    /// Whether a clock on the screen moves by itself.
    fn moves(&self) -> bool {
        self.model.tasks.iter().any(|task| task.ended.is_none())
            || self.model.vms.iter().any(|vm| vm.is_live())
            || self.ui.page == Page::Cluster && !self.model.cluster.is_empty()
            || self.ui.page == Page::Routes && !self.model.cluster.routes.is_empty()
            || self.model.notice.is_some()
    }

    fn input(&mut self, input: Input, screen: &mut Screen) -> io::Result<Next> {
        self.stale = true;
        let effect = match input {
            Input::Key(key) => input::key(key, &self.keymap, &self.model, &mut self.ui),
            Input::Mouse(mouse) => input::mouse(mouse, &self.spots, &self.model, &mut self.ui),
            Input::Paste(text) => {
                fault::at("paste");
                input::paste(&text, &self.model, &mut self.ui);
                None
            }
            Input::FocusGained | Input::FocusLost => {
                terminal::focus(input == Input::FocusGained, &mut self.ui);
                None
            }
            Input::Resize(..) => None,
        };
        effect.map_or(Ok(Next::Stay), |effect| self.perform(effect, screen))
    }

    /// Has read what is looked at.
    fn tell_interest(&self) {
        let console = match self.ui.page {
            Page::Cluster => self.ui.cluster.instance(&self.model).and_then(|one| one.info.vm.clone()),
            _ => self.ui.vms.vm(&self.model).map(|vm| vm.id.clone()),
        };
        let sources = self.ui.flake.clone().filter(|_| self.ui.watching);
        self.backing.look_at(Interest { console, sources });
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<Next> {
        self.tell_interest();
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

    /// What ends with this console.
    fn ending(&self) -> Vec<String> {
        let tasks = self.model.tasks.iter().filter(|task| task.own && task.ended.is_none());
        let vms = self.model.vms.iter().filter(|vm| vm.leashed && vm.is_live());
        tasks.map(|task| task.title.clone()).chain(vms.map(|vm| vm.name.clone())).collect()
    }

    /// Tasks of this console that failed.
    fn failures(&self) -> Vec<Failed> {
        let mut failures = Vec::new();
        for task in self.model.tasks.iter().rev().filter(|task| task.own) {
            if let Some(Outcome::Failed { error, tail }) = &task.outcome {
                let failure = (task.title.clone(), error.clone(), tail.clone());
                // What was tried again and failed the same way is told once.
                failures.retain(|earlier| *earlier != failure);
                failures.push(failure);
            }
        }
        failures
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

/// The next key; `None` once the terminal is gone. crossterm would read on for ever then, without
/// letting anything else be done.
async fn next_input(inputs: &mut Inputs) -> Option<io::Result<Input>> {
    poll_fn(|context| if is_gone() { Poll::Ready(None) } else { inputs.poll_next_unpin(context) }).await
}

/// Whether the terminal was hung up.
fn is_gone() -> bool {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    let polled = poll(&mut terminal, PollTimeout::ZERO);
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    polled.is_ok() && terminal[0].revents().is_some_and(|found| found.intersects(gone))
}
