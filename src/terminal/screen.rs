//! The emulator: bytes in, a grid with scrollback out, and what the bytes asked for besides.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use alacritty_terminal::Term;
use alacritty_terminal::event::{Event, EventListener, WindowSize};
use alacritty_terminal::grid::{Dimensions, Scroll};
use alacritty_terminal::term::{Config, Osc52, TermMode};
use alacritty_terminal::vte::ansi::{NamedColor, Processor, Rgb};

use super::grid::Grid;
use super::guard::Guard;
use super::osc::Limit;
use super::{Modes, MouseMode, Size};
use crate::event::text;

/// Lines of scrollback unless another number is wished.
///
/// A cell takes 24 bytes: 10 000 lines of 120 columns are 29 MB once they are full. A program that
/// puts marks or coloured underlines into each of its cells can make that seven times as much.
pub const SCROLLBACK: usize = 10_000;

/// Most clipboard text taken from a program, in bytes; what is larger is dropped whole.
const MOST_CLIPBOARD: usize = 512 * 1024;
/// Most bytes held back by a synchronised update.
const MOST_HELD: usize = 256 * 1024;
/// Longest time a synchronised update holds the screen, however often the program renews it.
const LONGEST_HELD: Duration = Duration::from_secs(1);
/// Width and height of a cell in pixels, for programs that ask: nobody here knows.
const CELL: (u16, u16) = (8, 16);

thread_local! {
    static PARSING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside of the emulator. A panic there is caught: a panic hook that
/// restores the terminal has to leave it alone.
pub fn is_parsing() -> bool {
    PARSING.get()
}

/// What bytes did besides changing cells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Something to be seen may have changed.
    pub changed: bool,
    /// The bell was rung.
    pub bell: bool,
    /// The title is another one.
    pub title: bool,
    /// Text for the clipboard (OSC 52).
    pub clipboard: Option<String>,
    /// What is to be sent to the program.
    pub replies: Vec<u8>,
    /// The emulator failed and starts anew, empty.
    pub failed: bool,
}

/// A terminal's screen with its scrollback.
pub struct Screen {
    pub(super) term: Term<Outlet>,
    parser: Processor,
    limit: Limit,
    events: Receiver<Event>,
    scrollback: usize,
    colours: (Rgb, Rgb),
    /// When the synchronised update under way began.
    held_since: Option<Instant>,
    title: Option<String>,
    pub(super) needle: Vec<char>,
    pub(super) revision: u64,
}

/// Where the emulator leaves what it has to say.
pub(super) struct Outlet(Sender<Event>);

impl EventListener for Outlet {
    fn send_event(&self, event: Event) {
        if !matches!(event, Event::MouseCursorDirty | Event::CursorBlinkingChange | Event::Wakeup) {
            // The receiver lives as long as the emulator.
            let _ = self.0.send(event);
        }
    }
}

impl Screen {
    /// An empty screen that keeps so many lines of scrollback.
    pub fn new(size: Size, scrollback: usize) -> Self {
        let (sender, events) = channel();
        let config = Config {
            scrolling_history: scrollback,
            kitty_keyboard: false,
            osc52: Osc52::OnlyCopy,
            ..Config::default()
        };
        Self {
            term: Term::new(config, &size, Outlet(sender)),
            parser: Processor::new(),
            limit: Limit::default(),
            events,
            scrollback,
            colours: (Rgb { r: 0xe0, g: 0xe0, b: 0xe0 }, Rgb { r: 0, g: 0, b: 0 }),
            held_since: None,
            title: None,
            needle: Vec::new(),
            revision: 0,
        }
    }

    /// Takes in what the program sent. `now` is for synchronised updates.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, effects: &mut Effects) {
        self.guarded(effects, bytes.len(), |limit, parser, guard| {
            limit.pass(bytes, |bytes| parser.advance(guard, bytes));
        });
        if self.parser.sync_timeout().sync_timeout().is_none() {
            self.held_since = None;
        } else if self.parser.sync_bytes_count() > MOST_HELD {
            self.release(effects);
        } else {
            self.held_since.get_or_insert(now);
        }
    }

    /// When a synchronised update has to end; [`Self::tick`] is due then.
    pub fn sync_deadline(&self) -> Option<Instant> {
        let deadline = self.parser.sync_timeout().sync_timeout()?;
        Some(self.held_since.map_or(deadline, |since| deadline.min(since + LONGEST_HELD)))
    }

    /// Ends a synchronised update whose time is over.
    pub fn tick(&mut self, now: Instant, effects: &mut Effects) {
        if self.sync_deadline().is_some_and(|deadline| deadline <= now) {
            self.release(effects);
        }
    }

    fn release(&mut self, effects: &mut Effects) {
        self.held_since = None;
        self.guarded(effects, 0, |_, parser, guard| parser.stop_sync(guard));
    }

    /// Runs the emulator, whose panics are not to be ours.
    fn guarded(
        &mut self,
        effects: &mut Effects,
        bytes: usize,
        run: impl FnOnce(&mut Limit, &mut Processor, &mut Guard<'_, Outlet>),
    ) {
        let mut guard = Guard::new(&mut self.term, bytes + self.parser.sync_bytes_count());
        let (limit, parser) = (&mut self.limit, &mut self.parser);
        PARSING.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| run(limit, parser, &mut guard)));
        PARSING.set(false);
        let changed = guard.changed;
        if outcome.is_err() {
            let (size, colours, revision) = (self.size(), self.colours, self.revision);
            *self = Self { colours, revision, ..Self::new(size, self.scrollback) };
            effects.failed = true;
        }
        // Lines scrolled within a region move a view that is scrolled back, even beyond the oldest line.
        if self.scrolled() > self.history() {
            self.term.scroll_display(Scroll::Top);
        }
        if changed || outcome.is_err() {
            self.revision += 1;
            effects.changed = true;
        }
        self.collect(effects);
    }

    #[cfg(test)]
    pub(super) fn fail(&mut self, effects: &mut Effects) {
        self.guarded(effects, 0, |_, _, _| panic!("as if the emulator had failed"));
    }

    fn collect(&mut self, effects: &mut Effects) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::PtyWrite(text) => effects.replies.extend(text.into_bytes()),
                Event::TextAreaSizeRequest(reply) => {
                    let size = self.size();
                    let size = WindowSize {
                        num_lines: size.rows,
                        num_cols: size.columns,
                        cell_width: CELL.0,
                        cell_height: CELL.1,
                    };
                    effects.replies.extend(reply(size).into_bytes());
                }
                Event::ColorRequest(index, reply) => {
                    effects.replies.extend(reply(self.colour(index)).into_bytes());
                }
                Event::Bell => effects.bell = true,
                Event::Title(title) => {
                    self.title = Some(text::strip(&title).replace('\n', " "));
                    effects.title = true;
                }
                Event::ResetTitle => {
                    self.title = None;
                    effects.title = true;
                }
                Event::ClipboardStore(_, text) if text.len() <= MOST_CLIPBOARD => {
                    effects.clipboard = Some(text);
                }
                _ => {}
            }
        }
    }

    /// What a program is told that asks for a colour.
    fn colour(&self, index: usize) -> Rgb {
        let (foreground, background) = self.colours;
        // What programs set for the cursor may lie outside of the palette.
        let set =
            (index < alacritty_terminal::term::color::COUNT).then(|| self.term.colors()[index]).flatten();
        set.unwrap_or_else(|| match u8::try_from(index) {
            Ok(index) => palette(index),
            Err(_) if index == NamedColor::Background as usize => background,
            Err(_) => foreground,
        })
    }

    /// Says which colours stand for the default ones, for programs that ask.
    pub fn set_default_colours(&mut self, foreground: (u8, u8, u8), background: (u8, u8, u8)) {
        let rgb = |(r, g, b)| Rgb { r, g, b };
        self.colours = (rgb(foreground), rgb(background));
    }

    /// Gives the screen another size; lines are wrapped anew.
    pub fn resize(&mut self, size: Size) {
        let mut effects = Effects::default();
        if size != self.size() {
            self.guarded(&mut effects, 0, |_, _, guard| guard.resize(size));
        }
        if effects.failed {
            // The program draws anew when it is told of the size.
            self.term.resize(size);
        }
    }

    /// The size in cells.
    pub fn size(&self) -> Size {
        Size::new(self.term.columns() as u16, self.term.screen_lines() as u16)
    }

    /// Grows with every change of what is to be seen: equal numbers, equal frames.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The title the program has set, of printable characters.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The visible cells and the cursor.
    pub fn grid(&self) -> Grid<'_> {
        Grid::new(self)
    }

    /// What the program has asked of the keyboard and the mouse.
    pub fn modes(&self) -> Modes {
        let mode = self.term.mode();
        let mouse = match mode {
            mode if mode.contains(TermMode::MOUSE_MOTION) => MouseMode::Moves,
            mode if mode.contains(TermMode::MOUSE_DRAG) => MouseMode::Drags,
            mode if mode.contains(TermMode::MOUSE_REPORT_CLICK) => MouseMode::Clicks,
            _ => MouseMode::Off,
        };
        Modes {
            app_cursor: mode.contains(TermMode::APP_CURSOR),
            newline: mode.contains(TermMode::LINE_FEED_NEW_LINE),
            bracketed_paste: mode.contains(TermMode::BRACKETED_PASTE),
            mouse,
            sgr_mouse: mode.contains(TermMode::SGR_MOUSE),
            alternate_screen: mode.contains(TermMode::ALT_SCREEN),
            alternate_scroll: mode.contains(TermMode::ALTERNATE_SCROLL),
            focus: mode.contains(TermMode::FOCUS_IN_OUT),
        }
    }

    /// Scrolls back by so many lines; forward when negative.
    pub fn scroll(&mut self, lines: i32) {
        // The emulator adds without looking.
        let most = self.term.total_lines() as i32;
        self.scroll_display(Scroll::Delta(lines.clamp(-most, most)));
    }

    /// Scrolls back by a screen.
    pub fn page_up(&mut self) {
        self.scroll_display(Scroll::PageUp);
    }

    /// Scrolls forward by a screen.
    pub fn page_down(&mut self) {
        self.scroll_display(Scroll::PageDown);
    }

    /// Scrolls to the oldest line kept.
    pub fn scroll_to_top(&mut self) {
        self.scroll_display(Scroll::Top);
    }

    /// Scrolls to where the program writes.
    pub fn scroll_to_bottom(&mut self) {
        self.scroll_display(Scroll::Bottom);
    }

    fn scroll_display(&mut self, scroll: Scroll) {
        let before = self.scrolled();
        self.term.scroll_display(scroll);
        self.revision += u64::from(self.scrolled() != before);
    }

    /// How many lines the view is above the end.
    pub fn scrolled(&self) -> usize {
        self.term.grid().display_offset()
    }

    /// How many lines are above the screen.
    pub fn history(&self) -> usize {
        self.term.history_size()
    }
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.rows.into()
    }

    fn screen_lines(&self) -> usize {
        self.rows.into()
    }

    fn columns(&self) -> usize {
        self.columns.into()
    }
}

/// A colour of xterm's palette.
fn palette(index: u8) -> Rgb {
    const SIXTEEN: [u32; 16] = [
        0x00_0000, 0xcd_0000, 0x00_cd00, 0xcd_cd00, 0x00_00ee, 0xcd_00cd, 0x00_cdcd, 0xe5_e5e5, 0x7f_7f7f,
        0xff_0000, 0x00_ff00, 0xff_ff00, 0x5c_5cff, 0xff_00ff, 0x00_ffff, 0xff_ffff,
    ];
    let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    match index {
        0..16 => {
            let [_, r, g, b] = SIXTEEN[usize::from(index)].to_be_bytes();
            Rgb { r, g, b }
        }
        16..232 => {
            let step = index - 16;
            Rgb { r: level(step / 36), g: level(step / 6 % 6), b: level(step % 6) }
        }
        _ => {
            let grey = 8 + 10 * (index - 232);
            Rgb { r: grey, g: grey, b: grey }
        }
    }
}
