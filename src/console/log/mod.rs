//! A log as one sees it: build logs, guest consoles and notices are all this one thing.
//!
//! [`LogBuffer`] is what is true, [`LogState`] what one pane shows of it. A pane lays out
//! ([`LogState::layout`]), then draws ([`view::draw`]); a key is a [`LogAction`].

mod action;
mod buffer;
pub mod export;
mod glyph;
mod index;
mod jump;
mod layout;
mod line;
mod pattern;
mod place;
mod search;
mod sgr;
mod shown;
mod state;
mod status;
#[cfg(test)]
mod tests;
pub mod view;

pub use action::{LogAction, Outcome};
pub use buffer::{DEFAULT_LIMIT, LogBuffer, LogLine, Severity, SourceId};
pub use state::LogState;
