//! The console's screens, drawn from the recording that `mvm tui --demo` plays.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use mvm::console::chord::Chord;
use mvm::console::keymap::Keymap;
use mvm::console::model::Model;
use mvm::console::recording::Recording;
use mvm::console::theme::{Depth, Palette, Theme};
use mvm::console::ui::Ui;
use mvm::console::ui::page::Page;
use mvm::console::view::{self, Scene};
use mvm::event::Event;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

mod pages;
mod picture;
mod svg;

/// What is known at one moment of the recording, whose clock stands still there.
struct Moment {
    model: Model,
    now: Timestamp,
}

impl Moment {
    /// The moment after the first event for which `is_it`, or the end.
    fn after(mut is_it: impl FnMut(&Event) -> bool) -> Self {
        let mut moment = Self { model: Model::default(), now: Timestamp::MIN };
        for event in Recording::built_in().unwrap().events {
            moment.now = moment.now.max(event.time);
            moment.model.apply(&event);
            if is_it(&event) {
                break;
            }
        }
        moment
    }

    fn end() -> Self {
        Self::after(|_| false)
    }

    fn draw(&self, page: Page, (width, height): (u16, u16), theme: &Theme) -> Buffer {
        let ui = Ui { page, ..Ui::default() };
        let keymap = Keymap::new(Chord::ctrl('b'), &BTreeMap::new());
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let scene = Scene { model: &self.model, ui: &ui, keymap: &keymap, theme, now: self.now };
        view::draw(scene, area, &mut buffer);
        buffer
    }
}

fn dark() -> Theme {
    Theme::new(&Palette::dark(), Depth::True, false)
}

fn light() -> Theme {
    Theme::new(&Palette::light(), Depth::True, false)
}

fn colourless() -> Theme {
    Theme::new(&Palette::dark(), Depth::None, false)
}

/// What stands on the screen.
fn text(buffer: &Buffer) -> String {
    let area = buffer.area();
    let row = |y| {
        let (mut line, mut x) = (String::new(), 0);
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
