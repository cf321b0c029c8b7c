//! Foreign text made to fit: cut or wrapped by the columns it takes.

use super::columns::{fit, wrap};
use crate::console::theme::{Sign, Theme};
use crate::event::text::strip;

/// Wrapped lines kept of one text; nobody reads more in a pane.
const MOST_LINES: usize = 200;

/// One line of text without control sequences, cut to `width` columns with a sign where it was cut.
pub fn fitted(theme: &Theme, text: &str, width: u16) -> String {
    let width = usize::from(width);
    // Four bytes a character, and some characters that take no column.
    let text = strip(crate::event::text::cut(text, width * 16)).replace('\n', " ");
    fit(&text, width, theme.sign(Sign::Cut)).into_owned()
}

/// Text without control sequences as lines of at most `width` columns, broken between words where
/// that is possible.
pub fn wrapped(text: &str, width: u16) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in strip(text).lines() {
        let rows = wrap(line, usize::from(width).max(1), MOST_LINES - lines.len());
        lines.extend(rows.into_iter().map(|row| row.trim_end().to_string()));
        if lines.len() >= MOST_LINES {
            break;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::console::view::columns::width as columns;
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
        assert_eq!(wrapped("a🛴\u{a3e}b", 2).concat(), "ab");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_asked_for(text: String, width in 2u16..60) {
            prop_assert!(columns(&fitted(&theme(false), &text, width)) <= usize::from(width));
            for line in wrapped(&text, width) {
                prop_assert!(columns(&line) <= usize::from(width), "{line:?}");
            }
        }
    }
}
