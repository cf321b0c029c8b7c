//! What the console asks.

use tui_input::Input;

use crate::console::action::Action;
use crate::fleet::ids::{InstancePath, PoolPath};

/// An open dialog.
#[derive(Debug)]
pub enum Dialog {
    /// Yes or no.
    Confirm {
        /// What is asked.
        question: String,
        /// What is done on yes.
        action: Confirmed,
    },
    /// A command by its name.
    Palette {
        /// What was typed.
        input: Input,
        /// The selected one among those that match.
        cursor: usize,
    },
    /// All commands with their keys.
    Help {
        /// First line shown.
        top: u16,
    },
    /// One line of text.
    Prompt {
        /// What is asked for.
        title: String,
        /// What was typed.
        input: Input,
        /// What it is for.
        purpose: Purpose,
        /// What is wrong with what was typed last.
        problem: Option<String>,
    },
}

/// What is done once it was confirmed: to what was asked about, whatever is selected by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// Leave the console.
    Quit,
    /// Close the tab shown.
    CloseTab,
    /// End a VM at once, by its id.
    Kill(String),
    /// Save a VM and end it, by its id.
    SaveAndStop(String),
    /// Remove a VM, by its id.
    Delete(String),
    /// Remove an instance.
    Destroy(InstancePath),
    /// End the cluster.
    ClusterDown,
}

impl Purpose {
    /// What stands before a line that is typed at the foot of the screen, as it changes what is above.
    pub fn at_the_foot(&self) -> Option<&'static str> {
        match self {
            Self::Search => Some("/"),
            Self::Filter => Some("&"),
            _ => None,
        }
    }
}

/// What a line of text is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The flake to build, then what to do with it.
    Flake(Action),
    /// A port to forward to a VM, by its id.
    Forward(String),
    /// What to look for in the log; looked for while it is typed.
    Search,
    /// What all lines of the log that are shown are to have.
    Filter,
    /// The file to write the log into.
    Export,
    /// How many instances of a pool there are to be: running, warm, sleeping.
    Scale(PoolPath),
}
