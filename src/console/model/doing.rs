//! What goes on besides builds and copies, e.g. that Nix connects to another machine.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::event::text::strip;
use crate::event::{Activity, Kind};

/// Activities told apart at once.
const MOST: usize = 64;

/// Activities under way that are in Nix's own words.
#[derive(Debug, Clone, Default)]
pub struct Doing {
    /// By their beginning and their id.
    running: BTreeMap<(Timestamp, u64), String>,
}

impl Doing {
    /// Takes an event in. Returns whether anything has changed.
    pub fn apply(&mut self, kind: &Kind, time: Timestamp) -> bool {
        match kind {
            Kind::ActivityStarted {
                id,
                what: Activity::Other { text } | Activity::Evaluate { text },
                ..
            } if self.running.len() < MOST => {
                self.running.insert((time, *id), strip(text));
                true
            }
            Kind::ActivityStopped { id } => {
                let before = self.running.len();
                self.running.retain(|(_, known), _| known != id);
                self.running.len() < before
            }
            Kind::TaskEnded { .. } => {
                self.running.clear();
                true
            }
            _ => false,
        }
    }

    /// What began last, and when.
    pub fn last(&self) -> Option<(&str, Timestamp)> {
        self.running.last_key_value().map(|((time, _), text)| (text.as_str(), *time))
    }
}
