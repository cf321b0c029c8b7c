//! Pure functions from the model and the screen's state to the screen.

pub mod builds;
pub mod cluster;
pub mod columns;
pub mod detail;
pub mod dialog;
pub mod fields;
pub mod fold;
pub mod frame;
pub mod graph;
pub mod help;
pub mod log;
pub mod overview;
pub mod own_log;
pub mod pane;
pub mod routes;
#[cfg(test)]
mod shot;
pub mod spot;
pub mod table;
pub mod task;
pub mod tasks;
pub mod terminal;
pub mod text;
pub mod tree;
pub mod vm;
pub mod vms;
pub mod watch;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::widgets::{Clear, Widget};

use super::keymap::Keymap;
use super::model::Model;
use super::theme::Theme;
use super::ui::Ui;
use super::ui::dialog::Dialog;
use super::ui::page::Page;
use crate::terminal::{Size, grid};
use spot::{Spot, Spots};

/// Least size the console is drawn at.
pub const LEAST: (u16, u16) = (40, 10);

/// What a view is drawn from.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// What is true.
    pub model: &'a Model,
    /// What the user does.
    pub ui: &'a Ui,
    /// Which keys do what.
    pub keymap: &'a Keymap,
    /// Colours and signs.
    pub theme: &'a Theme,
    /// The time.
    pub now: Timestamp,
}

/// Draws the whole screen, and has what is scrolled laid out for it; gives what lies where.
pub fn show(
    (model, ui): (&Model, &mut Ui),
    (keymap, theme): (&Keymap, &Theme),
    now: Timestamp,
    area: Rect,
    buffer: &mut Buffer,
) -> Spots {
    let session = session(ui, area);
    ui.tabs.resize(Size::new(session.width, session.height));
    ui.lay_out_log(model, ui.log_area().unwrap_or_default());
    let spots = draw(Scene { model, ui, keymap, theme, now }, area, buffer);
    match spots.log() {
        // Only drawing tells where the log lies: when it has moved, it is drawn once more.
        Some(place) if Some(place) != ui.log_area() => {
            ui.lay_out_log(model, place);
            Clear.render(area, buffer);
            draw(Scene { model, ui, keymap, theme, now }, area, buffer)
        }
        _ => spots,
    }
}

/// Draws the whole screen as it was laid out; gives what lies where.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) -> Spots {
    let mut spots = Spots::default();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        frame::too_small(area, buffer);
        return spots;
    }
    let [header, body, footer] = areas(scene.ui, area);
    frame::header(scene, header, buffer, &mut spots);
    match scene.ui.page {
        Page::Overview => overview::draw(scene, body, buffer, &mut spots),
        page => pane_of(page, scene, body, buffer, &mut spots),
    }
    if footer.height > 0 {
        frame::footer(scene, footer, buffer, &mut spots);
    } else if scene.ui.word.is_some() {
        let last = Rect { y: area.bottom() - 1, height: 1, ..area };
        Clear.render(last, buffer);
        frame::footer(scene, last, buffer, &mut spots);
    }
    match &scene.ui.dialog {
        Some(Dialog::Prompt { input, purpose, .. }) if purpose.at_the_foot().is_some() => {
            frame::typed(scene, purpose.at_the_foot().unwrap_or_default(), input, footer, buffer);
        }
        Some(dialog) => dialog::draw(scene, dialog, body, buffer, &mut spots),
        None => {}
    }
    spots
}

/// The first line, the page, the last line. A zoomed terminal has them all.
fn areas(ui: &Ui, area: Rect) -> [Rect; 3] {
    let edge = Constraint::Length(if ui.page == Page::Terminal && ui.zoomed { 0 } else { 1 });
    Layout::vertical([edge, Constraint::Fill(1), edge]).areas(area)
}

/// Where the screen of a session lies.
pub fn session(ui: &Ui, area: Rect) -> Rect {
    terminal::screen(areas(ui, area)[1])
}

/// Where the cursor of the program in the terminal is, when it is to be seen.
pub fn cursor(ui: &Ui, area: Rect) -> Option<(Position, grid::Cursor)> {
    let seen = ui.page == Page::Terminal && ui.dialog.is_none();
    if seen { terminal::cursor(ui, areas(ui, area)[1]) } else { None }
}

fn pane_of(page: Page, scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    spots.add(area, Spot::Pane(page));
    match page {
        Page::Builds => builds::draw(scene, area, buffer, spots),
        Page::Vms => vms::draw(scene, area, buffer, spots),
        Page::Terminal => terminal::draw(scene, area, buffer, spots),
        Page::Cluster => cluster::draw(scene, area, buffer, spots),
        Page::Routes => routes::draw(scene, area, buffer, spots),
        Page::Log => own_log::draw(scene, area, buffer),
        Page::Overview => {}
    }
}
