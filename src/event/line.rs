//! An event as a line of JSON.

use serde::Deserialize;

use super::{Event, SCHEMA_VERSION};

/// What a line holds.
#[derive(Debug)]
pub enum Line {
    /// An event.
    Event(Box<Event>),
    /// An event that only a newer mvm knows.
    Unknown,
    /// Nothing of the kind, and why not.
    Garbage(serde_json::Error),
}

impl Line {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Any {
            v: u32,
            event: String,
        }
        match serde_json::from_slice(line) {
            Ok(event) => Self::Event(Box::new(event)),
            Err(error) => match serde_json::from_slice::<Any>(line) {
                Ok(Any { v, event }) if v >= SCHEMA_VERSION && !event.is_empty() => Self::Unknown,
                _ => Self::Garbage(error),
            },
        }
    }
}
