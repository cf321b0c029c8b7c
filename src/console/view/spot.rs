//! What lies where on the screen, so that the mouse finds it.

use ratatui::layout::{Position, Rect};

use crate::console::command::Action;
use crate::console::ui::page::Page;
use crate::event::TaskId;

/// Something on the screen that can be pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// A command.
    Command(Action),
    /// A pane, which gets the keys.
    Pane(Page),
    /// A task in the list.
    Task(TaskId),
    /// A VM in the table, by its id.
    Vm(String),
    /// A row of the cluster's tree, by its path.
    Row(String),
    /// A route in the table, by where it listens.
    Route(String),
    /// A command in the palette, by its row.
    Choice(usize),
    /// Yes or no.
    Answer(bool),
    /// The screen of the session in the tab.
    Screen,
    /// A log's lines.
    Log,
    /// A tab, by its number.
    Tab(usize),
}

/// Spots of one frame; later ones lie above earlier ones.
#[derive(Debug, Default)]
pub struct Spots(Vec<(Rect, Spot)>);

impl Spots {
    /// Adds a spot.
    pub fn add(&mut self, area: Rect, spot: Spot) {
        self.0.push((area, spot));
    }

    /// Takes away what lies below something new.
    pub fn cover(&mut self, area: Rect) {
        self.0.retain(|(below, _)| !area.intersects(*below));
    }

    /// Where the log's lines are.
    pub fn log(&self) -> Option<Rect> {
        self.0.iter().find(|(_, spot)| *spot == Spot::Log).map(|(area, _)| *area)
    }

    /// What lies at a place, and where it begins.
    pub fn at(&self, place: Position) -> Option<&(Rect, Spot)> {
        self.0.iter().rev().find(|(area, _)| area.contains(place))
    }
}
