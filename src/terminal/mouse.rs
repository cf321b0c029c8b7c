//! The mouse as bytes, for programs that ask for it.

use super::keys::{self, Key, Mods};
use super::{Modes, MouseMode};

/// Lines a step of the wheel moves on the alternate screen.
const LINES: usize = 3;

/// A mouse button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// The left one.
    Left,
    /// The middle one.
    Middle,
    /// The right one.
    Right,
}

/// A direction of the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wheel {
    /// Away from the hand.
    Up,
    /// Towards the hand.
    Down,
    /// To the left.
    Left,
    /// To the right.
    Right,
}

/// What the mouse did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A button went down.
    Press(Button),
    /// A button came up.
    Release(Button),
    /// It moved with a button held.
    Drag(Button),
    /// It moved.
    Move,
    /// The wheel turned a step.
    Turn(Wheel),
}

/// What the mouse did, where, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mouse {
    /// What it did.
    pub action: Action,
    /// Column.
    pub column: u16,
    /// Row.
    pub row: u16,
    /// Keys held down.
    pub mods: Mods,
}

/// What the mouse sends; nothing when the program has not asked for it. The wheel sends arrows to a
/// program on the alternate screen that has not.
pub fn encode(mouse: Mouse, modes: Modes) -> Vec<u8> {
    if modes.mouse == MouseMode::Off {
        return wheel_as_arrows(mouse, modes);
    }
    let wanted = match mouse.action {
        Action::Press(_) | Action::Release(_) | Action::Turn(_) => true,
        Action::Drag(_) => matches!(modes.mouse, MouseMode::Drags | MouseMode::Moves),
        Action::Move => modes.mouse == MouseMode::Moves,
    };
    if !wanted || !modes.sgr_mouse {
        return Vec::new();
    }
    let code = match mouse.action {
        Action::Press(button) | Action::Release(button) => button as u8,
        Action::Drag(button) => 32 + button as u8,
        Action::Move => 32 + 3,
        Action::Turn(wheel) => 64 + wheel as u8,
    };
    let Mods { shift, alt, ctrl } = mouse.mods;
    let code = code + 4 * u8::from(shift) + 8 * u8::from(alt) + 16 * u8::from(ctrl);
    let end = if matches!(mouse.action, Action::Release(_)) { 'm' } else { 'M' };
    let (column, row) = (u32::from(mouse.column) + 1, u32::from(mouse.row) + 1);
    format!("\x1b[<{code};{column};{row}{end}").into_bytes()
}

fn wheel_as_arrows(mouse: Mouse, modes: Modes) -> Vec<u8> {
    let key = match mouse.action {
        Action::Turn(Wheel::Up) => Key::Up,
        Action::Turn(Wheel::Down) => Key::Down,
        _ => return Vec::new(),
    };
    if !modes.alternate_screen || !modes.alternate_scroll {
        return Vec::new();
    }
    keys::encode(key, Mods::default(), modes).repeat(LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(action: Action, mods: Mods, modes: Modes) -> String {
        String::from_utf8(encode(Mouse { action, column: 4, row: 299, mods }, modes)).unwrap()
    }

    #[test]
    fn the_mouse_sends_what_was_asked_for() {
        let mode = |mouse| Modes { mouse, sgr_mouse: true, ..Modes::default() };
        let (clicks, drags, moves) =
            (mode(MouseMode::Clicks), mode(MouseMode::Drags), mode(MouseMode::Moves));
        let ctrl = Mods { ctrl: true, ..Mods::default() };
        let table: &[(Action, Mods, Modes, &str)] = &[
            (Action::Press(Button::Left), Mods::default(), clicks, "\x1b[<0;5;300M"),
            (Action::Release(Button::Right), Mods::default(), clicks, "\x1b[<2;5;300m"),
            (Action::Press(Button::Middle), ctrl, clicks, "\x1b[<17;5;300M"),
            (Action::Turn(Wheel::Up), Mods::default(), clicks, "\x1b[<64;5;300M"),
            (Action::Turn(Wheel::Right), Mods { shift: true, ..Mods::default() }, moves, "\x1b[<71;5;300M"),
            (Action::Drag(Button::Left), Mods::default(), clicks, ""),
            (Action::Drag(Button::Left), Mods { alt: true, ..Mods::default() }, drags, "\x1b[<40;5;300M"),
            (Action::Move, Mods::default(), drags, ""),
            (Action::Move, Mods::default(), moves, "\x1b[<35;5;300M"),
            (Action::Press(Button::Left), Mods::default(), Modes::default(), ""),
            (Action::Press(Button::Left), Mods::default(), Modes { sgr_mouse: false, ..clicks }, ""),
        ];
        for (action, mods, modes, bytes) in table {
            assert_eq!(sent(*action, *mods, *modes), *bytes, "{action:?} {mods:?} {modes:?}");
        }
    }

    #[test]
    fn the_wheel_is_arrows_to_a_pager_that_knows_no_mouse() {
        let pager = Modes { alternate_screen: true, alternate_scroll: true, ..Modes::default() };
        let wheel = |modes| sent(Action::Turn(Wheel::Up), Mods::default(), modes);
        assert_eq!(wheel(pager), "\x1b[A\x1b[A\x1b[A");
        assert_eq!(wheel(Modes { app_cursor: true, ..pager }), "\x1bOA\x1bOA\x1bOA");
        assert_eq!(wheel(Modes { alternate_scroll: false, ..pager }), "");
        assert_eq!(wheel(Modes { alternate_screen: false, ..pager }), "");
        assert_eq!(sent(Action::Move, Mods::default(), pager), "");
    }
}
