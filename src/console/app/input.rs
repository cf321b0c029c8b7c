//! Keys and the mouse to what they do.

use crossterm::event::{
    Event as Input, KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;
use tui_input::Input as Line;
use tui_input::backend::crossterm::EventHandler;

use super::terminal::{self, Whose};

use crate::console::act::{self, Effect};
use crate::console::chord::Chord;
use crate::console::command::{Action, COMMANDS, Command};
use crate::console::keymap::Keymap;
use crate::console::log::LogAction;
use crate::console::model::Model;
use crate::console::palette;
use crate::console::ui::Ui;
use crate::console::ui::dialog::{Dialog, Purpose};
use crate::console::ui::page::Page;
use crate::console::ui::tabs::Keys;
use crate::console::view::help;
use crate::console::view::spot::{Spot, Spots};

/// Rows the wheel moves.
const WHEEL: isize = 3;
/// Most characters taken from one paste where a line is typed.
const MOST_PASTED: usize = 4096;

/// Does what a key says.
pub fn key(key: KeyEvent, keymap: &Keymap, model: &Model, ui: &mut Ui) -> Option<Effect> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let chord = Chord::pressed(key);
    ui.word = None;
    if let Some(dialog) = ui.dialog.take() {
        // No dialog holds anybody.
        if chord == Some(Chord::ctrl('c')) {
            return Some(Effect::Quit);
        }
        return answer(dialog, key, model, ui);
    }
    if terminal::key(key, chord, keymap.prefix, ui) == Whose::Used {
        return None;
    }
    call(keymap.find(chord?, ui)?, model, ui)
}

/// Takes pasted text in: where something is typed, else in the terminal.
pub fn paste(text: &str, model: &Model, ui: &mut Ui) {
    match (&mut ui.dialog, &mut ui.tabs.keys) {
        (Some(Dialog::Prompt { input, purpose, .. }), _) => {
            insert(input, text);
            let (purpose, value) = (purpose.clone(), input.value().to_owned());
            typed(&purpose, &value, model, ui);
        }
        (Some(Dialog::Palette { input, .. }), _) => insert(input, text),
        (Some(_), _) => {}
        (None, Keys::Search(input)) if ui.page == Page::Terminal => insert(input, text),
        _ => drop(terminal::paste(text, ui)),
    }
}

/// Puts text where the cursor is, in one go: a megabyte may be pasted.
fn insert(input: &mut Line, text: &str) {
    let pasted: String = text.chars().filter(|c| !c.is_control()).take(MOST_PASTED).collect();
    let cursor = input.cursor() + pasted.chars().count();
    let before: String = input.value().chars().take(input.cursor()).collect();
    let after: String = input.value().chars().skip(input.cursor()).collect();
    *input = Line::new(before + &pasted + &after).with_cursor(cursor);
}

/// Does a command, or says why not.
fn call(command: &Command, model: &Model, ui: &mut Ui) -> Option<Effect> {
    if let Err(why) = (command.when)(model, ui) {
        ui.word = Some(format!("{}: {why}", command.name));
        return None;
    }
    act::act(command.action, model, ui)
}

/// Does what the mouse says.
pub fn mouse(mouse: MouseEvent, spots: &Spots, model: &Model, ui: &mut Ui) -> Option<Effect> {
    let (area, spot) = spots.at(Position::new(mouse.column, mouse.row)).cloned()?;
    if spot == Spot::Screen {
        return terminal::mouse(mouse, area, ui);
    }
    let step = match mouse.kind {
        MouseEventKind::ScrollUp => -WHEEL,
        MouseEventKind::ScrollDown => WHEEL,
        MouseEventKind::Down(MouseButton::Left) if spot == Spot::Log => {
            let line = ui.log_pane().and_then(|pane| pane.state.line_at(area, mouse.row));
            line.map(|line| ui.act_on_log(model, LogAction::GoTo(line)));
            return None;
        }
        MouseEventKind::Down(MouseButton::Left) => return click(spot, model, ui),
        _ => return None,
    };
    match &mut ui.dialog {
        Some(Dialog::Help { top }) => *top = help::scrolled(*top, step),
        Some(_) => {}
        None if spot == Spot::Log => {
            let rows = step.unsigned_abs();
            let action = if step < 0 { LogAction::ScrollUp(rows) } else { LogAction::ScrollDown(rows) };
            ui.act_on_log(model, action);
        }
        None => {
            point(spot, ui);
            return act::act(Action::Step(step), model, ui);
        }
    }
    None
}

fn click(spot: Spot, model: &Model, ui: &mut Ui) -> Option<Effect> {
    ui.word = None;
    match spot {
        Spot::Command(action) => {
            let command = COMMANDS.iter().find(|command| command.action == action)?;
            return call(command, model, ui);
        }
        Spot::Answer(yes) => {
            if let Some(Dialog::Confirm { action, .. }) = ui.dialog.take()
                && yes
            {
                return act::confirmed(action, ui);
            }
        }
        Spot::Choice(index) => {
            if let Some(Dialog::Palette { input, .. }) = ui.dialog.take() {
                return chosen(input.value(), index, model, ui);
            }
        }
        spot => point(spot, ui),
    }
    None
}

/// Gives the keys to what is pointed at.
fn point(spot: Spot, ui: &mut Ui) {
    match spot {
        Spot::Pane(page) if ui.page == Page::Overview => ui.tile = page,
        Spot::Task(id) => ui.builds.select(id),
        Spot::Vm(id) => ui.vms.select(&id),
        Spot::Row(path) => ui.cluster.select(&path),
        Spot::Route(listen) => ui.routes.select(&listen),
        Spot::Tab(index) => ui.tabs.show(index),
        _ => {}
    }
}

fn answer(dialog: Dialog, key: KeyEvent, model: &Model, ui: &mut Ui) -> Option<Effect> {
    if key.code == KeyCode::Esc {
        if let Dialog::Prompt { purpose, .. } = dialog {
            typed(&purpose, "", model, ui);
        }
        return None;
    }
    match dialog {
        Dialog::Confirm { question, action } => match key.code {
            KeyCode::Char('y' | 'Y') | KeyCode::Enter => return act::confirmed(action, ui),
            KeyCode::Char('n' | 'N' | 'q') => {}
            _ => ui.dialog = Some(Dialog::Confirm { question, action }),
        },
        Dialog::Prompt { title, mut input, purpose, .. } => {
            if key.code == KeyCode::Enter {
                return act::answered(title, purpose, input, model, ui);
            }
            input.handle_event(&Input::Key(key));
            typed(&purpose, input.value(), model, ui);
            ui.dialog = Some(Dialog::Prompt { title, input, purpose, problem: None });
        }
        Dialog::Palette { mut input, mut cursor } => {
            let last = palette::matches(input.value()).len().saturating_sub(1);
            match key.code {
                KeyCode::Enter => return chosen(input.value(), cursor, model, ui),
                KeyCode::Up => cursor = cursor.saturating_sub(1),
                KeyCode::Down => cursor = (cursor + 1).min(last),
                KeyCode::Tab => {
                    let name = palette::matches(input.value()).get(cursor).map(|command| command.name);
                    input = name.map(|name| format!("{name} ").into()).unwrap_or(input);
                    cursor = 0;
                }
                _ => {
                    input.handle_event(&Input::Key(key));
                    cursor = 0;
                }
            }
            ui.dialog = Some(Dialog::Palette { input, cursor });
        }
        Dialog::Help { top } => {
            let by = match key.code {
                KeyCode::Up | KeyCode::Char('k') => -1,
                KeyCode::Down | KeyCode::Char('j') => 1,
                KeyCode::PageUp => -10,
                KeyCode::PageDown | KeyCode::Char(' ') => 10,
                _ => return None,
            };
            ui.dialog = Some(Dialog::Help { top: help::scrolled(top, by) });
        }
    }
    None
}

/// Has the log follow what is typed.
fn typed(purpose: &Purpose, text: &str, model: &Model, ui: &mut Ui) {
    let action = match (purpose, text) {
        (Purpose::Search, "") => LogAction::ClearSearch,
        (Purpose::Search, text) => LogAction::Search(text.into()),
        (Purpose::Filter, "") => LogAction::ClearFilter,
        (Purpose::Filter, text) => LogAction::Filter(text.into()),
        _ => return,
    };
    ui.act_on_log(model, action);
}

/// Does what was chosen in the palette; what follows the name is what the command would ask for.
fn chosen(line: &str, index: usize, model: &Model, ui: &mut Ui) -> Option<Effect> {
    let found = palette::matches(line);
    let Some(command) = found.get(index) else {
        ui.word = Some(format!("there is no command `{line}`"));
        return None;
    };
    let (_, rest) = palette::split(line);
    if let Some(page) = command.place.page().filter(|_| !command.place.is_here(ui)) {
        // What it does is to be seen.
        ui.page = page;
    }
    if !rest.is_empty()
        && let Err(why) = (command.when)(model, ui).and_then(|()| act::ask_for(command.action, model, ui))
    {
        ui.word = Some(format!("{}: {why}", command.name));
        return None;
    }
    match ui.dialog.take() {
        Some(Dialog::Prompt { title, purpose, .. }) => {
            typed(&purpose, rest, model, ui);
            act::answered(title, purpose, rest.into(), model, ui)
        }
        _ => call(command, model, ui),
    }
}

#[cfg(test)]
mod tests;
