//! Dialogs over the page.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Widget, Wrap};
use tui_input::Input;
use unicode_width::UnicodeWidthStr;

use super::pane::pane;
use super::spot::{Spot, Spots};
use super::{Scene, help};
use crate::console::palette;
use crate::console::theme::{Role, Sign};
use crate::console::ui::dialog::Dialog;

/// Widest dialog.
const WIDEST: u16 = 76;

/// Draws the open dialog in the middle of the page.
pub fn draw(scene: Scene<'_>, dialog: &Dialog, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    // What lies below takes no clicks.
    spots.cover(area);
    match dialog {
        Dialog::Confirm { question, .. } => confirm(scene, question, area, buffer, spots),
        Dialog::Prompt { title, input, problem, .. } => {
            prompt(scene, title, input, problem.as_deref(), area, buffer);
        }
        Dialog::Palette { input, cursor } => choose(scene, input, *cursor, area, buffer, spots),
        Dialog::Help { top } => help::draw(scene, *top, area, buffer),
    }
}

/// Clears a box of `height` lines in the middle and puts a border round it; gives what is inside.
pub fn open(scene: Scene<'_>, title: &str, height: u16, area: Rect, buffer: &mut Buffer) -> Rect {
    let area = area.centered(Constraint::Max(WIDEST), Constraint::Max(height.saturating_add(2)));
    Clear.render(area, buffer);
    // A wide character of which only the left half would stay takes the border's place on the screen.
    for row in area.rows() {
        if let Some(cell) = row.x.checked_sub(1).and_then(|x| buffer.cell_mut((x, row.y)))
            && cell.symbol().width() > 1
        {
            cell.set_symbol(" ");
        }
    }
    pane(scene.theme, title, true, area, buffer)
}

fn confirm(scene: Scene<'_>, question: &str, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let text = Paragraph::new(question).wrap(Wrap { trim: true });
    let width = usize::from(WIDEST.min(area.width)).saturating_sub(12).max(1);
    // Words leave gaps at the ends of lines, hence the narrower width.
    let lines = question.width().div_ceil(width) as u16;
    let inner = open(scene, "Sure?", lines + 2, area, buffer);
    text.render(inner, buffer);
    let row = Rect { y: inner.bottom().saturating_sub(1), height: 1, ..inner };
    let answers = [("y", " yes", Spot::Answer(true)), ("n", " no", Spot::Answer(false))];
    let mut x = row.x;
    for (key, word, spot) in answers {
        let answer = Line::from(vec![Span::styled(key, theme.style(Role::Key)), Span::raw(word)]);
        let place = Rect { x, width: (answer.width() as u16).min(row.right().saturating_sub(x)), ..row };
        x += place.width + 3;
        answer.render(place, buffer);
        spots.add(place, spot);
    }
}

fn prompt(
    scene: Scene<'_>,
    title: &str,
    input: &Input,
    problem: Option<&str>,
    area: Rect,
    buffer: &mut Buffer,
) {
    let inner = open(scene, title, 1 + u16::from(problem.is_some()), area, buffer);
    field(scene, "", input, Rect { height: 1, ..inner }, buffer);
    if let (Some(problem), true) = (problem, inner.height > 1) {
        let row = Rect { y: inner.y + 1, height: 1, ..inner };
        Line::styled(problem, scene.theme.style(Role::Error)).render(row, buffer);
    }
}

/// A line that is typed, scrolled so that the cursor shows.
pub fn field(scene: Scene<'_>, before: &str, input: &Input, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    Line::styled(before, scene.theme.style(Role::Key)).render(area, buffer);
    let taken = (before.width() as u16).min(area.width);
    let area = Rect { x: area.x + taken, width: area.width - taken, ..area };
    let scroll = input.visual_scroll(area.width.saturating_sub(1) as usize);
    Paragraph::new(input.value()).scroll((0, scroll as u16)).render(area, buffer);
    let at = input.visual_cursor().saturating_sub(scroll) as u16;
    if let Some(cell) = buffer.cell_mut((area.x.saturating_add(at), area.y))
        && at < area.width
    {
        cell.set_style(scene.theme.style(Role::Selected));
    }
}

fn choose(
    scene: Scene<'_>,
    input: &Input,
    cursor: usize,
    area: Rect,
    buffer: &mut Buffer,
    spots: &mut Spots,
) {
    let theme = scene.theme;
    let found = palette::matches(input.value());
    let inner = open(scene, "Command", (found.len() as u16).clamp(1, 14) + 1, area, buffer);
    field(scene, ":", input, Rect { height: 1, ..inner }, buffer);
    let rows = Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner };
    if found.is_empty() {
        return Line::styled("no such command", theme.style(Role::Dim)).render(rows, buffer);
    }
    let first = cursor.saturating_sub(rows.height.saturating_sub(1) as usize);
    for (index, row) in (first..found.len()).zip(rows.rows()) {
        let command = found[index];
        let why_not = (command.when)(scene.model, scene.ui).err();
        let keys = scene.keymap.shown(command, theme.ascii);
        let text =
            why_not.map_or(command.help.to_string(), |why| format!("{} {why}", theme.sign(Sign::Failed)));
        let role = if why_not.is_some() { Role::Dim } else { Role::Text };
        Line::from(vec![
            Span::styled(format!("{:<15} ", command.name), theme.style(role)),
            Span::styled(format!("{keys:<12} "), theme.style(Role::Key)),
            Span::styled(text, theme.style(Role::Dim)),
        ])
        .render(row, buffer);
        if index == cursor {
            buffer.set_style(row, theme.style(Role::Selected));
        }
        spots.add(row, Spot::Choice(index));
    }
}
