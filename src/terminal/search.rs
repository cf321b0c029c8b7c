//! Searching the screen and the scrollback for plain text.

use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line, Point, Side};
use alacritty_terminal::selection::{Selection, SelectionType};
use alacritty_terminal::term::cell::Flags;
use unicode_width::UnicodeWidthChar;

use super::screen::Screen;

/// Which way to go from one match to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// Up.
    Older,
    /// Down.
    Newer,
}

/// First and last cell of a match.
type Match = (Point, Point);

impl Screen {
    /// Searches for `text` from now on; an empty one ends the search. Case matters only where
    /// `text` has capitals. What is visible of it is marked [`super::grid::Cell::found`].
    pub fn search(&mut self, text: &str) {
        self.needle = text.chars().filter(|c| c.width().is_some_and(|width| width > 0)).collect();
        self.revision += 1;
    }

    /// Goes to the next match, beyond the ends if it must, and selects it. It starts from what is
    /// selected, or else from the end of the view. False when there is none.
    pub fn search_on(&mut self, towards: Towards) -> bool {
        let from = self.term.selection.as_ref().and_then(|selection| selection.to_range(&self.term));
        let from = match from {
            Some(range) => range.start,
            None => Point::new(self.view().1, self.term.last_column()),
        };
        let (mut near, mut far) = (None, None);
        self.matches(self.term.topmost_line(), self.term.bottommost_line(), |found| {
            let ahead = match towards {
                Towards::Older => found.0 < from,
                Towards::Newer => found.0 > from,
            };
            match towards {
                Towards::Older if ahead => near = Some(found),
                Towards::Newer if ahead && near.is_none() => near = Some(found),
                Towards::Newer if far.is_none() => far = Some(found),
                Towards::Older => far = Some(found),
                Towards::Newer => {}
            }
        });
        let Some((start, end)) = near.or(far) else { return false };
        // A selection follows its text when lines scroll by.
        let mut selection = Selection::new(SelectionType::Simple, start, Side::Left);
        selection.update(end, Side::Right);
        self.term.selection = Some(selection);
        // All of it in view if it fits, its start if not.
        self.term.scroll_to_point(end);
        self.term.scroll_to_point(start);
        self.revision += 1;
        true
    }

    /// For each visible cell whether it is part of a match; empty when nothing is searched for.
    pub(super) fn found(&self) -> Vec<bool> {
        if self.needle.is_empty() {
            return Vec::new();
        }
        let (top, bottom) = self.view();
        let columns = self.term.columns();
        let mut found = vec![false; self.term.screen_lines() * columns];
        // A match may begin above the view and end below.
        let more = self.needle.len() * 2 / columns + 1;
        let first = (top - more).max(self.term.topmost_line());
        let last = (bottom + more).min(self.term.bottommost_line());
        let index =
            |point: Point| (point.line - top.0).0 as isize * columns as isize + point.column.0 as isize;
        self.matches(first, last, |(start, end)| {
            let range =
                index(start).max(0) as usize..=index(end).max(-1).min(found.len() as isize - 1) as usize;
            if index(end) >= 0 {
                found.get_mut(range).into_iter().flatten().for_each(|cell| *cell = true);
            }
        });
        found
    }

    /// First and last visible line.
    pub(super) fn view(&self) -> (Line, Line) {
        let top = Line(-(self.scrolled() as i32));
        (top, top + (self.term.screen_lines() - 1))
    }

    /// Every match that begins and ends within these lines, from top to bottom.
    fn matches(&self, first: Line, last: Line, mut each: impl FnMut(Match)) {
        if self.needle.is_empty() {
            return;
        }
        let exact = self.needle.iter().any(|c| c.is_uppercase());
        // One character of text for one of the grid, so the first of what it folds to will do.
        let fold = |c: char| if exact { c } else { c.to_lowercase().next().unwrap_or(c) };
        let needle: Vec<char> = self.needle.iter().copied().map(fold).collect();
        let mut text = Vec::new();
        let mut places = Vec::new();
        for line in (first.0..=last.0).map(Line) {
            let row = &self.term.grid()[line];
            for column in (0..self.term.columns()).map(Column) {
                let cell = &row[column];
                if !cell.flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
                    text.push(fold(cell.c));
                    places.push((Point::new(line, column), cell.flags.contains(Flags::WIDE_CHAR)));
                }
            }
            let wrapped = row[self.term.last_column()].flags.contains(Flags::WRAPLINE);
            if wrapped && line != last {
                continue;
            }
            let mut at = 0;
            while let Some(offset) = position(&text[at..], &needle) {
                let (start, _) = places[at + offset];
                at += offset + needle.len();
                let (mut end, wide) = places[at - 1];
                end.column += usize::from(wide);
                each((start, end));
            }
            text.clear();
            places.clear();
        }
    }
}

fn position(text: &[char], needle: &[char]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}
