//! Keys, pasted text and the mouse on their way to the program in a tab.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};
use tui_input::backend::crossterm::EventHandler;

use crate::console::act::Effect;
use crate::console::chord::Chord;
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::console::ui::tabs::Keys;
use crate::terminal::keys::{self, Key, Mods};
use crate::terminal::mouse::{self, Action, Button, Mouse, Wheel};
use crate::terminal::select::Unit;
use crate::terminal::session::Session;

/// Lines a step of the wheel moves through the scrollback.
const WHEEL: i32 = 3;

/// Whether a key is the console's, or was used up here.
#[derive(Debug, PartialEq, Eq)]
pub enum Whose {
    /// The console is to look for a command.
    Console,
    /// Nothing is left to do.
    Used,
}

/// Takes a key on the terminal page.
pub fn key(event: KeyEvent, chord: Option<Chord>, prefix: Chord, ui: &mut Ui) -> Whose {
    if ui.page != Page::Terminal {
        return Whose::Console;
    }
    let live = ui.tabs.has_program();
    match &mut ui.tabs.keys {
        Keys::Search(input) => {
            match event.code {
                KeyCode::Esc => ui.tabs.keys = Keys::Scrollback,
                KeyCode::Enter => {
                    let text = input.value().to_owned();
                    ui.tabs.keys = Keys::Scrollback;
                    if !ui.tabs.search(&text) {
                        ui.word = Some(format!("`{text}` is not found"));
                    }
                }
                _ => drop(input.handle_event(&crossterm::event::Event::Key(event))),
            }
            return Whose::Used;
        }
        Keys::Scrollback => return Whose::Console,
        Keys::Prefixed => {
            ui.tabs.keys = Keys::Program;
            if chord != Some(prefix) {
                return Whose::Console;
            }
        }
        Keys::Program if !live => return Whose::Console,
        Keys::Program if chord == Some(prefix) => {
            ui.tabs.keys = Keys::Prefixed;
            return Whose::Used;
        }
        Keys::Program => {}
    }
    if let (Some(session), Some(key)) = (ui.tabs.session(), translate(event.code)) {
        send(session, |session| keys::encode(key, mods(event.modifiers), session.modes()));
    }
    Whose::Used
}

/// Takes pasted text. Returns whether a program got it.
pub fn paste(text: &str, ui: &mut Ui) -> bool {
    let takes = ui.page == Page::Terminal && ui.tabs.has_program() && matches!(ui.tabs.keys, Keys::Program);
    if let (true, Some(session)) = (takes, ui.tabs.session()) {
        send(session, |session| keys::paste(text, session.modes()));
    }
    takes
}

/// Tells the program whether it is looked at.
pub fn focus(gained: bool, ui: &mut Ui) {
    if let Some(session) = ui.tabs.session() {
        send(session, |session| keys::focus(gained, session.modes()).to_vec());
    }
}

/// Takes the mouse over the screen of a session.
pub fn mouse(event: MouseEvent, area: Rect, ui: &mut Ui) -> Option<Effect> {
    let place = Position::new(event.column.saturating_sub(area.x), event.row.saturating_sub(area.y));
    let session = ui.tabs.session()?;
    let bytes = report(event, place).map(|report| mouse::encode(report, session.modes())).unwrap_or_default();
    // With shift the mouse is the console's, as in other terminals.
    if !bytes.is_empty() && !event.modifiers.contains(KeyModifiers::SHIFT) {
        session.write(&bytes);
        return None;
    }
    let screen = session.screen_mut();
    match event.kind {
        MouseEventKind::ScrollUp => screen.scroll(WHEEL),
        MouseEventKind::ScrollDown => screen.scroll(-WHEEL),
        MouseEventKind::Down(MouseButton::Left) => screen.select(Unit::Characters, place.x, place.y),
        MouseEventKind::Drag(MouseButton::Left) => screen.select_to(place.x, place.y),
        MouseEventKind::Up(MouseButton::Left) => return screen.selected_text().map(Effect::Copy),
        _ => {}
    }
    None
}

/// Sends bytes to the program, which shows the end of its output again.
fn send(session: &mut Session, bytes: impl FnOnce(&Session) -> Vec<u8>) {
    let bytes = bytes(session);
    if !bytes.is_empty() {
        session.screen_mut().scroll_to_bottom();
        session.screen_mut().clear_selection();
        // What a program that does not read loses, it would lose on any terminal.
        session.write(&bytes);
    }
}

fn translate(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Esc => Key::Escape,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Right => Key::Right,
        KeyCode::Left => Key::Left,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Insert => Key::Insert,
        KeyCode::Delete => Key::Delete,
        KeyCode::F(number) => Key::Function(number),
        _ => return None,
    })
}

fn mods(modifiers: KeyModifiers) -> Mods {
    Mods {
        shift: modifiers.contains(KeyModifiers::SHIFT),
        alt: modifiers.contains(KeyModifiers::ALT),
        ctrl: modifiers.contains(KeyModifiers::CONTROL),
    }
}

fn report(event: MouseEvent, place: Position) -> Option<Mouse> {
    let button = |button| match button {
        MouseButton::Left => Button::Left,
        MouseButton::Middle => Button::Middle,
        MouseButton::Right => Button::Right,
    };
    let action = match event.kind {
        MouseEventKind::Down(which) => Action::Press(button(which)),
        MouseEventKind::Up(which) => Action::Release(button(which)),
        MouseEventKind::Drag(which) => Action::Drag(button(which)),
        MouseEventKind::Moved => Action::Move,
        MouseEventKind::ScrollUp => Action::Turn(Wheel::Up),
        MouseEventKind::ScrollDown => Action::Turn(Wheel::Down),
        MouseEventKind::ScrollLeft => Action::Turn(Wheel::Left),
        MouseEventKind::ScrollRight => Action::Turn(Wheel::Right),
    };
    Some(Mouse { action, column: place.x, row: place.y, mods: mods(event.modifiers) })
}
