//! Hostile text made harmless: no control characters but SGR colours, lines of bounded length.

use std::borrow::Cow;

use vte::{Params, Parser, Perform};

/// Longest line kept, in bytes; what is beyond is cut.
pub const MAX_LINE: usize = 16 * 1024;

/// The line with every control sequence other than SGR removed, tabs as spaces, and cut to
/// [`MAX_LINE`]. A carriage return starts the line anew, as on a terminal.
pub fn clean(line: &str) -> Cow<'_, str> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.len() <= MAX_LINE && is_plain(line) {
        return Cow::Borrowed(line);
    }
    let mut cleaner = Cleaner::default();
    // Enough for a line full of control sequences; more is not worth the time.
    Parser::new().advance(&mut cleaner, cut(line, 8 * MAX_LINE).as_bytes());
    Cow::Owned(cleaner.finish())
}

/// The line without any control sequence, SGR included: for error texts.
pub fn strip(text: &str) -> String {
    let mut cleaner = Cleaner { plain: true, lines: true, ..Cleaner::default() };
    Parser::new().advance(&mut cleaner, text.as_bytes());
    cleaner.finish()
}

/// The longest prefix of `text` of at most `max` bytes that ends at a character.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether nothing in the line needs a second look: no C0, DEL or C1, no bidirectional override.
fn is_plain(line: &str) -> bool {
    let bytes = line.as_bytes();
    if bytes.is_ascii() {
        return !bytes.iter().any(u8::is_ascii_control);
    }
    line.chars().all(is_harmless)
}

/// Bidirectional controls can make a log line read as what it is not.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[derive(Default)]
struct Cleaner {
    out: String,
    /// A colour is on and must be switched off at the end.
    coloured: bool,
    /// Drop colours too.
    plain: bool,
    /// Keep line feeds.
    lines: bool,
}

impl Cleaner {
    fn push(&mut self, text: &str) {
        if self.out.len() + text.len() <= MAX_LINE {
            self.out.push_str(text);
        }
    }

    fn finish(mut self) -> String {
        if self.coloured {
            self.out.push_str("\x1b[0m");
        }
        self.out
    }
}

impl Perform for Cleaner {
    fn print(&mut self, c: char) {
        if is_harmless(c) {
            self.push(c.encode_utf8(&mut [0; 4]));
        } else {
            self.push("\u{fffd}");
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\t' => self.push("        "),
            b'\n' if self.lines => self.push("\n"),
            b'\n' => self.push(" "),
            b'\r' if !self.lines => self.out.clear(),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if self.plain || ignore || action != 'm' || !intermediates.is_empty() {
            return;
        }
        let mut sgr = String::from("\x1b[");
        for (index, param) in params.iter().enumerate() {
            for (sub, value) in param.iter().enumerate() {
                let separator = match (index, sub) {
                    (0, 0) => "",
                    (_, 0) => ";",
                    _ => ":",
                };
                sgr.push_str(separator);
                sgr.push_str(&value.to_string());
            }
        }
        sgr.push('m');
        self.coloured = !matches!(sgr.as_str(), "\x1b[m" | "\x1b[0m");
        self.push(&sgr);
    }
}

/// An error with its help, in one line.
pub fn in_a_line(text: &str) -> String {
    text.replace("\nhelp: ", "; ").replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colours_stay_and_everything_else_goes() {
        assert_eq!(clean("plain ünïcode"), "plain ünïcode");
        assert_eq!(clean("\x1b[31mred\x1b[2Jx"), "\x1b[31mredx\x1b[0m");
        assert_eq!(clean("\x1b]0;title\x07a\x1b]52;c;AAAA\x1b\\b"), "ab");
        assert_eq!(clean("10%\r20%\rdone\r"), "done");
        assert_eq!(clean("a\u{9b}31mb\u{202e}c"), "a31mb\u{fffd}c");
        assert_eq!(strip("\x1b[31;1merror:\x1b[0m x\n  y"), "error: x\n  y");
    }

    #[test]
    fn a_long_line_is_cut() {
        assert!(clean(&"ü".repeat(MAX_LINE)).len() <= MAX_LINE);
        assert!(clean(&"\x1b[31m".repeat(MAX_LINE)).len() <= MAX_LINE + 4);
    }

    proptest! {
        #[test]
        fn no_input_gives_a_control_character_other_than_sgr(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = String::from_utf8_lossy(&bytes);
            let cleaned = clean(&text).into_owned();
            let mut rest = cleaned.as_str();
            while let Some(at) = rest.find('\x1b') {
                prop_assert!(!rest[..at].chars().any(char::is_control));
                let sgr = rest[at + 1..].strip_prefix('[').expect("a CSI");
                let end = sgr.find('m').expect("an SGR");
                prop_assert!(sgr[..end].bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':'));
                rest = &sgr[end + 1..];
            }
            prop_assert!(!rest.chars().any(char::is_control), "{:?}", cleaned);
            prop_assert!(!strip(&text).chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
