//! What one can do with a log. Keys are bound to these elsewhere.

use super::buffer::{LogBuffer, SourceId};
use super::layout::row_of;
use super::pattern::Pattern;
use super::place::Place;
use super::shown::Shown;
use super::state::LogState;
use crate::console::screen::MOST_COPIED;

/// Most rows moved at once.
const MOST_ROWS: usize = 10_000;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogAction {
    /// Scroll up by rows.
    ScrollUp(usize),
    /// Scroll down by rows; at the end following begins again.
    ScrollDown(usize),
    /// Scroll up by a pane.
    PageUp,
    /// Scroll down by a pane.
    PageDown,
    /// Scroll left by columns.
    ScrollLeft(usize),
    /// Scroll right by columns; only without wrapping.
    ScrollRight(usize),
    /// Go to the first line.
    Top,
    /// Go to the last line and follow.
    Bottom,
    /// Move the cursor up by lines.
    CursorUp(usize),
    /// Move the cursor down by lines.
    CursorDown(usize),
    /// Put the cursor on the line of that number.
    GoTo(u64),
    /// Follow new lines, or stay.
    ToggleFollow,
    /// Wrap long lines, or cut them.
    ToggleWrap,
    /// Show when lines were written, or not.
    ToggleTimestamps,
    /// Look for these words; sent anew with each letter typed.
    Search(String),
    /// The words are typed.
    SettleSearch,
    /// Go to the next line below that matches.
    SearchNext,
    /// Go to the next line above that matches.
    SearchPrevious,
    /// Look for nothing; while typing, go back to where it began.
    ClearSearch,
    /// Show only lines with these words.
    Filter(String),
    /// Show only lines of this source; of all when `None`.
    FilterSource(Option<SourceId>),
    /// Show lines with any words.
    ClearFilter,
    /// Mark the cursor's line, or unmark it.
    ToggleMark,
    /// Go to the next mark below.
    NextMark,
    /// Go to the next mark above.
    PreviousMark,
    /// Go to the next error below.
    NextError,
    /// Go to the next error above.
    PreviousError,
    /// Select from the cursor's line on.
    StartSelection,
    /// Select nothing.
    ClearSelection,
    /// Copy the selected lines, or the cursor's.
    Copy,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The pane is to be drawn again; [`LogState::notice`] may have a word on it.
    Changed,
    /// This text is to be put on the clipboard.
    Copy(String),
}

impl LogState {
    /// Does one thing.
    pub fn act(&mut self, buffer: &LogBuffer, action: LogAction) -> Outcome {
        let page = usize::from(self.rows.shape().height.max(2)) - 1;
        self.notice = None;
        match action {
            LogAction::ScrollUp(rows) => self.scroll(buffer, rows, true),
            LogAction::ScrollDown(rows) => self.scroll(buffer, rows, false),
            LogAction::PageUp => self.scroll(buffer, page, true),
            LogAction::PageDown => self.scroll(buffer, page, false),
            LogAction::ScrollLeft(columns) => self.left = self.left.saturating_sub(columns),
            LogAction::ScrollRight(columns) => self.scroll_right(buffer, columns),
            LogAction::Top => self.go_to(buffer.range().start),
            LogAction::Bottom => self.follow = true,
            LogAction::CursorUp(lines) => self.move_cursor(buffer, lines, true),
            LogAction::CursorDown(lines) => self.move_cursor(buffer, lines, false),
            LogAction::GoTo(line) => self.go_to(line.min(buffer.range().end.saturating_sub(1))),
            LogAction::ToggleFollow => self.follow = !self.follow,
            LogAction::ToggleWrap => {
                self.wrap = !self.wrap;
                self.left = 0;
                self.top.row = 0;
            }
            LogAction::ToggleTimestamps => self.timestamps = !self.timestamps,
            LogAction::Search(words) => self.type_search(buffer, &words),
            LogAction::SettleSearch => self.settle_search(),
            LogAction::SearchNext => self.seek(buffer, false),
            LogAction::SearchPrevious => self.seek(buffer, true),
            LogAction::ClearSearch => self.clear_search(),
            LogAction::Filter(words) => self.set_filter(buffer, self.filter.source, &words),
            LogAction::FilterSource(source) => {
                let words = self.filter.pattern.as_ref().map_or("", Pattern::words).to_string();
                self.set_filter(buffer, source, &words);
            }
            LogAction::ClearFilter => self.set_filter(buffer, self.filter.source, ""),
            LogAction::ToggleMark => {
                if !self.marks.remove(&self.cursor) && buffer.line(self.cursor).is_some() {
                    self.marks.insert(self.cursor);
                }
            }
            LogAction::NextMark => self.seek_mark(buffer, false),
            LogAction::PreviousMark => self.seek_mark(buffer, true),
            LogAction::NextError => self.seek_error(buffer, false),
            LogAction::PreviousError => self.seek_error(buffer, true),
            LogAction::StartSelection => {
                self.selection = Some(self.cursor);
                // A selection that grew by itself would copy what nobody chose.
                self.follow = false;
            }
            LogAction::ClearSelection => self.selection = None,
            LogAction::Copy => return self.copy(buffer),
        }
        Outcome::Changed
    }

    fn scroll(&mut self, buffer: &LogBuffer, rows: usize, back: bool) {
        let shown = Shown { buffer, index: self.index.as_ref() };
        // What is on the screen, not what was meant: a filter may have moved it.
        let top = *self.places.first().unwrap_or(&self.top);
        let Some(top) = top.shown(shown, &mut self.rows) else { return };
        let rows = rows.min(MOST_ROWS);
        if back {
            let up = top.up(rows, shown, &mut self.rows);
            // A log that fits has nowhere to go, and goes on being followed.
            self.follow = self.follow && up == top;
            self.top = up;
        } else {
            let height = usize::from(self.rows.shape().height.max(1));
            self.top = top.down(rows, shown, &mut self.rows);
            let last = Place::last(shown, &mut self.rows).unwrap_or(self.top);
            let end = self.top >= last.up(height - 1, shown, &mut self.rows);
            self.follow = self.follow || (end && self.selection.is_none());
        }
        self.reveal = false;
    }

    fn scroll_right(&mut self, buffer: &LogBuffer, columns: usize) {
        if self.wrap {
            return;
        }
        let shape = self.rows.shape();
        let lines = self.places.iter().filter_map(|place| buffer.line(place.line));
        let longest = lines
            .map(|line| {
                let text = shape.text(buffer, &line, Default::default()).text;
                row_of(&text, usize::MAX, usize::MAX).1 + 1
            })
            .max();
        let most = longest.unwrap_or(0).saturating_sub(shape.text_width());
        self.left = self.left.saturating_add(columns).min(most.max(self.left));
    }

    fn move_cursor(&mut self, buffer: &LogBuffer, lines: usize, back: bool) {
        let shown = Shown { buffer, index: self.index.as_ref() };
        if let Some(line) = shown.stepped(self.cursor, lines, back) {
            self.follow = self.follow && line >= self.cursor;
            self.cursor = line;
            self.reveal = !self.follow;
        }
    }

    fn copy(&mut self, buffer: &LogBuffer) -> Outcome {
        let shown = Shown { buffer, index: self.index.as_ref() };
        let (first, last) = self.selected();
        let mut text = String::new();
        let mut lines = 0;
        let mut next = shown.at_or_after(first);
        while let Some(line) = next.filter(|line| *line <= last).and_then(|line| buffer.line(line)) {
            if lines > 0 {
                text.push('\n');
            }
            self.write_plain(buffer, &line, &mut text);
            lines += 1;
            if text.len() > MOST_COPIED {
                self.notice = Some("too much to copy: export it".into());
                return Outcome::Changed;
            }
            next = shown.after(line.number);
        }
        if lines == 0 {
            self.notice = Some("nothing to copy".into());
            return Outcome::Changed;
        }
        self.notice = Some(format!("copied {lines} {}", if lines == 1 { "line" } else { "lines" }));
        self.selection = None;
        Outcome::Copy(text)
    }

    /// The first and the last line that are selected; the cursor's when none are.
    pub(super) fn selected(&self) -> (u64, u64) {
        let other = self.selection.unwrap_or(self.cursor);
        (other.min(self.cursor), other.max(self.cursor))
    }
}
