//! Keys and pasted text as the bytes xterm sends for them.

use super::Modes;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character, upper case with shift.
    Char(char),
    /// Enter.
    Enter,
    /// Tab.
    Tab,
    /// Backspace.
    Backspace,
    /// Escape.
    Escape,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow right.
    Right,
    /// Arrow left.
    Left,
    /// Home.
    Home,
    /// End.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Insert.
    Insert,
    /// Delete.
    Delete,
    /// A function key, from 1 to 20.
    Function(u8),
}

/// Keys held down with another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mods {
    /// Shift.
    pub shift: bool,
    /// Alt.
    pub alt: bool,
    /// Control.
    pub ctrl: bool,
}

impl Mods {
    /// The parameter that stands for them; 1 is none.
    fn parameter(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl)
    }
}

/// What a key sends; nothing for one xterm has no bytes for.
pub fn encode(key: Key, mods: Mods, modes: Modes) -> Vec<u8> {
    let plain = match key {
        Key::Char(c) => character(c, mods.ctrl),
        Key::Enter if modes.newline => b"\r\n".to_vec(),
        Key::Enter => b"\r".to_vec(),
        Key::Tab if mods.shift => b"\x1b[Z".to_vec(),
        Key::Tab => b"\t".to_vec(),
        Key::Backspace if mods.ctrl => b"\x08".to_vec(),
        Key::Backspace => b"\x7f".to_vec(),
        Key::Escape => b"\x1b".to_vec(),
        Key::Up => return letter('A', mods, modes.app_cursor),
        Key::Down => return letter('B', mods, modes.app_cursor),
        Key::Right => return letter('C', mods, modes.app_cursor),
        Key::Left => return letter('D', mods, modes.app_cursor),
        Key::Home => return letter('H', mods, modes.app_cursor),
        Key::End => return letter('F', mods, modes.app_cursor),
        Key::Insert => return number(2, mods),
        Key::Delete => return number(3, mods),
        Key::PageUp => return number(5, mods),
        Key::PageDown => return number(6, mods),
        Key::Function(n @ 1..=4) => return letter(['P', 'Q', 'R', 'S'][usize::from(n) - 1], mods, true),
        Key::Function(n @ 5..=20) => {
            const NUMBERS: [u8; 16] = [15, 17, 18, 19, 20, 21, 23, 24, 25, 26, 28, 29, 31, 32, 33, 34];
            return number(NUMBERS[usize::from(n) - 5], mods);
        }
        Key::Function(_) => Vec::new(),
    };
    // With alt such a key sends an escape before it.
    match plain.is_empty() {
        false if mods.alt => [b"\x1b", plain.as_slice()].concat(),
        _ => plain,
    }
}

/// A key that ends in a letter: `ESC [ A`, `ESC O A` in its application form, `ESC [ 1 ; 5 A` with others.
fn letter(letter: char, mods: Mods, application: bool) -> Vec<u8> {
    match (mods.parameter(), application) {
        (1, false) => format!("\x1b[{letter}"),
        (1, true) => format!("\x1bO{letter}"),
        (mods, _) => format!("\x1b[1;{mods}{letter}"),
    }
    .into_bytes()
}

/// A key that is known by a number: `ESC [ 3 ~`, `ESC [ 3 ; 5 ~` with others.
fn number(number: u8, mods: Mods) -> Vec<u8> {
    match mods.parameter() {
        1 => format!("\x1b[{number}~"),
        mods => format!("\x1b[{number};{mods}~"),
    }
    .into_bytes()
}

fn character(c: char, ctrl: bool) -> Vec<u8> {
    let control = match c {
        _ if !ctrl => None,
        'a'..='z' | 'A'..='Z' | '[' | '\\' | ']' | '^' | '_' | '@' => Some(c as u8 & 0x1f),
        ' ' | '2' => Some(0),
        // What a keyboard without these characters at hand has in their place.
        '3'..='7' => Some(c as u8 - b'3' + 0x1b),
        '~' => Some(0x1e),
        '/' | '-' => Some(0x1f),
        '8' | '?' => Some(0x7f),
        _ => None,
    };
    control.map_or_else(|| c.to_string().into_bytes(), |byte| vec![byte])
}

/// Pasted text. Control characters other than tabs and line ends are left out: none may end the
/// brackets early, or be a command to a program that knows no brackets.
pub fn paste(text: &str, modes: Modes) -> Vec<u8> {
    let text: String = text
        .replace("\r\n", "\r")
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\n'))
        .collect();
    match modes.bracketed_paste {
        true => format!("\x1b[200~{text}\x1b[201~"),
        // Enter sends a carriage return.
        false => text.replace('\n', "\r"),
    }
    .into_bytes()
}

/// That the terminal has gained or lost the focus, for a program that wants to know.
pub fn focus(gained: bool, modes: Modes) -> &'static [u8] {
    match (modes.focus, gained) {
        (false, _) => b"",
        (true, true) => b"\x1b[I",
        (true, false) => b"\x1b[O",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Mods = Mods { shift: false, alt: false, ctrl: false };
    const SHIFT: Mods = Mods { shift: true, ..NONE };
    const ALT: Mods = Mods { alt: true, ..NONE };
    const CTRL: Mods = Mods { ctrl: true, ..NONE };
    const ALL: Mods = Mods { shift: true, alt: true, ctrl: true };

    #[test]
    fn keys_send_what_xterm_sends() {
        let table: &[(Key, Mods, &str)] = &[
            (Key::Char('a'), NONE, "a"),
            (Key::Char('ü'), NONE, "ü"),
            (Key::Char('漢'), ALT, "\x1b漢"),
            (Key::Char('a'), ALT, "\x1ba"),
            (Key::Char('a'), CTRL, "\x01"),
            (Key::Char('Z'), CTRL, "\x1a"),
            (Key::Char('c'), Mods { alt: true, ..CTRL }, "\x1b\x03"),
            (Key::Char('['), CTRL, "\x1b"),
            (Key::Char('\\'), CTRL, "\x1c"),
            (Key::Char(']'), CTRL, "\x1d"),
            (Key::Char('^'), CTRL, "\x1e"),
            (Key::Char('_'), CTRL, "\x1f"),
            (Key::Char('/'), CTRL, "\x1f"),
            (Key::Char('@'), CTRL, "\0"),
            (Key::Char(' '), CTRL, "\0"),
            (Key::Char('2'), CTRL, "\0"),
            (Key::Char('3'), CTRL, "\x1b"),
            (Key::Char('7'), CTRL, "\x1f"),
            (Key::Char('8'), CTRL, "\x7f"),
            (Key::Char('1'), CTRL, "1"),
            (Key::Char('ü'), CTRL, "ü"),
            (Key::Enter, NONE, "\r"),
            (Key::Enter, ALT, "\x1b\r"),
            (Key::Tab, NONE, "\t"),
            (Key::Tab, SHIFT, "\x1b[Z"),
            (Key::Tab, ALT, "\x1b\t"),
            (Key::Backspace, NONE, "\x7f"),
            (Key::Backspace, ALT, "\x1b\x7f"),
            (Key::Backspace, CTRL, "\x08"),
            (Key::Escape, NONE, "\x1b"),
            (Key::Escape, ALT, "\x1b\x1b"),
            (Key::Up, NONE, "\x1b[A"),
            (Key::Down, SHIFT, "\x1b[1;2B"),
            (Key::Right, CTRL, "\x1b[1;5C"),
            (Key::Left, ALT, "\x1b[1;3D"),
            (Key::Home, NONE, "\x1b[H"),
            (Key::End, ALL, "\x1b[1;8F"),
            (Key::Insert, NONE, "\x1b[2~"),
            (Key::Delete, CTRL, "\x1b[3;5~"),
            (Key::PageUp, NONE, "\x1b[5~"),
            (Key::PageDown, SHIFT, "\x1b[6;2~"),
            (Key::Function(1), NONE, "\x1bOP"),
            (Key::Function(4), NONE, "\x1bOS"),
            (Key::Function(2), CTRL, "\x1b[1;5Q"),
            (Key::Function(5), NONE, "\x1b[15~"),
            (Key::Function(10), NONE, "\x1b[21~"),
            (Key::Function(12), SHIFT, "\x1b[24;2~"),
            (Key::Function(20), NONE, "\x1b[34~"),
            (Key::Function(21), NONE, ""),
            (Key::Function(0), ALT, ""),
        ];
        for (key, mods, bytes) in table {
            assert_eq!(encode(*key, *mods, Modes::default()), bytes.as_bytes(), "{key:?} {mods:?}");
        }
    }

    #[test]
    fn modes_change_what_keys_send() {
        let application = Modes { app_cursor: true, ..Modes::default() };
        let table: &[(Key, Mods, &str)] = &[
            (Key::Up, NONE, "\x1bOA"),
            (Key::Left, NONE, "\x1bOD"),
            (Key::Home, NONE, "\x1bOH"),
            (Key::End, NONE, "\x1bOF"),
            (Key::Up, CTRL, "\x1b[1;5A"),
            (Key::Delete, NONE, "\x1b[3~"),
        ];
        for (key, mods, bytes) in table {
            assert_eq!(encode(*key, *mods, application), bytes.as_bytes(), "{key:?} {mods:?}");
        }
        assert_eq!(encode(Key::Enter, NONE, Modes { newline: true, ..Modes::default() }), b"\r\n");
    }

    #[test]
    fn pasted_text_cannot_leave_its_brackets() {
        let brackets = Modes { bracketed_paste: true, ..Modes::default() };
        assert_eq!(paste("a\nb\tc", brackets), b"\x1b[200~a\nb\tc\x1b[201~");
        assert_eq!(paste("a\r\nb\n", Modes::default()), b"a\rb\r");
        for hostile in ["\x1b[201~rm", "\x1b[20\x1b[201~1~rm", "\u{9b}201~rm", "\x03rm"] {
            let bytes = paste(hostile, brackets);
            let inside = &bytes[6..bytes.len() - 6];
            assert!(!inside.iter().any(u8::is_ascii_control) && !inside.contains(&0x9b), "{hostile:?}");
        }
    }

    #[test]
    fn focus_is_told_to_those_who_ask() {
        assert_eq!(focus(true, Modes::default()), b"");
        assert_eq!(focus(false, Modes { focus: true, ..Modes::default() }), b"\x1b[O");
    }
}
