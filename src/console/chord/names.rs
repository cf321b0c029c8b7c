//! Chords as text.

use std::fmt;
use std::str::FromStr;

use crossterm::event::{KeyCode, KeyModifiers};

use super::{Chord, lower, upper};
use crate::console::config::reader::nearest;

/// Why a text is no chord.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChordError {
    /// No key has this name.
    #[error("`{0}` is no key{help}", help = suggestion(.0))]
    Unknown(String),
    /// What shift makes of a key differs between keyboards.
    #[error("shift with `{0}` depends on the keyboard\nhelp: write the character it gives, e.g. `?`")]
    Shifted(char),
}

/// Keys that are no character: the name, how the footer shows it, and how it does in ASCII.
pub(super) const NAMED: [(KeyCode, &str, &str, &str); 15] = [
    (KeyCode::Enter, "enter", "⏎", "Enter"),
    (KeyCode::Esc, "esc", "Esc", "Esc"),
    (KeyCode::Tab, "tab", "Tab", "Tab"),
    (KeyCode::Backspace, "backspace", "⌫", "Bksp"),
    (KeyCode::Char(' '), "space", "Space", "Space"),
    (KeyCode::Up, "up", "↑", "Up"),
    (KeyCode::Down, "down", "↓", "Down"),
    (KeyCode::Left, "left", "←", "Left"),
    (KeyCode::Right, "right", "→", "Right"),
    (KeyCode::Home, "home", "Home", "Home"),
    (KeyCode::End, "end", "End", "End"),
    (KeyCode::PageUp, "pageup", "PgUp", "PgUp"),
    (KeyCode::PageDown, "pagedown", "PgDn", "PgDn"),
    (KeyCode::Insert, "insert", "Ins", "Ins"),
    (KeyCode::Delete, "delete", "Del", "Del"),
];

/// Other names people write.
const ALIASES: [(&str, &str); 8] = [
    ("escape", "esc"),
    ("return", "enter"),
    ("pgup", "pageup"),
    ("pgdn", "pagedown"),
    ("page-up", "pageup"),
    ("page-down", "pagedown"),
    ("del", "delete"),
    ("ins", "insert"),
];

const MODIFIERS: [(KeyModifiers, &str); 3] =
    [(KeyModifiers::CONTROL, "ctrl"), (KeyModifiers::ALT, "alt"), (KeyModifiers::SHIFT, "shift")];

/// The last function key.
pub(super) const LAST_F: u8 = 24;

impl FromStr for Chord {
    type Err = ChordError;

    fn from_str(text: &str) -> Result<Self, ChordError> {
        let mut rest = text;
        let mut modifiers = KeyModifiers::NONE;
        while let Some((modifier, after)) = modifier(rest) {
            modifiers |= modifier;
            rest = after;
        }
        let code = key(rest).ok_or_else(|| ChordError::Unknown(text.into()))?;
        if let KeyCode::Char(c) = code
            && modifiers.contains(KeyModifiers::SHIFT)
            && c != ' '
            && upper(c) == lower(c)
        {
            return Err(ChordError::Shifted(c));
        }
        Ok(Self::new(code, modifiers))
    }
}

/// A leading `ctrl-`, as long as a key follows.
fn modifier(text: &str) -> Option<(KeyModifiers, &str)> {
    MODIFIERS.iter().find_map(|(modifier, name)| {
        let (head, rest) = text.split_at_checked(name.len())?;
        let rest = rest.strip_prefix(['-', '+']).filter(|rest| !rest.is_empty())?;
        head.eq_ignore_ascii_case(name).then_some((*modifier, rest))
    })
}

fn key(text: &str) -> Option<KeyCode> {
    let mut characters = text.chars();
    if let (Some(c), None) = (characters.next(), characters.next()) {
        return (!c.is_control()).then_some(KeyCode::Char(c));
    }
    let text = text.to_ascii_lowercase();
    let name = ALIASES.iter().find(|(alias, _)| *alias == text).map_or(text.as_str(), |(_, name)| name);
    if let Some((code, ..)) = NAMED.iter().find(|(_, named, ..)| *named == name) {
        return Some(*code);
    }
    let number = name.strip_prefix('f')?.parse().ok()?;
    (1..=LAST_F).contains(&number).then_some(KeyCode::F(number))
}

fn suggestion(text: &str) -> String {
    let (head, last) = match text.rfind(['-', '+']) {
        Some(at) if at + 1 < text.len() => text.split_at(at + 1),
        _ => ("", text),
    };
    let heads = head.split_inclusive(['-', '+']).map(|part| {
        let name = part.trim_end_matches(['-', '+']);
        nearest(name, MODIFIERS.iter().map(|(_, name)| *name)).unwrap_or(name).to_string() + "-"
    });
    let last = key(last).map(|_| last).or_else(|| nearest(last, NAMED.iter().map(|(_, name, ..)| *name)));
    let guess = last.map(|last| heads.collect::<String>() + last);
    match guess.filter(|guess| Chord::from_str(guess).is_ok()) {
        Some(guess) => format!("\nhelp: did you mean `{guess}`?"),
        None => "\nhelp: keys are written like `ctrl-b`, `alt-enter`, `shift-tab`, `f5`, `space`, `G`".into(),
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (modifier, name) in MODIFIERS {
            if self.modifiers.contains(modifier) {
                write!(f, "{name}-")?;
            }
        }
        let named = NAMED.iter().find(|(code, ..)| *code == self.code);
        match (self.code, named) {
            (_, Some((_, name, ..))) => f.write_str(name),
            (KeyCode::F(number), _) => write!(f, "f{number}"),
            (KeyCode::Char(c), _) => write!(f, "{c}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chord_is_written_in_more_than_one_way_and_shown_in_one() {
        for (written, shown) in [
            ("ctrl-x", "ctrl-x"),
            ("Ctrl+X", "ctrl-x"),
            ("alt-ctrl-left", "ctrl-alt-left"),
            ("Escape", "esc"),
            ("shift-g", "G"),
            ("G", "G"),
            ("alt-G", "alt-G"),
            ("ctrl--", "ctrl--"),
            ("-", "-"),
            ("+", "+"),
            ("?", "?"),
            ("F12", "f12"),
            ("pgdn", "pagedown"),
            (" ", "space"),
            ("ctrl-i", "tab"),
            ("ctrl-h", "backspace"),
            ("ctrl-/", "ctrl-_"),
        ] {
            assert_eq!(written.parse::<Chord>().unwrap().to_string(), shown, "{written}");
        }
    }

    #[test]
    fn what_is_no_key_comes_with_a_guess() {
        let error = |text: &str| text.parse::<Chord>().unwrap_err().to_string();
        assert_eq!(error("ctlr-q"), "`ctlr-q` is no key\nhelp: did you mean `ctrl-q`?");
        assert_eq!(error("shift-entr"), "`shift-entr` is no key\nhelp: did you mean `shift-enter`?");
        assert!(error("f25").contains("help: keys are written like"));
        assert!(error("").starts_with("`` is no key"));
        assert!(error("ctrl-").contains("is no key"));
        assert!(error("shift-1").contains("write the character it gives"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,20}") {
            match text.parse::<Chord>() {
                Ok(chord) => prop_assert_eq!(chord.to_string().parse(), Ok(chord)),
                Err(error) => prop_assert!(error.to_string().contains("help: ")),
            }
        }
    }
}
