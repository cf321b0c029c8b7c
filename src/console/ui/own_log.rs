//! The page of mvm's own log.

use tui_logger::{TuiWidgetEvent, TuiWidgetState};

/// How mvm's own log is looked at.
#[derive(Default)]
pub struct OwnLog {
    /// The widget's own state.
    pub state: TuiWidgetState,
}

impl std::fmt::Debug for OwnLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnLog").finish_non_exhaustive()
    }
}

impl OwnLog {
    /// Scrolls by pages, whichever way; to the end when it is far.
    pub fn move_by(&mut self, by: isize) {
        self.state.transition(match by {
            isize::MIN..0 => TuiWidgetEvent::PrevPageKey,
            0..1000 => TuiWidgetEvent::NextPageKey,
            _ => TuiWidgetEvent::EscapeKey,
        });
    }
}
