//! A key with the modifiers held: as written in a file, as pressed, as shown.

mod names;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

pub use names::ChordError;
use names::{LAST_F, NAMED};

/// A key with the modifiers held. Two ways to press what terminals cannot tell apart are one chord:
/// `ctrl-i` is `tab`, `shift-g` is `G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chord {
    code: KeyCode,
    modifiers: KeyModifiers,
}

impl Chord {
    /// The chord of a key that went down or repeats. A release is none, nor is a key without a name.
    pub fn pressed(event: KeyEvent) -> Option<Self> {
        let known = match event.code {
            KeyCode::BackTab => true,
            KeyCode::Char(c) => !c.is_control(),
            KeyCode::F(number) => (1..=LAST_F).contains(&number),
            code => NAMED.iter().any(|(named, ..)| *named == code),
        };
        let modifiers = KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT;
        let usual = event.kind != KeyEventKind::Release && modifiers.contains(event.modifiers);
        (known && usual).then(|| Self::new(event.code, event.modifiers))
    }

    /// Ctrl with a letter that is no key of its own.
    pub const fn ctrl(letter: char) -> Self {
        Self { code: KeyCode::Char(letter), modifiers: KeyModifiers::CONTROL }
    }

    fn new(code: KeyCode, mut modifiers: KeyModifiers) -> Self {
        let code = match code {
            KeyCode::BackTab => {
                modifiers |= KeyModifiers::SHIFT;
                KeyCode::Tab
            }
            KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => match control(c) {
                Ok(key) => {
                    modifiers -= KeyModifiers::CONTROL | KeyModifiers::SHIFT;
                    key
                }
                Err(c) => KeyCode::Char(c),
            },
            KeyCode::Char(c) => {
                let shift = modifiers.contains(KeyModifiers::SHIFT);
                modifiers -= KeyModifiers::SHIFT;
                KeyCode::Char(if shift { upper(c) } else { c })
            }
            code => code,
        };
        // A terminal sends no character twice: with ctrl, shift is lost.
        if matches!(code, KeyCode::Char(_)) {
            modifiers -= KeyModifiers::SHIFT;
        }
        Self { code, modifiers }
    }

    /// The key.
    pub fn code(self) -> KeyCode {
        self.code
    }

    /// What is held with it.
    pub fn modifiers(self) -> KeyModifiers {
        self.modifiers
    }

    /// The character it types, if it types one.
    pub fn character(self) -> Option<char> {
        match self.code {
            KeyCode::Char(c) if self.modifiers.is_empty() => Some(c),
            _ => None,
        }
    }

    /// How the footer shows it: `^B`, `⇧Tab`, `F5`; in ASCII `S-Tab`.
    pub fn short(self, ascii: bool) -> String {
        let control = self.modifiers.contains(KeyModifiers::CONTROL);
        let mut text = String::new();
        if self.modifiers.contains(KeyModifiers::ALT) {
            text.push_str("Alt-");
        }
        if self.modifiers.contains(KeyModifiers::SHIFT) {
            text.push_str(if ascii { "S-" } else { "⇧" });
        }
        if control {
            text.push('^');
        }
        let named = NAMED.iter().find(|(code, ..)| *code == self.code);
        match (self.code, named) {
            (_, Some((.., short, plain))) => text.push_str(if ascii { plain } else { short }),
            (KeyCode::F(number), _) => text.push_str(&format!("F{number}")),
            (KeyCode::Char(c), _) => text.push(if control { upper(c) } else { c }),
            _ => {}
        }
        text
    }
}

/// What a terminal sends for a character with ctrl: some are keys of their own, others each other.
fn control(c: char) -> Result<KeyCode, char> {
    Ok(match c.to_ascii_lowercase() {
        'h' => KeyCode::Backspace,
        'i' => KeyCode::Tab,
        'm' => KeyCode::Enter,
        '[' | '3' => KeyCode::Esc,
        '8' => KeyCode::Backspace,
        '@' | '2' => return Err(' '),
        // crossterm reports these four by their digits.
        '4' => return Err('\\'),
        '5' => return Err(']'),
        '6' => return Err('^'),
        '7' | '/' => return Err('_'),
        c => return Err(lower(c)),
    })
}

/// The capital, where it is one character that has this one as its small letter.
fn upper(c: char) -> char {
    let mut capital = c.to_uppercase();
    match (capital.next(), capital.next()) {
        (Some(capital), None) if lower(capital) == c => capital,
        _ => c,
    }
}

fn lower(c: char) -> char {
    let mut small = c.to_lowercase();
    match (small.next(), small.next()) {
        (Some(small), None) => small,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chord(text: &str) -> Chord {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn pressed(code: KeyCode, modifiers: KeyModifiers) -> String {
        Chord::pressed(KeyEvent::new(code, modifiers)).map(|chord| chord.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_terminals_send_for_one_key_is_one_chord() {
        use KeyCode::{BackTab, Char, Tab};
        let (none, shift, ctrl, alt) =
            (KeyModifiers::NONE, KeyModifiers::SHIFT, KeyModifiers::CONTROL, KeyModifiers::ALT);
        assert_eq!(pressed(Char('G'), shift), "G");
        assert_eq!(pressed(Char('G'), none), "G");
        assert_eq!(pressed(Char('g'), shift | alt), "alt-G");
        assert_eq!(pressed(Char('?'), shift), "?");
        assert_eq!(pressed(BackTab, shift), "shift-tab");
        assert_eq!(pressed(BackTab, none), "shift-tab");
        assert_eq!(pressed(Tab, shift), "shift-tab");
        assert_eq!(pressed(Char('h'), ctrl), "backspace");
        assert_eq!(pressed(Char('X'), ctrl | shift), "ctrl-x");
        assert_eq!(pressed(Char('4'), ctrl), "ctrl-\\");
    }

    #[test]
    fn releases_and_keys_without_a_name_are_no_chords() {
        let mut event = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        event.kind = KeyEventKind::Repeat;
        assert!(Chord::pressed(event).is_some());
        event.kind = KeyEventKind::Release;
        assert_eq!(Chord::pressed(event), None);
        assert_eq!(pressed(KeyCode::CapsLock, KeyModifiers::NONE), "");
        assert_eq!(pressed(KeyCode::Char('q'), KeyModifiers::SUPER), "");
    }

    #[test]
    fn the_footer_shows_chords_short() {
        let shown = |text: &str| [chord(text).short(false), chord(text).short(true)];
        assert_eq!(shown("ctrl-b"), ["^B", "^B"]);
        assert_eq!(shown("shift-tab"), ["⇧Tab", "S-Tab"]);
        assert_eq!(shown("f5"), ["F5", "F5"]);
        assert_eq!(shown("G"), ["G", "G"]);
        assert_eq!(shown("alt-enter"), ["Alt-⏎", "Alt-Enter"]);
        assert_eq!(shown("up"), ["↑", "Up"]);
    }

    fn codes() -> impl Strategy<Value = KeyCode> {
        let named: Vec<KeyCode> = NAMED.iter().map(|(code, ..)| *code).chain([KeyCode::BackTab]).collect();
        prop_oneof![
            any::<char>().prop_map(KeyCode::Char),
            proptest::char::range(' ', '~').prop_map(KeyCode::Char),
            (1..=LAST_F).prop_map(KeyCode::F),
            proptest::sample::select(named),
        ]
    }

    proptest! {
        #[test]
        fn what_is_shown_of_a_pressed_key_is_that_chord_again(code in codes(), modifiers in 0u8..8) {
            let event = KeyEvent::new(code, KeyModifiers::from_bits_truncate(modifiers));
            if let Some(chord) = Chord::pressed(event) {
                prop_assert_eq!(chord.to_string().parse(), Ok(chord));
                let again = KeyEvent::new(chord.code(), chord.modifiers());
                prop_assert_eq!(Chord::pressed(again), Some(chord));
                prop_assert!(!chord.short(false).is_empty() && (chord.character().is_some() || chord.short(true) != "^"));
            }
        }
    }
}
