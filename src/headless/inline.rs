//! A live view above the prompt, by ratatui's inline viewport.

use std::io::{self, Stderr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ratatui::backend::CrosstermBackend;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Row, Span};
use ratatui::widgets::{Paragraph, Widget};
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::lines::{Line, Lines, Tone};
use crate::console::model::task::TaskModel;
use crate::console::view::task::{self, Look};
use crate::event::text::strip;
use crate::event::{Event, TaskId};

/// Rows of the view.
const HEIGHT: u16 = 8;
/// Memory for log lines, of which only the last is shown, in bytes.
const LOG: usize = 64 * 1024;
/// Shortest time between two frames.
const FRAME: Duration = Duration::from_millis(16);

/// The view of one task.
pub struct Inline {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    model: TaskModel,
    lines: Lines,
    look: Look,
    drawn: Instant,
    stale: bool,
}

impl Inline {
    /// Opens the view below the cursor.
    pub fn open(colour: bool) -> io::Result<Self> {
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        let terminal = Terminal::with_options(CrosstermBackend::new(io::stderr()), options)?;
        let drawn = Instant::now() - FRAME;
        Ok(Self {
            terminal,
            model: TaskModel::new(TaskId::machine(), LOG),
            lines: Lines::new(false),
            look: Look { colour },
            drawn,
            stale: true,
        })
    }

    /// Takes an event in; what lasts is written above the view.
    pub fn apply(&mut self, event: &Event) -> io::Result<()> {
        self.stale |= self.model.apply(event);
        for line in self.lines.lines(event).iter().filter(|line| line.tone != Tone::Passing) {
            self.keep(line)?;
        }
        Ok(())
    }

    fn keep(&mut self, line: &Line) -> io::Result<()> {
        let row = self.row(line);
        let width = self.terminal.size()?.width.max(1);
        let height = u16::try_from(row.width()).unwrap_or(u16::MAX).div_ceil(width).max(1);
        self.stale = true;
        self.terminal.insert_before(height, |buffer| {
            Paragraph::new(row).wrap(ratatui::widgets::Wrap { trim: false }).render(buffer.area, buffer);
        })
    }

    fn row(&self, line: &Line) -> Row<'static> {
        let text = strip(&line.text);
        let style = match line.tone {
            Tone::Log => return Row::raw(text),
            _ if !self.look.colour => Style::new(),
            Tone::Warning => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Passing | Tone::Lasting => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
        };
        Row::from(vec![Span::styled(format!("{:>9} ", line.word), style), Span::raw(text)])
    }

    /// Draws if something changed and the last frame is old enough.
    pub fn draw(&mut self) -> io::Result<()> {
        if !self.stale || self.drawn.elapsed() < FRAME {
            return Ok(());
        }
        let (model, look) = (&self.model, self.look);
        self.terminal.draw(|frame| {
            let area = frame.area();
            task::draw(model, look, Timestamp::now(), area, frame.buffer_mut());
        })?;
        self.drawn = Instant::now();
        self.stale = false;
        Ok(())
    }

    /// Has the clocks in the view go on.
    pub fn tick(&mut self) -> io::Result<()> {
        self.stale = true;
        self.draw()
    }

    /// Removes the view; the prompt comes back where it began.
    pub fn close(mut self) -> io::Result<()> {
        let origin = self.terminal.get_frame().area().as_position();
        self.terminal.clear()?;
        // Clearing leaves the cursor where the last line above the view ended.
        self.terminal.set_cursor_position(origin)?;
        self.terminal.show_cursor()
    }
}
