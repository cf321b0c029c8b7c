//! One line as it can be put on a screen: plain text, its styles, and its cells.

use std::borrow::Cow;

use memchr::memchr2;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use vte::{Params, Parser, Perform};

use super::sgr;

/// Most combining marks kept on one character.
const MOST_MARKS: usize = 4;
/// Stands for what must not reach the terminal as it is.
pub const REPLACEMENT: &str = "\u{fffd}";
/// Columns between tab stops.
const TAB: usize = 8;

/// Text without control sequences, and the styles they asked for.
#[derive(Debug, Clone, Default)]
pub struct Styled<'a> {
    /// The text. It may still contain characters that [`glyphs`] replaces or leaves out.
    pub text: Cow<'a, str>,
    /// The byte at which the line itself begins, after the words before it.
    pub body: usize,
    /// From which byte on which style holds.
    runs: Vec<(usize, Style)>,
}

impl<'a> Styled<'a> {
    /// Takes a line apart.
    pub fn new(line: &'a str) -> Self {
        Self::with_prefix("", Style::new(), line)
    }

    /// Takes a line apart, with words of one's own before it.
    pub fn with_prefix(prefix: &str, style: Style, line: &'a str) -> Self {
        let is_plain = memchr2(b'\x1b', b'\t', line.as_bytes()).is_none();
        if is_plain && prefix.is_empty() {
            return Self { text: Cow::Borrowed(line), body: 0, runs: Vec::new() };
        }
        let mut text = String::with_capacity(prefix.len() + line.len());
        text.push_str(prefix);
        let mut reader = Reader { text, runs: vec![(0, style), (prefix.len(), Style::new())] };
        if is_plain {
            reader.text.push_str(line);
        } else {
            Parser::new().advance(&mut reader, line.as_bytes());
        }
        Self { text: Cow::Owned(reader.text), body: prefix.len(), runs: reader.runs }
    }

    /// The style at a byte of the text.
    pub fn style(&self, at: usize) -> Style {
        let after = self.runs.partition_point(|(from, _)| *from <= at);
        after.checked_sub(1).map_or(Style::new(), |index| self.runs[index].1)
    }
}

struct Reader {
    text: String,
    runs: Vec<(usize, Style)>,
}

impl Perform for Reader {
    fn print(&mut self, c: char) {
        self.text.push(c);
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\t' {
            let column = self.text.chars().count();
            self.text.extend(std::iter::repeat_n(' ', TAB - column % TAB));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if action == 'm' && intermediates.is_empty() && !ignore {
            let now = self.runs.last().map_or(Style::new(), |(_, style)| *style);
            let style = sgr::apply(now, params);
            match self.runs.last_mut() {
                Some((from, last)) if *from == self.text.len() => *last = style,
                _ => self.runs.push((self.text.len(), style)),
            }
        }
    }
}

/// The text of a line alone, for search and filter.
pub fn plain(line: &str) -> Cow<'_, str> {
    Styled::new(line).text
}

/// The text of a line as people may paste it: without control characters too.
pub fn printable(line: &str) -> Cow<'_, str> {
    let plain = plain(line);
    if plain.chars().any(char::is_control) {
        return Cow::Owned(plain.chars().filter(|c| !c.is_control()).collect());
    }
    plain
}

/// Whether a line begins as compilers, Nix and git begin an error: `error:`, `error[E0308]:`,
/// `fatal:`, in any case, after colours and blanks.
pub fn begins_like_an_error(line: &str) -> bool {
    let begins = |text: &str| {
        let text = text.trim_start().as_bytes();
        [&b"error:"[..], b"error[", b"fatal:"]
            .iter()
            .any(|word| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))
    };
    match line.trim_start().bytes().next() {
        Some(b'e' | b'E' | b'f' | b'F') => begins(line),
        // The word is near; the rest of a long line is not worth the time.
        Some(b'\x1b') => begins(&plain(crate::event::text::cut(line, 128))),
        _ => false,
    }
}

/// What one cell, or two, of the screen show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glyph<'a> {
    /// A character with its combining marks, or [`REPLACEMENT`]; one byte for ASCII regional letters.
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
    use proptest::prelude::*;
    use ratatui::style::{Color, Modifier};

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

    #[test]
    fn colours_become_styles_and_leave_no_trace_in_the_text() {
        let styled = Styled::new("a\x1b[1;31mb\x1b[22mc\x1b[38;5;200md\x1b[48:2::1:2:3me\x1b[mf");
        assert_eq!(styled.text, "abcdef");
        assert_eq!(styled.style(0), Style::new());
        assert_eq!(styled.style(1), Style::new().fg(Color::Indexed(1)).add_modifier(Modifier::BOLD));
        assert_eq!(styled.style(2), Style::new().fg(Color::Indexed(1)));
        assert_eq!(styled.style(3), Style::new().fg(Color::Indexed(200)));
        assert_eq!(styled.style(4), Style::new().fg(Color::Indexed(200)).bg(Color::Rgb(1, 2, 3)));
        assert_eq!(styled.style(5), Style::new());
    }

    #[test]
    fn a_tab_reaches_to_the_next_stop() {
        assert_eq!(plain("ab\tc"), "ab      c");
    }

    #[test]
    fn an_error_is_known_by_its_first_word_only() {
        assert!(begins_like_an_error("  \x1b[1;31mError\x1b[0m: x"));
        assert!(begins_like_an_error("error[E0308]: mismatched types"));
        assert!(begins_like_an_error("FATAL: no"));
        assert!(!begins_like_an_error("no error: here"));
        assert!(!begins_like_an_error("errors: 0"));
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
