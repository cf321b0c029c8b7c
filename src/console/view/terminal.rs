//! Tabs, and the screen of the one shown.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::Scene;
use super::dialog::field;
use super::spot::{Spot, Spots};
use crate::console::theme::{Role, Sign, Theme, limit};
use crate::console::ui::Ui;
use crate::console::ui::tabs::{Keys, Tab};
use crate::terminal::grid::{self, Colour, Grid, Width};

/// Where the screen of a session lies on the page: below the tabs.
pub fn screen(area: Rect) -> Rect {
    Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area }
}

/// Draws the page.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let key = |name| scene.keymap.first_of(name, theme.ascii);
    tabs(scene, Rect { height: 1, ..area }, buffer, spots);
    let place = screen(area);
    let Some(tab) = scene.ui.tabs.tab() else {
        let (ssh, shell) = (key("ssh"), key("shell"));
        let text =
            format!("No session yet: `{ssh}` on a VM opens ssh to it, `{shell}` a shell of this machine.");
        return Paragraph::new(text)
            .style(theme.style(Role::Dim))
            .wrap(Wrap { trim: true })
            .render(place, buffer);
    };
    spots.add(place, Spot::Screen);
    match &tab.session {
        Ok(session) => paint(&session.screen().grid(), theme, place, buffer),
        Err(error) => {
            let text = Paragraph::new(error.as_str()).style(theme.style(Role::Error));
            text.wrap(Wrap { trim: false }).render(place, buffer);
        }
    }
    let last = Rect { y: place.bottom().saturating_sub(1), height: 1.min(place.height), ..place };
    if let Some(text) = over(tab) {
        blank(last, buffer);
        let (open, close) = (key("reconnect"), key("tab-close"));
        let text = format!(" {text}: {open} opens it again, {close} closes it ");
        Line::styled(text, theme.style(Role::Selected)).render(last, buffer);
    } else if let Keys::Search(input) = &scene.ui.tabs.keys {
        blank(last, buffer);
        field(scene, "/", input, last, buffer);
    }
}

fn over(tab: &Tab) -> Option<String> {
    match &tab.session {
        Err(_) => Some("not begun".into()),
        Ok(session) => session.exit().map(|exit| format!("ended with {exit}")),
    }
}

fn blank(area: Rect, buffer: &mut Buffer) {
    for position in area.positions() {
        buffer[position].reset();
    }
}

fn tabs(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let mut x = area.x;
    for (index, tab) in scene.ui.tabs.list.iter().enumerate() {
        let title = tab.session.as_ref().ok().and_then(|session| session.screen().title());
        let sign = match (tab.is_live(), tab.calls) {
            (_, true) => Span::styled(theme.sign(Sign::Alive), theme.style(Role::Warning)),
            (true, _) => Span::styled(theme.sign(Sign::Busy), theme.style(Role::Ok)),
            (false, _) => Span::styled(theme.sign(Sign::Ended), theme.style(Role::Dim)),
        };
        let title = title.filter(|title| *title != tab.name).map(|title| format!(": {title}"));
        let name = cut(&format!("{}{}", tab.name, title.unwrap_or_default()), 32);
        let role = if index == scene.ui.tabs.active { Role::Selected } else { Role::Text };
        let line =
            Line::from(vec![Span::raw(" "), sign, Span::styled(format!(" {name} "), theme.style(role))]);
        let width = (line.width() as u16).min(area.right().saturating_sub(x));
        let place = Rect { x, width, ..area };
        line.render(place, buffer);
        spots.add(place, Spot::Tab(index));
        x += width;
    }
    let session = scene.ui.tabs.tab().and_then(|tab| tab.session.as_ref().ok());
    let word = match (&scene.ui.tabs.keys, session) {
        (Keys::Prefixed, _) => "the next key is mvm's".into(),
        (Keys::Scrollback | Keys::Search(_), Some(session)) => {
            format!("scrollback {}/{}", session.screen().scrolled(), session.screen().history())
        }
        _ => return,
    };
    let word = Line::styled(format!(" {word} "), theme.style(Role::Warning));
    let width = (word.width() as u16).min(area.width);
    word.render(Rect { x: area.right() - width, width, ..area }, buffer);
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Copies the visible cells.
fn paint(grid: &Grid<'_>, theme: &Theme, area: Rect, buffer: &mut Buffer) {
    let mut symbol = String::new();
    let rows = area.height.min(grid.size().rows());
    for row in 0..rows {
        for (column, cell) in (0..area.width).zip(grid.row(row)) {
            let Some(target) = buffer.cell_mut((area.x + column, area.y + row)) else { continue };
            if cell.width == Width::Spacer {
                // What a wide character covers is not drawn, but keeps its colours.
                target.reset();
            } else {
                symbol.clear();
                cell.write_symbol(&mut symbol);
                let fits = cell.width != Width::Wide || column + 1 < area.width;
                target.set_symbol(if fits && !cell.style.hidden { &symbol } else { " " });
            }
            let mut style = limit(style(cell.style), theme.depth);
            if cell.found {
                style = style.patch(theme.style(Role::Match));
            }
            if cell.selected {
                style = style.patch(theme.style(Role::CurrentMatch));
            }
            target.set_style(style);
        }
    }
}

fn style(style: grid::Style) -> Style {
    let colour = |colour| match colour {
        Colour::Default => Color::Reset,
        Colour::Indexed(index) => Color::Indexed(index),
        Colour::Rgb(r, g, b) => Color::Rgb(r, g, b),
    };
    let modifiers = [
        (style.bold, Modifier::BOLD),
        (style.dim, Modifier::DIM),
        (style.italic, Modifier::ITALIC),
        (style.underline, Modifier::UNDERLINED),
        (style.reverse, Modifier::REVERSED),
        (style.strike, Modifier::CROSSED_OUT),
    ];
    let set = modifiers.into_iter().filter(|(on, _)| *on).map(|(_, modifier)| modifier);
    Style::new().fg(colour(style.foreground)).bg(colour(style.background)).add_modifier(set.collect())
}

/// Where the program's cursor is on the page.
pub fn cursor(ui: &Ui, area: Rect) -> Option<(Position, grid::Cursor)> {
    let tab = ui.tabs.tab().filter(|tab| tab.is_live())?;
    let cursor = tab.session.as_ref().ok()?.screen().grid().cursor()?;
    let place = screen(area);
    let inside = cursor.column < place.width && cursor.row < place.height;
    inside.then_some((Position::new(place.x + cursor.column, place.y + cursor.row), cursor))
}
