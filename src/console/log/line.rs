//! One line taken apart: its plain text and its styles.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use ratatui::style::Style;
use vte::{Params, Parser, Perform};

use super::sgr;

/// Columns between tab stops.
const TAB: usize = 8;

/// Text without control sequences, and the styles they asked for.
#[derive(Debug, Clone, Default)]
pub struct Styled<'a> {
    /// The text. It may still contain characters that [`glyphs`](super::glyph::glyphs) replaces or leaves out.
    pub text: Cow<'a, str>,
    /// The byte at which the line itself begins, after the words before it.
    pub body: usize,
    /// Whether the end of the line was left out.
    pub cut: bool,
    /// From which byte on which style holds.
    runs: Vec<(usize, Style)>,
}

impl<'a> Styled<'a> {
    /// Takes a line apart, with words of one's own before it. Of a line with styles it may leave
    /// out what is after the first `most` bytes.
    pub fn new(prefix: &str, style: Style, line: &'a str, most: usize) -> Self {
        let is_plain = memchr2(b'\x1b', b'\t', line.as_bytes()).is_none();
        if is_plain && prefix.is_empty() {
            return Self { text: Cow::Borrowed(line), body: 0, cut: false, runs: Vec::new() };
        }
        let mut text = String::with_capacity(prefix.len() + line.len());
        text.push_str(prefix);
        let body = prefix.len();
        let runs = vec![(0, style), (body, Style::new())];
        let mut reader = Reader { text, body, styles: true, most, cut: false, runs };
        reader.read(line);
        Self { text: Cow::Owned(reader.text), body, cut: reader.cut, runs: reader.runs }
    }

    /// The style at a byte of the text.
    pub fn style(&self, at: usize) -> Style {
        let after = self.runs.partition_point(|(from, _)| *from <= at);
        after.checked_sub(1).map_or(Style::new(), |index| self.runs[index].1)
    }
}

#[derive(Default)]
struct Reader {
    text: String,
    body: usize,
    /// Styles are wanted, not the text alone.
    styles: bool,
    /// No more bytes than about so many are wanted.
    most: usize,
    cut: bool,
    runs: Vec<(usize, Style)>,
}

impl Reader {
    /// Reads a line: text as a whole, SGR sequence by sequence. All else has been taken out
    /// before; if not, the parser does it.
    fn read(&mut self, line: &str) {
        let mut parser = Parser::new();
        let mut rest = line;
        while let Some(at) = memchr(b'\x1b', rest.as_bytes()) {
            self.push(&rest[..at]);
            if self.text.len() > self.most {
                self.cut = true;
                return;
            }
            rest = &rest[at..];
            let Some(end) = sgr_end(rest.as_bytes()) else {
                return parser.advance(self, rest.as_bytes());
            };
            if self.styles {
                parser.advance(self, &rest.as_bytes()[..end]);
            }
            rest = &rest[end..];
        }
        self.push(rest);
    }

    fn push(&mut self, text: &str) {
        let mut pieces = text.split('\t');
        self.text.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let column = self.text[self.body..].chars().count();
            self.text.extend(std::iter::repeat_n(' ', TAB - column % TAB));
            self.text.push_str(piece);
        }
    }
}

/// Where the SGR sequence ends that `bytes` begin with.
fn sgr_end(bytes: &[u8]) -> Option<usize> {
    let params = bytes.strip_prefix(b"\x1b[")?;
    let len = params.iter().position(|b| !matches!(b, b'0'..=b'9' | b';' | b':'))?;
    (params[len] == b'm').then_some(len + 3)
}

impl Perform for Reader {
    fn print(&mut self, c: char) {
        self.text.push(c);
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\t' {
            self.push("\t");
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if self.styles && action == 'm' && intermediates.is_empty() && !ignore {
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
    if memchr2(b'\x1b', b'\t', line.as_bytes()).is_none() {
        return Cow::Borrowed(line);
    }
    let mut reader = Reader { most: usize::MAX, ..Reader::default() };
    reader.read(line);
    Cow::Owned(reader.text)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ratatui::style::{Color, Modifier};

    fn styled(line: &str) -> Styled<'_> {
        Styled::new("", Style::new(), line, usize::MAX)
    }

    #[test]
    fn colours_become_styles_and_leave_no_trace_in_the_text() {
        let styled = styled("a\x1b[1;31mb\x1b[22mc\x1b[38;5;200md\x1b[48:2::1:2:3me\x1b[mf");
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
        fn the_text_is_the_same_with_and_without_styles(line in "([a-c\t漢]|\x1b\\[[0-9;:]{0,4}[mK]|\x1b){0,20}") {
            let styled = styled(&line);
            prop_assert_eq!(&plain(&line), &styled.text);
            prop_assert!(!styled.text.contains('\x1b'));
            prop_assert!(styled.runs.is_sorted_by_key(|(from, _)| *from));
        }
    }
}
