//! Foreign text made to fit: cut or wrapped by the columns it takes.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::console::theme::{Sign, Theme};
use crate::event::text::strip;

/// Wrapped lines kept of one text; nobody reads more in a pane.
const MOST_LINES: usize = 200;

/// One line of text without control sequences, cut to `width` columns with a sign where it was cut.
pub fn fitted(theme: &Theme, text: &str, width: u16) -> String {
    let width = usize::from(width);
    // Four bytes a character, and some characters that take no column.
    let text = strip(crate::event::text::cut(text, width * 16)).replace('\n', " ");
    if text.width() <= width {
        return text;
    }
    let mut cut = String::new();
    let mut taken = 0;
    for grapheme in text.graphemes(true) {
        taken += grapheme.width();
        if taken + 1 > width {
            break;
        }
        cut.push_str(grapheme);
    }
    if width > 0 {
        cut.push_str(theme.sign(Sign::Cut));
    }
    cut
}

/// Text without control sequences as lines of at most `width` columns, broken between words where
/// that is possible.
pub fn wrapped(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width).max(1);
    let mut lines = Vec::new();
    for line in strip(text).lines() {
        let mut current = String::new();
        let mut taken = 0;
        for word in line.split_word_bounds() {
            let fits = taken + word.width() <= width;
            if !fits && taken > 0 && word.width() <= width {
                lines.push(std::mem::take(&mut current).trim_end().to_string());
                taken = 0;
                if word.trim().is_empty() {
                    continue;
                }
            }
            // What is wider than a whole line has no place.
            for grapheme in word.graphemes(true).filter(|grapheme| grapheme.width() <= width) {
                // A word longer than a line is broken anywhere.
                if taken + grapheme.width() > width && taken > 0 {
                    lines.push(std::mem::take(&mut current));
                    taken = 0;
                }
                taken += grapheme.width();
                current.push_str(grapheme);
            }
            if lines.len() >= MOST_LINES {
                return lines;
            }
        }
        lines.push(current.trim_end().to_string());
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::console::view::shot::theme;

    #[test]
    fn text_is_cut_and_wrapped_by_columns_not_by_characters() {
        assert_eq!(fitted(&theme(false), "hello", 5), "hello");
        assert_eq!(fitted(&theme(false), "hello!", 5), "hell…");
        assert_eq!(fitted(&theme(false), "日本語", 5), "日本…");
        assert_eq!(fitted(&theme(false), "日本語", 4), "日…");
        assert_eq!(fitted(&theme(false), "\x1b[31ma\nb", 5), "a b");
        assert_eq!(wrapped("the quick brown fox\nhelp: run", 10), ["the quick", "brown fox", "help: run"]);
        assert_eq!(wrapped("/nix/store/aaaaaaaaaaaaaaa", 10).concat(), "/nix/store/aaaaaaaaaaaaaaa");
        assert_eq!(wrapped("a🛴\u{a3e}b", 2), ["ab"]);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_asked_for(text: String, width in 2u16..60) {
            prop_assert!(fitted(&theme(false), &text, width).width() <= usize::from(width));
            for line in wrapped(&text, width) {
                prop_assert!(line.width() <= usize::from(width), "{line:?}");
            }
        }
    }
}
