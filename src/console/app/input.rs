//! A key to what it does.

use crossterm::event::{Event as CrosstermEvent, KeyCode, KeyEvent, KeyModifiers};
use tui_input::backend::crossterm::EventHandler;

use crate::console::act::{self, Effect};
use crate::console::command::{COMMANDS, Command, Place};
use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::dialog::Dialog;

/// Does what a key says.
pub fn key(key: KeyEvent, model: &Model, ui: &mut Ui) -> Option<Effect> {
    ui.word = None;
    if key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL {
        return Some(Effect::Quit);
    }
    if let Some(dialog) = ui.dialog.take() {
        return answer(dialog, key, model, ui);
    }
    let command = find(&spec(key), ui)?;
    if let Err(why) = (command.when)(model, ui) {
        ui.word = Some(format!("{}: {why}", command.name));
        return None;
    }
    act::act(command.action, model, ui).unwrap_or_else(|word| {
        ui.word = Some(word);
        None
    })
}

/// The command bound to a key here; that of the narrower place first.
fn find(spec: &str, ui: &Ui) -> Option<&'static Command> {
    let bound = |c: &&Command| c.keys.contains(&spec) && c.is_here(ui);
    let narrow = COMMANDS.iter().filter(bound).find(|c| c.place != Place::Everywhere);
    narrow.or_else(|| COMMANDS.iter().find(bound))
}

fn answer(dialog: Dialog, key: KeyEvent, model: &Model, ui: &mut Ui) -> Option<Effect> {
    if key.code == KeyCode::Esc {
        return None;
    }
    match dialog {
        Dialog::Confirm { question, action } => match key.code {
            KeyCode::Char('y') | KeyCode::Enter => return act::confirmed(action, model, ui),
            KeyCode::Char('n' | 'q') => {}
            _ => ui.dialog = Some(Dialog::Confirm { question, action }),
        },
        Dialog::Prompt { title, mut input, purpose } => {
            if key.code == KeyCode::Enter {
                return act::answered(purpose, input.value().into(), ui);
            }
            input.handle_event(&CrosstermEvent::Key(key));
            ui.dialog = Some(Dialog::Prompt { title, input, purpose });
        }
        Dialog::Palette { mut input, cursor } => {
            if key.code == KeyCode::Enter {
                let command = COMMANDS.iter().find(|c| c.name == input.value())?;
                return act::act(command.action, model, ui).ok().flatten();
            }
            input.handle_event(&CrosstermEvent::Key(key));
            ui.dialog = Some(Dialog::Palette { input, cursor });
        }
        Dialog::Help { .. } => {}
    }
    None
}

/// A key as it is written in the list of commands.
fn spec(key: KeyEvent) -> String {
    let name = match key.code {
        KeyCode::Char(c) => c.to_string(),
        KeyCode::BackTab => "shift-tab".into(),
        code => code.to_string().to_lowercase().replace(' ', ""),
    };
    if key.modifiers.contains(KeyModifiers::CONTROL) { format!("ctrl-{name}") } else { name }
}
