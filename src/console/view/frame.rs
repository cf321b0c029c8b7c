//! The first and the last line of the screen.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Widget};
use tui_input::Input;
use unicode_width::UnicodeWidthStr;

use super::dialog::field;
use super::spot::{Spot, Spots};
use super::{LEAST, Scene};
use crate::console::command::{Action, COMMANDS, Command};
use crate::console::model::clock::since;
use crate::console::theme::Role;
use crate::console::ui::page::Page;
use crate::console::ui::tabs::Keys;
use crate::event::text::strip;

/// The rank from which on commands are always told.
const ALWAYS: u8 = 95;
/// How long something that happened is told.
const NOTICE: Duration = Duration::from_secs(6);

/// The pages with their numbers.
pub fn header(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let mut row = Row { area, x: area.x };
    row.put(Span::styled(" mvm ", theme.style(Role::Title)), buffer);
    for (index, page) in Page::ALL.into_iter().enumerate() {
        let role = if page == scene.ui.page { Role::Selected } else { Role::Text };
        row.put(Span::raw(" "), buffer);
        let place =
            row.put(Span::styled(format!("{} {}", index + 1, page.title()), theme.style(role)), buffer);
        spots.add(place, Spot::Command(Action::Go(page)));
    }
    let machine = strip(&scene.model.machine);
    let machine = if theme.ascii { machine.replace('·', "-") } else { machine };
    let machine = Line::styled(machine + " ", theme.style(Role::Dim));
    if machine.width() + 2 <= row.room() {
        machine.right_aligned().render(area, buffer);
    }
}

/// What can be done here, or a word about the last key.
pub fn footer(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    if let Some(word) = word(scene) {
        return Line::styled(format!(" {}", strip(word)), theme.style(Role::Warning)).render(area, buffer);
    }
    let mut row = Row { area, x: area.x };
    if takes_prefix(scene) {
        let prefix = scene.keymap.prefix.short(theme.ascii);
        row.put(Span::styled(format!(" {prefix}"), theme.style(Role::Key)), buffer);
        row.put(Span::styled(" then", theme.style(Role::Dim)), buffer);
    }
    // How to get further is told at the end, however little room there is.
    let (always, here): (Vec<_>, Vec<_>) = useful(scene).into_iter().partition(|c| c.rank >= ALWAYS);
    let wanted: usize = always.iter().map(|command| entry_width(scene, command)).sum();
    let end = row.area.right().saturating_sub(wanted.min(usize::from(area.width) / 2) as u16);
    for command in here {
        if usize::from(end.saturating_sub(row.x)) < entry_width(scene, command) {
            break;
        }
        entry(scene, command, &mut row, buffer, spots);
    }
    row.x = row.x.max(end);
    for command in always {
        if row.room() < entry_width(scene, command) {
            break;
        }
        entry(scene, command, &mut row, buffer, spots);
    }
}

fn entry_width(scene: Scene<'_>, command: &Command) -> usize {
    scene.keymap.first(command, scene.theme.ascii).width() + command.name.width() + 3
}

/// A command with its key.
fn entry(scene: Scene<'_>, command: &Command, row: &mut Row, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let keys = scene.keymap.first(command, theme.ascii);
    let key = row.put(Span::styled(format!(" {keys}"), theme.style(Role::Key)), buffer);
    let name = row.put(Span::styled(format!(" {} ", command.name), theme.style(Role::Dim)), buffer);
    spots.add(key.union(name), Spot::Command(command.action));
}

/// What the user is to know: about their last key, else what happened of late.
fn word(scene: Scene<'_>) -> Option<&str> {
    let notice = scene
        .model
        .notice
        .as_ref()
        .filter(|notice| notice.time <= scene.now && since(notice.time, scene.now) < NOTICE);
    let word = scene.ui.word.as_deref().or(notice.map(|notice| notice.text.as_str()))?;
    word.lines().next()
}

/// Whether a program has the keys, so that commands begin with the prefix.
fn takes_prefix(scene: Scene<'_>) -> bool {
    let tabs = &scene.ui.tabs;
    scene.ui.page == Page::Terminal && tabs.has_program() && matches!(tabs.keys, Keys::Program)
}

/// The commands of the footer in order: those that can be used here and now.
fn useful(scene: Scene<'_>) -> Vec<&'static Command> {
    let usable = |c: &&Command| {
        c.rank > 0
            && c.place.is_here(scene.ui)
            && (c.when)(scene.model, scene.ui).is_ok()
            && !scene.keymap.is_covered(c, scene.ui)
    };
    let mut commands: Vec<&Command> = COMMANDS.iter().filter(usable).collect();
    commands.sort_by_key(|command| command.rank);
    commands
}

/// A line that is filled from the left.
struct Row {
    area: Rect,
    x: u16,
}

impl Row {
    fn room(&self) -> usize {
        self.area.right().saturating_sub(self.x).into()
    }

    /// Puts text behind what is there; gives its place.
    fn put(&mut self, span: Span<'_>, buffer: &mut Buffer) -> Rect {
        let width = span.width().min(self.room()) as u16;
        let place = Rect { x: self.x, width, ..self.area };
        span.render(place, buffer);
        self.x += width;
        place
    }
}

/// A line that is typed, instead of the last line.
pub fn typed(scene: Scene<'_>, before: &str, input: &Input, area: Rect, buffer: &mut Buffer) {
    Clear.render(area, buffer);
    field(scene, before, input, area, buffer);
}

/// What is shown instead of everything when there is no room.
pub fn too_small(area: Rect, buffer: &mut Buffer) {
    let text = format!("{}x{} is too small: mvm needs {}x{}", area.width, area.height, LEAST.0, LEAST.1);
    Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }).render(area, buffer);
}
