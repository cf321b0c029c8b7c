//! Pure functions from the model and the screen's state to the screen.

pub mod builds;
pub mod columns;
pub mod detail;
pub mod dialog;
pub mod fold;
pub mod frame;
pub mod overview;
pub mod pane;
pub mod task;
pub mod tasks;
pub mod tree;
pub mod vms;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use super::model::Model;
use super::theme::Theme;
use super::ui::Ui;
use super::ui::page::Page;

/// Least size the console is drawn at.
pub const LEAST: (u16, u16) = (40, 10);

/// What a view is drawn from.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// What is true.
    pub model: &'a Model,
    /// What the user does.
    pub ui: &'a Ui,
    /// Colours and signs.
    pub theme: &'a Theme,
    /// The time.
    pub now: Timestamp,
}

/// Draws the whole screen.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return frame::too_small(area, buffer);
    }
    let [header, body, footer] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame::header(scene, header, buffer);
    match scene.ui.page {
        Page::Overview => overview::draw(scene, body, buffer),
        page => pane_of(page, scene, body, buffer),
    }
    frame::footer(scene, footer, buffer);
    if let Some(dialog) = &scene.ui.dialog {
        dialog::draw(scene, dialog, body, buffer);
    }
}

fn pane_of(page: Page, scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    match page {
        Page::Builds => builds::draw(scene, area, buffer),
        Page::Vms => vms::draw(scene, area, buffer),
        page => pane::empty(scene, page, "nothing here yet", area, buffer),
    }
}
