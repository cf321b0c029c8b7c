//! The pane as a whole: what is done to it and what is then on the screen.

mod any;
mod looks;
mod moves;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{LogAction, LogBuffer, LogState, Outcome, Severity, SourceId, view};
use crate::console::theme::{Depth, Palette, Theme};

fn colour() -> Theme {
    Theme::new(&Palette::dark(), Depth::True, false)
}

fn plain() -> Theme {
    Theme::new(&Palette::dark(), Depth::None, true)
}

fn push(buffer: &mut LogBuffer, text: &str) {
    let time = Timestamp::from_millisecond(50_000_000 + 1001 * buffer.range().end as i64).unwrap();
    buffer.push(time, SourceId::UNNAMED, Severity::Plain, text);
}

fn numbered(count: u64) -> LogBuffer {
    let mut buffer = LogBuffer::default();
    (0..count).for_each(|number| push(&mut buffer, &format!("line {number}")));
    buffer
}

/// A log and one pane over it.
struct Pane {
    buffer: LogBuffer,
    state: LogState,
    width: u16,
    height: u16,
}

impl Pane {
    fn new(buffer: LogBuffer, width: u16, height: u16) -> Self {
        let mut pane = Self { buffer, state: LogState::new(TimeZone::UTC), width, height };
        pane.layout();
        pane
    }

    fn layout(&mut self) {
        self.state.layout(&self.buffer, self.width, self.height);
    }

    /// Does something and lays out until nothing is left to be looked at.
    fn act(&mut self, action: LogAction) -> Outcome {
        let outcome = self.state.act(&self.buffer, action);
        self.layout();
        while self.state.is_scanning(&self.buffer) {
            self.layout();
        }
        outcome
    }

    fn push(&mut self, text: &str) {
        push(&mut self.buffer, text);
        self.layout();
    }

    /// The numbers of the lines on the screen.
    fn lines(&self) -> Vec<u64> {
        self.state.places.iter().map(|place| place.line).collect()
    }

    fn draw(&self, theme: &Theme) -> Buffer {
        let area = Rect::new(0, 0, self.width, self.height);
        let mut screen = Buffer::empty(area);
        view::draw(&self.buffer, &self.state, theme, area, &mut screen);
        screen
    }

    fn status(&self) -> String {
        self.state.status(&self.buffer, &plain(), 200)
    }
}

/// What a terminal would show: the second half of a wide character is not a cell of its own.
fn text(screen: &Buffer) -> String {
    use unicode_width::UnicodeWidthStr;
    let area = screen.area();
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let mut x = area.left();
        let mut row = String::new();
        while x < area.right() {
            let symbol = screen[(x, y)].symbol();
            row.push_str(symbol);
            x += symbol.width().max(1) as u16;
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}
