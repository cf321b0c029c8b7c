//! The cells of a text: what each one shows, and how wide it is.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Most combining marks kept on one character.
const MOST_MARKS: usize = 4;
/// Stands for what must not reach the terminal as it is.
pub const REPLACEMENT: &str = "\u{fffd}";

/// What one cell, or two, of the screen show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyph<'a> {
    /// A character with its combining marks, or [`REPLACEMENT`].
    pub symbol: &'a str,
    /// Columns it takes: 1 or 2.
    pub width: u16,
    /// Byte of the text at which it begins.
    pub at: usize,
}

/// The glyphs of a text from byte `from` on, none wider than `most` columns.
///
/// Every character stands alone. Joiners, variation selectors and skin tones are left out and
/// flags become two letters, since terminals do not agree on the width of what they join to;
/// control and bidirectional characters are replaced.
pub fn glyphs(text: &str, from: usize, most: u16) -> impl Iterator<Item = Glyph<'_>> {
    let mut next = from;
    std::iter::from_fn(move || {
        loop {
            let at = next;
            let rest = text.get(at..)?;
            let bytes = rest.as_bytes();
            let first = *bytes.first()?;
            if (b' '..0x7f).contains(&first) && bytes.get(1).is_none_or(u8::is_ascii) {
                next = at + 1;
                return Some(Glyph { symbol: &rest[..1], width: 1, at });
            }
            let c = rest.chars().next()?;
            next = at + c.len_utf8();
            let width = match kind(c) {
                CharKind::Hidden => continue,
                CharKind::Bad => return Some(Glyph { symbol: REPLACEMENT, width: 1, at }),
                CharKind::Flag(letter) => return Some(Glyph { symbol: letter, width: 1, at }),
                CharKind::Shown(width) => width,
            };
            // A mark with nothing to stand on would join what is left of the log.
            if width == 0 || width > most {
                return Some(Glyph { symbol: REPLACEMENT, width: 1, at });
            }
            let mut end = next;
            for (count, mark) in text[next..].chars().enumerate() {
                if !matches!(kind(mark), CharKind::Shown(0)) {
                    break;
                }
                next += mark.len_utf8();
                if count < MOST_MARKS {
                    end = next;
                }
            }
            let mut symbol = &text[at..end];
            if symbol.width() != usize::from(width) {
                symbol = &rest[..c.len_utf8()];
            }
            return Some(Glyph { symbol, width, at });
        }
    })
}

/// What to do with a character.
enum CharKind {
    /// Show it in so many columns; none for a combining mark.
    Shown(u16),
    /// Leave it out.
    Hidden,
    /// Show that something was there.
    Bad,
    /// Half a flag: show its letter.
    Flag(&'static str),
}

fn kind(c: char) -> CharKind {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    match c {
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2064}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{1f3fb}'..='\u{1f3ff}'
        | '\u{e0000}'..='\u{e0fff}' => CharKind::Hidden,
        '\u{61c}'
        | '\u{600}'..='\u{605}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'
        | '\u{891}'
        | '\u{8e2}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2065}'..='\u{206f}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' => CharKind::Bad,
        '\u{1f1e6}'..='\u{1f1ff}' => {
            let index = (c as u32 - 0x1f1e6) as usize;
            CharKind::Flag(&LETTERS[index..=index])
        }
        _ => match c.width() {
            None => CharKind::Bad,
            Some(width @ 0..=2) => CharKind::Shown(width as u16),
            Some(_) => CharKind::Bad,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::log::line::plain;
    use proptest::prelude::*;

    fn symbols(text: &str) -> Vec<&str> {
        glyphs(text, 0, 2).map(|glyph| glyph.symbol).collect()
    }

    #[test]
    fn every_character_stands_alone() {
        assert_eq!(symbols("ab"), ["a", "b"]);
        assert_eq!(symbols("e\u{301}x"), ["e\u{301}", "x"]);
        assert_eq!(symbols("漢字"), ["漢", "字"]);
        assert_eq!(symbols("\u{301}a"), [REPLACEMENT, "a"]);
        assert_eq!(symbols("👩\u{200d}👧"), ["👩", "👧"]);
        assert_eq!(symbols("👍\u{1f3fd}!"), ["👍", "!"]);
        assert_eq!(symbols("❤\u{fe0f}!"), ["❤", "!"]);
        assert_eq!(symbols("🇩🇪"), ["D", "E"]);
        assert_eq!(symbols("a\u{202e}b\u{200b}c"), ["a", REPLACEMENT, "b", "c"]);
        assert_eq!(symbols("a\x07\u{9b}"), ["a", REPLACEMENT, REPLACEMENT]);
        assert_eq!(symbols(&format!("a{}b", "\u{301}".repeat(50)))[0].chars().count(), 1 + MOST_MARKS);
    }

    proptest! {
        #[test]
        fn a_glyph_is_as_wide_as_it_says_and_never_an_escape(text in "\\PC{0,40}|.{0,40}", most in 1u16..3) {
            let plain = plain(&text);
            let mut last = None;
            for glyph in glyphs(&plain, 0, most) {
                prop_assert!(glyph.width >= 1 && glyph.width <= most);
                prop_assert_eq!(glyph.symbol.width(), usize::from(glyph.width), "{:?}", glyph.symbol);
                prop_assert!(!glyph.symbol.chars().any(char::is_control));
                prop_assert!(last.is_none_or(|last| glyph.at > last));
                last = Some(glyph.at);
            }
        }
    }
}
