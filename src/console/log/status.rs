//! A pane's state in one line, for its border.

use unicode_width::UnicodeWidthStr;

use super::buffer::LogBuffer;
use super::glyph::glyphs;
use super::pattern::Pattern;
use super::state::LogState;
use crate::console::theme::{Sign, Theme};

/// Most columns of words to search or filter for.
const MOST_WORDS: usize = 20;

impl LogState {
    /// What is to be known of the pane in at most `width` columns; what does not fit is left out,
    /// the least needed first.
    pub fn status(&self, buffer: &LogBuffer, theme: &Theme, width: u16) -> String {
        let parts = [
            self.notice.as_deref().map(|notice| short(notice, theme, 2 * MOST_WORDS)),
            Some(self.position(buffer)),
            self.search_part(buffer, theme),
            self.filter_part(buffer, theme),
            self.selection.map(|_| {
                let (first, last) = self.selected();
                format!("selected {} to {}", first + 1, last + 1)
            }),
            (buffer.dropped() > 0).then(|| format!("{} lines dropped", count(buffer.dropped()))),
        ];
        let mut status = String::new();
        for part in parts.into_iter().flatten() {
            let between = if status.is_empty() { "" } else { "  " };
            if status.width() + between.len() + part.width() <= usize::from(width) {
                status.push_str(between);
                status.push_str(&part);
            }
        }
        status
    }

    fn position(&self, buffer: &LogBuffer) -> String {
        let end = buffer.range().end;
        match end {
            _ if self.follow => "following".into(),
            0 => "empty".into(),
            _ => format!("line {}/{end}", self.cursor + 1),
        }
    }

    fn search_part(&self, buffer: &LogBuffer, theme: &Theme) -> Option<String> {
        let search = self.search.as_ref()?;
        let words = short(search.pattern.as_ref()?.words(), theme, MOST_WORDS);
        let (index, more) = (&search.index, more(search.index.is_complete(buffer)));
        let rank = index.rank(self.cursor);
        let total = index.len();
        // From the start it can be counted only once all is known.
        if index.get(rank) == Some(self.cursor) && more.is_empty() {
            return Some(format!("search: {words} {}/{total}", rank + 1));
        }
        Some(format!("search: {words} {total}{more}"))
    }

    fn filter_part(&self, buffer: &LogBuffer, theme: &Theme) -> Option<String> {
        let index = self.index.as_ref()?;
        let words = self.filter.pattern.as_ref().map(Pattern::words);
        let name = self.filter.source.map(|source| buffer.name(source));
        let what: Vec<String> =
            name.into_iter().chain(words).map(|words| short(words, theme, MOST_WORDS)).collect();
        Some(format!("filter: {} {}{}", what.join(" "), index.len(), more(index.is_complete(buffer))))
    }
}

/// The sign that more may be found.
fn more(complete: bool) -> &'static str {
    if complete { "" } else { "+" }
}

/// Words fit to be shown, in at most `most` columns.
fn short(words: &str, theme: &Theme, most: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    for glyph in glyphs(words, 0, 2) {
        width += usize::from(glyph.width);
        if width >= most {
            out.push_str(theme.sign(Sign::Cut));
            break;
        }
        out.push_str(glyph.symbol);
    }
    out
}

/// `999`, `12k`, `1.2M`.
fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{}k", number / 1000),
        _ => format!("{}.{}M", number / 1_000_000, number / 100_000 % 10),
    }
}
