//! For tests: models made of events, pages as text.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::spot::Spots;
use super::{Scene, overview, pane_of};
use crate::console::keymap::Keymap;
use crate::console::model::Model;
use crate::console::theme::{Depth, Palette, Theme};
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::event::{Event, Kind, SCHEMA_VERSION, TaskId};

/// The time on the screen, in seconds.
pub const NOW: i64 = 1_800_000_000;

/// Applies an event of no task.
pub fn apply(model: &mut Model, kind: Kind) -> bool {
    let time = at(NOW);
    model.apply(&Event { v: SCHEMA_VERSION, time, task: TaskId::machine(), kind })
}

/// A second as a time.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A theme without colours.
pub fn theme(ascii: bool) -> Theme {
    Theme::new(&Palette::dark(), Depth::None, ascii)
}

/// The page without header and footer, of a screen of this size.
pub fn draw(model: &Model, ui: &mut Ui, ascii: bool, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height.saturating_sub(2));
    let mut buffer = Buffer::empty(area);
    draw_in(model, ui, (&theme(ascii), at(NOW)), area, &mut buffer);
    buffer
}

/// The page in `area`, twice where there is a log: once to know where that lies.
pub fn draw_in(
    model: &Model,
    ui: &mut Ui,
    (theme, now): (&Theme, Timestamp),
    area: Rect,
    buffer: &mut Buffer,
) {
    let keymap = Keymap::default();
    let before = buffer.clone();
    for _ in 0..2 {
        let mut spots = Spots::default();
        buffer.clone_from(&before);
        let scene = Scene { model, ui, keymap: &keymap, theme, now };
        match ui.page {
            Page::Overview => overview::draw(scene, area, buffer, &mut spots),
            page => pane_of(page, scene, area, buffer, &mut spots),
        }
        if let Some(log) = spots.log() {
            ui.lay_out_log(model, log);
        }
    }
}

/// What stands in it.
pub fn text(buffer: &Buffer) -> String {
    use unicode_width::UnicodeWidthStr;
    let area = buffer.area();
    let row = |y| {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide character takes the next cell as well.
            x += symbol.width().max(1) as u16;
        }
        line.trim_end().to_string() + "\n"
    };
    (0..area.height).map(row).collect()
}
