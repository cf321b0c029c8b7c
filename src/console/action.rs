//! What commands do, as values.

use crate::console::ui::page::Page;
use crate::terminal::search::Towards;

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave the console.
    Quit,
    /// Leave the console now.
    End,
    /// Give the shell back until `fg`.
    Suspend,
    /// Show a page.
    Go(Page),
    /// Give the keys to the next part (1) or the one before (-1).
    Part(isize),
    /// Have the part fill the page, or no more.
    Zoom,
    /// Close or undo the last thing.
    Back,
    /// Show more of what is selected.
    Open,
    /// Ask for a command by name.
    Palette,
    /// Show all commands.
    Help,
    /// Move the selection by so many rows.
    Step(isize),
    /// Move the selection by so many screens.
    Screen(isize),
    /// Move the selection to the first.
    First,
    /// Move the selection to the last.
    Last,
    /// Build the flake.
    Build,
    /// Build the flake even if nothing changed.
    Rebuild,
    /// Build the flake, boot it for as long as the console lives, and open a session.
    Run,
    /// Build the flake and boot it for good.
    RunDetached,
    /// Watch the flake's sources, or no more.
    Watch,
    /// End the selected task.
    CancelTask,
    /// Open ssh to the selected VM in a tab.
    Ssh,
    /// Open a shell of this machine in a tab.
    Shell,
    /// Shut the selected VM down.
    Stop,
    /// Shut the selected VM down and boot it again with its disks.
    Restart,
    /// Have the selected VM live on when the console ends.
    Detach,
    /// End the selected VM at once.
    Kill,
    /// Remove the selected VM.
    Delete,
    /// Forward a port to the selected VM.
    Forward,
    /// Sort by the next column.
    Sort,
    /// Turn the order round.
    Reverse,
    /// Build the watched flake again and put the VM in the place of the old one.
    Again,
    /// Go to the next (1) or the previous (-1) derivation that failed.
    Failed(isize),
    /// Forward a port no more.
    Unforward,
    /// Give the keys to the console of the selected VM.
    Console,
    /// Save the selected VM; it goes on.
    Snapshot,
    /// Save the selected VM and end it.
    SaveAndStop,
    /// Have the selected VM, which is over, go on from its snapshot.
    Restore,
    /// Start the cluster.
    ClusterUp,
    /// End the cluster.
    ClusterDown,
    /// Hide or show what is below the selected row.
    Fold,
    /// Hide or show what is below all tenants.
    FoldAll,
    /// Do something with the selected pool or instance.
    Fleet(FleetOp),
    /// Do something with the selected route.
    Route(RouteAct),
    /// Do something with the log.
    Log(LogOp),
    /// Show the next tab (1) or the one before (-1).
    Tab(isize),
    /// Close the tab.
    CloseTab,
    /// Open the tab's session again.
    Reconnect,
    /// Give the keys to the scrollback, or back to the program.
    Scrollback,
    /// Search the scrollback.
    FindText,
    /// Go to the match before (above) or the next (below).
    FindNext(Towards),
    /// Copy what is selected in the terminal, or all that is visible.
    CopyText,
}

/// What can be done with a pool or an instance of this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetOp {
    /// Set how many instances of the pool there are to be.
    Scale,
    /// Build the pool's flake.
    Build,
    /// Open ssh to the instance in a tab.
    Connect,
    /// Give the keys to the instance's console.
    Logs,
    /// Change the instance's state.
    Turn(Turn),
    /// Remove the instance.
    Destroy,
}

/// Changes of an instance's state that people ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Have it run, whatever state it is in.
    Wake,
    /// Save it to disk and end its process.
    Sleep,
    /// Halt it in memory.
    Warm,
    /// Boot it.
    Start,
    /// Shut it down; its disk stays.
    Stop,
}

impl Turn {
    /// As a verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Sleep => "sleep",
            Self::Warm => "warm",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// What can be done with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteAct {
    /// Have an instance awake, as a connection would.
    Wake,
    /// Let its instances go to sleep now.
    Sleep,
    /// Take nothing new, or take connections again.
    Drain,
    /// Connect to it in a tab.
    Dial,
    /// Follow the logs of coordinator and agent in a tab.
    Logs,
}

/// What can be done with a log without another word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOp {
    /// Follow new lines, or stay.
    Follow,
    /// Ask for words to look for.
    Search,
    /// Go to the next match.
    Next,
    /// Go to the match before.
    Previous,
    /// Ask for words that all lines shown are to have.
    Filter,
    /// Forget search, filter and selection.
    Clear,
    /// Wrap long lines, or cut them.
    Wrap,
    /// Show when lines were written, or not.
    Timestamps,
    /// Mark the line, or unmark it.
    Mark,
    /// Go to the next mark.
    NextMark,
    /// Go to the next error.
    NextError,
    /// Go to the error before.
    PreviousError,
    /// Select from this line on.
    Select,
    /// Copy the selected lines, or this one.
    Copy,
    /// Scroll to the left.
    Left,
    /// Scroll to the right.
    Right,
    /// Ask for a file to write the log into.
    Export,
}
