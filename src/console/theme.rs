//! What each part of the screen looks like, by its role.

use ratatui::style::{Color, Modifier, Style};

/// What a piece of text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Plain text.
    Text,
    /// Text of lesser weight.
    Dim,
    /// A pane's title.
    Title,
    /// A pane's border.
    Border,
    /// The border of the pane that has the keys.
    Focus,
    /// Names and numbers that matter.
    Accent,
    /// Done as wished.
    Ok,
    /// Under way.
    Busy,
    /// Something to know.
    Warning,
    /// Something to mend.
    Error,
    /// The line under the cursor.
    Selected,
    /// What a search found.
    Match,
    /// The match the search is at.
    CurrentMatch,
    /// A key in the footer or in the help.
    Key,
    /// A graph.
    Graph,
}

/// Signs, each with a plain ASCII stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Under way.
    Busy,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Cancelled or stopped.
    Ended,
    /// Alive.
    Alive,
    /// A branch of a tree with more below.
    Branch,
    /// The last branch of a tree.
    LastBranch,
    /// A trunk that goes on below.
    Trunk,
    /// Something was cut off here.
    Cut,
    /// A marked line.
    Mark,
}

/// Colours and signs for one terminal.
#[derive(Debug, Clone)]
pub struct Theme {
    /// Whether there are colours at all.
    pub colour: bool,
    /// Whether signs are plain ASCII.
    pub ascii: bool,
}

impl Theme {
    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        let style = Style::new();
        match role {
            Role::Selected => style.add_modifier(Modifier::REVERSED),
            Role::Title | Role::Focus | Role::Key => style.add_modifier(Modifier::BOLD),
            _ if !self.colour => style,
            Role::Dim | Role::Border => style.add_modifier(Modifier::DIM),
            Role::Ok => style.fg(Color::Green),
            Role::Busy => style.fg(Color::Yellow),
            Role::Error => style.fg(Color::Red),
            _ => style,
        }
    }

    /// A sign.
    pub fn sign(&self, sign: Sign) -> &'static str {
        let (sign, ascii) = match sign {
            Sign::Busy => ("⏵", ">"),
            Sign::Done => ("✔", "+"),
            Sign::Failed => ("✘", "x"),
            Sign::Ended => ("■", "-"),
            Sign::Alive => ("●", "*"),
            Sign::Branch => ("├", "|"),
            Sign::LastBranch => ("└", "`"),
            Sign::Trunk => ("│", "|"),
            Sign::Cut => ("…", "~"),
            Sign::Mark => ("▸", ">"),
        };
        if self.ascii { ascii } else { sign }
    }
}
