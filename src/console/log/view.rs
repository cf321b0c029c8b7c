//! A log on the screen.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::buffer::{LogBuffer, LogLine, Severity};
use super::glyph::{Glyph, REPLACEMENT, glyphs};
use super::layout::cells;
use super::line::Styled;
use super::place::Place;
use super::state::LogState;
use crate::console::theme::{Role, Sign, Theme, limit};

/// Draws the pane into `area` as [`LogState::layout`] left it. What is there already is kept
/// where no line is.
pub fn draw(buffer: &LogBuffer, state: &LogState, theme: &Theme, area: Rect, screen: &mut Buffer) {
    let area = area.intersection(*screen.area());
    let mut rows = state.places.iter().take(usize::from(area.height)).enumerate().peekable();
    while let Some((y, place)) = rows.next() {
        // A wrapped line is read once for all its rows.
        let mut count = 1;
        while rows.next_if(|(_, next)| next.line == place.line).is_some() {
            count += 1;
        }
        if let Some(line) = buffer.line(place.line) {
            let area = Rect { y: area.y + y as u16, height: count, ..area };
            Painter { buffer, state, theme, line, area, screen }.line(*place);
        }
    }
}

struct Painter<'a> {
    buffer: &'a LogBuffer,
    state: &'a LogState,
    theme: &'a Theme,
    line: LogLine<'a>,
    /// The rows of this one line.
    area: Rect,
    screen: &'a mut Buffer,
}

impl Painter<'_> {
    fn line(mut self, place: Place) {
        let Painter { state, theme, line, area, .. } = self;
        let shape = state.rows.shape();
        let base = self.base();
        self.screen.set_style(area, base);
        let mark = shape.mark_width().min(area.width);
        if mark > 0 && place.row == 0 && state.marks.contains(&line.number) {
            self.put(0, 0, theme.sign(Sign::Mark), 1, base.patch(theme.style(Role::Accent)));
        }
        if shape.time_width() > 0 && place.row == 0 {
            let style = base.patch(theme.style(Role::Dim));
            for (x, glyph) in glyphs(&clock(line.time, &state.zone), 0, 1).enumerate() {
                self.put(usize::from(mark) + x, 0, glyph.symbol, 1, style);
            }
        }
        let left = usize::from(mark + shape.time_width());
        // The signs of a line that is not wrapped tell of one column more.
        let columns = if state.wrap { usize::MAX } else { state.left + shape.text_width() + 1 };
        let styled = shape.text_within(self.buffer, &line, theme.style(Role::Dim), columns);
        let mut paint = Paint { styled: &styled, found: self.found(&styled), run: 0, base, theme };
        if state.wrap {
            for cell in cells(&styled.text, place.row, shape.text_width()) {
                let y = (cell.row - place.row) as usize;
                if y >= usize::from(area.height) {
                    break;
                }
                let (symbol, style) = paint.glyph(&cell.glyph);
                self.put(left + cell.column, y, symbol, cell.glyph.width, style);
            }
        } else {
            self.cut_line(left, shape.text_width(), &mut paint);
        }
    }

    /// The columns of a line that is not wrapped, with signs where it goes on.
    fn cut_line(&mut self, left: usize, width: usize, paint: &mut Paint) {
        let text = &*paint.styled.text;
        let skip = self.state.left;
        let from = if text.is_ascii() { skip.min(text.len()) } else { 0 };
        let (mut column, mut half) = (from, false);
        let cut = paint.base.patch(self.theme.style(Role::Dim));
        let mut more = paint.styled.cut;
        for glyph in glyphs(text, from, 2) {
            let end = column + usize::from(glyph.width);
            if end > skip + width {
                more = true;
                break;
            }
            // A sign over its second half would leave the first one alone.
            half = glyph.width > 1 && column >= skip && end == skip + width;
            // A wide character that is half out of sight leaves a blank.
            if column >= skip {
                let (symbol, style) = paint.glyph(&glyph);
                self.put(left + column - skip, 0, symbol, glyph.width, style);
            }
            column = end;
        }
        if more {
            if half {
                self.put(left + width - 2, 0, " ", 1, cut);
            }
            self.put(left + width - 1, 0, self.theme.sign(Sign::Cut), 1, cut);
        }
        if skip > 0 && !text.is_empty() {
            self.put(left, 0, self.theme.sign(Sign::Cut), 1, cut);
        }
    }

    /// How the line looks where nothing else says.
    fn base(&self) -> Style {
        let state = self.state;
        let style = match self.line.severity {
            Severity::Plain | Severity::Info => self.theme.style(Role::Text),
            Severity::Warning => self.theme.style(Role::Warning),
            Severity::Error => self.theme.style(Role::Error),
        };
        let (first, last) = state.selected();
        let selected = (first..=last).contains(&self.line.number);
        // While it follows the cursor is always at the end: no need to say so.
        if selected && (!state.follow || state.selection.is_some()) {
            return style.patch(self.theme.style(Role::Selected));
        }
        style
    }

    /// Where the search has found something, and how it looks.
    fn found(&self, styled: &Styled) -> Vec<(usize, usize, Style)> {
        let search = self.state.search.as_ref();
        let Some(pattern) = search.and_then(|search| search.pattern.as_ref()) else { return Vec::new() };
        let here = self.line.number == self.state.cursor;
        let role = if here { Role::CurrentMatch } else { Role::Match };
        let style = self.theme.style(role);
        let found = pattern.find_all(&styled.text, styled.body);
        found.map(|range| (range.start, range.end, style)).collect()
    }

    /// Puts one glyph at a column and row of the line, if it is within.
    fn put(&mut self, x: usize, y: usize, symbol: &str, width: u16, style: Style) {
        let Rect { x: left, y: top, width: columns, height } = self.area;
        if x + usize::from(width) > usize::from(columns) || y >= usize::from(height) {
            return;
        }
        let (x, y) = (left + x as u16, top + y as u16);
        if let Some(cell) = self.screen.cell_mut((x, y)) {
            cell.set_symbol(symbol).set_style(style);
        }
        if width > 1
            && let Some(cell) = self.screen.cell_mut((x + 1, y))
        {
            // The second half of a wide character belongs to it.
            *cell = Cell::default();
            cell.set_style(style);
        }
    }
}

/// How the glyphs of one line look, told from left to right.
struct Paint<'a> {
    styled: &'a Styled<'a>,
    found: Vec<(usize, usize, Style)>,
    /// The first match that may still be ahead.
    run: usize,
    base: Style,
    theme: &'a Theme,
}

impl Paint<'_> {
    fn glyph<'g>(&mut self, glyph: &Glyph<'g>) -> (&'g str, Style) {
        let own = limit(self.styled.style(glyph.at), self.theme.depth);
        let mut style = self.base.patch(own);
        while self.found.get(self.run).is_some_and(|(_, end, _)| *end <= glyph.at) {
            self.run += 1;
        }
        if let Some((start, _, found)) = self.found.get(self.run)
            && *start <= glyph.at
        {
            style = style.patch(*found);
        }
        let symbol = if self.theme.ascii && glyph.symbol == REPLACEMENT { "?" } else { glyph.symbol };
        (symbol, style)
    }
}

/// `14:03:07.042`, by the clock on the wall.
fn clock(time: Timestamp, zone: &TimeZone) -> String {
    let time = zone.to_datetime(time).time();
    format!("{:02}:{:02}:{:02}.{:03}", time.hour(), time.minute(), time.second(), time.millisecond())
}
