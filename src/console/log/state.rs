//! What one pane shows of a log: where it is, what it looks for, what is chosen.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::buffer::{LogBuffer, SourceId};
use super::index::Index;
use super::layout::{Rows, Shape, fill, row_of};
use super::pattern::Pattern;
use super::place::Place;
use super::search::Search;
use super::shown::{Filter, Shown};

/// The state of one pane over one [`LogBuffer`]; another buffer needs another state. Filter and
/// search remember 8 bytes for each line they find.
#[derive(Debug, Clone)]
pub struct LogState {
    pub(super) follow: bool,
    pub(super) wrap: bool,
    pub(super) timestamps: bool,
    pub(super) zone: TimeZone,
    pub(super) filter: Filter,
    /// The lines that pass the filter; none when all do.
    pub(super) index: Option<Index>,
    pub(super) search: Option<Search>,
    /// The first row of the pane.
    pub(super) top: Place,
    /// The line under the cursor.
    pub(super) cursor: u64,
    /// The pane must be moved to where the cursor is.
    pub(super) reveal: bool,
    /// Columns scrolled to the right; only without wrapping.
    pub(super) left: usize,
    /// The other end of the selection; the cursor is one.
    pub(super) selection: Option<u64>,
    pub(super) marks: BTreeSet<u64>,
    pub(super) notice: Option<String>,
    pub(super) rows: Rows,
    /// What is where on the screen, from the top.
    pub(super) places: Vec<Place>,
}

impl Default for LogState {
    fn default() -> Self {
        Self::new(TimeZone::system())
    }
}

impl LogState {
    /// A pane that follows and wraps, and tells times as `zone` has them.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            follow: true,
            wrap: true,
            timestamps: false,
            zone,
            filter: Filter::default(),
            index: None,
            search: None,
            top: Place::default(),
            cursor: 0,
            reveal: false,
            left: 0,
            selection: None,
            marks: BTreeSet::new(),
            notice: None,
            rows: Rows::default(),
            places: Vec::new(),
        }
    }

    /// A pane over another buffer, with the same ways of showing it.
    pub fn anew(&self) -> Self {
        Self { wrap: self.wrap, timestamps: self.timestamps, ..Self::new(self.zone.clone()) }
    }

    /// Whether new lines are followed.
    pub fn is_following(&self) -> bool {
        self.follow
    }

    /// Whether lines are still being looked at: lay out and draw again on the next tick.
    pub fn is_scanning(&self, buffer: &LogBuffer) -> bool {
        let search = self.search.as_ref().filter(|search| search.pattern.is_some());
        let indices = self.index.iter().chain(search.map(|search| &search.index));
        indices.into_iter().any(|index| !index.is_complete(buffer))
    }

    /// The line under the cursor.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// A word on what the last action did, until the next one.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The number of the line at row `y` of the screen, when the pane was drawn in `area`.
    pub fn line_at(&self, area: Rect, y: u16) -> Option<u64> {
        let row = y.checked_sub(area.y).filter(|row| *row < area.height)?;
        self.places.get(usize::from(row)).map(|place| place.line)
    }

    /// Puts lines on the rows of a pane, of `width` columns and `height` rows, and looks at some
    /// more lines for filter and search. To be called before each drawing.
    pub fn layout(&mut self, buffer: &LogBuffer, width: u16, height: u16) {
        let names = self.filter.source.is_none();
        let shape = Shape { width, height, wrap: self.wrap, timestamps: self.timestamps, names };
        self.rows.reshape(shape);
        self.look_further(buffer);
        let shown = Shown { buffer, index: self.index.as_ref() };
        let below = usize::from(height.max(1)) - 1;
        let Some(last) = Place::last(shown, &mut self.rows) else {
            self.places.clear();
            return;
        };
        let bottom = last.up(below, shown, &mut self.rows);
        let mut top = match self.top.shown(shown, &mut self.rows) {
            Some(top) if !self.follow => top.min(bottom),
            _ => bottom,
        };
        if self.follow {
            self.cursor = last.line;
        } else if self.reveal {
            let line = shown.near(self.cursor).unwrap_or(last.line);
            let (row, column) = self.target(buffer, line);
            let target = Place { line, row };
            top = revealing(target, top, shown, &mut self.rows).min(bottom);
            if let Some(column) = column.filter(|_| !self.wrap) {
                let width = self.rows.shape().text_width();
                if !(self.left..self.left + width * 3 / 4).contains(&column) {
                    self.left = column.saturating_sub(width / 3);
                }
            }
        }
        self.places = fill(top, shown, &mut self.rows);
        // While a filter has not seen all, what it shows is not yet the place to stay at.
        if self.index.as_ref().is_none_or(|index| index.is_complete(buffer)) {
            self.top = top;
            self.reveal = false;
            if let (Some(first), Some(last)) = (self.places.first(), self.places.last()) {
                let near = shown.near(self.cursor).unwrap_or(last.line);
                self.cursor = near.clamp(first.line, last.line);
            }
        }
    }

    /// Looks at more lines, makes a jump that waited for them, and forgets what is gone.
    fn look_further(&mut self, buffer: &LogBuffer) {
        let range = buffer.range();
        if let Some(index) = &mut self.index {
            index.step(buffer, |line| self.filter.passes(line));
        }
        if let Some(search) = &mut self.search {
            search.step(buffer, &self.filter);
        }
        self.make_jump(buffer);
        if self.marks.first().is_some_and(|mark| *mark < range.start) {
            self.marks = self.marks.split_off(&range.start);
        }
        self.selection = self.selection.map(|line| line.max(range.start));
        self.cursor = self.cursor.clamp(range.start, range.end.max(range.start + 1) - 1);
    }

    /// The row of a line to be seen, and the column when a match is there.
    fn target(&self, buffer: &LogBuffer, line: u64) -> (u32, Option<usize>) {
        let pattern = self.search.as_ref().and_then(|search| search.pattern.as_ref());
        let (Some(pattern), Some(line)) = (pattern, buffer.line(line)) else { return (0, None) };
        let shape = self.rows.shape();
        let styled = shape.text(buffer, &line, Style::new());
        let Some(found) = pattern.find(&styled.text, styled.body) else { return (0, None) };
        if self.wrap {
            return (row_of(&styled.text, found.start, shape.text_width()).0, None);
        }
        (0, Some(row_of(&styled.text, found.start, usize::MAX).1))
    }

    /// Lets only some lines through.
    pub(super) fn set_filter(&mut self, buffer: &LogBuffer, source: Option<SourceId>, words: &str) {
        self.filter = Filter { source, pattern: Pattern::new(words) };
        self.index = (!self.filter.is_open()).then(|| Index::new(buffer));
        if let Some(search) = &mut self.search {
            search.index = Index::new(buffer);
        }
        // The line one was at stays in sight if it passes.
        self.reveal = !self.follow;
    }
}

/// The top that brings `target` into sight: by as little as possible when it is near, else with
/// some rows above it.
fn revealing(target: Place, top: Place, shown: Shown, rows: &mut Rows) -> Place {
    let height = usize::from(rows.shape().height.max(1));
    let above = target.up(height - 1, shown, rows);
    if target >= top && above <= top {
        return top;
    }
    if target < top && target >= top.up(height, shown, rows) {
        return target;
    }
    if target > top && target <= top.down(2 * height, shown, rows) {
        return above;
    }
    target.up(height / 3, shown, rows)
}
