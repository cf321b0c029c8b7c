//! Where commands are of use.

use crate::console::ui::Ui;
use crate::console::ui::builds::Part as BuildsPart;
use crate::console::ui::cluster::Part as ClusterPart;
use crate::console::ui::page::Page;
use crate::console::ui::tabs::Keys;
use crate::console::ui::vms::Part as VmsPart;

/// Where a command is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On every page.
    Everywhere,
    /// On the builds page and its tile.
    Builds,
    /// On the VMs page and its tile.
    Vms,
    /// On the cluster page and its tile.
    Cluster,
    /// On the routes page and its tile.
    Routes,
    /// Where a log is shown.
    Log,
    /// In the terminal, after the prefix key.
    Terminal,
    /// In the scrollback of a terminal.
    Scrollback,
}

impl Place {
    /// All places, the narrow ones first.
    pub const ALL: [Self; 8] = [
        Self::Builds,
        Self::Vms,
        Self::Cluster,
        Self::Routes,
        Self::Log,
        Self::Terminal,
        Self::Scrollback,
        Self::Everywhere,
    ];

    /// What the help calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Everywhere => "Everywhere",
            Self::Builds => "Builds",
            Self::Vms => "VMs",
            Self::Cluster => "Cluster",
            Self::Routes => "Routes",
            Self::Log => "Logs",
            Self::Terminal => "Terminal, after the prefix key",
            Self::Scrollback => "Scrollback of a terminal",
        }
    }

    /// The page it lies on, where that is one.
    pub fn page(self) -> Option<Page> {
        match self {
            Self::Builds => Some(Page::Builds),
            Self::Vms => Some(Page::Vms),
            Self::Cluster => Some(Page::Cluster),
            Self::Routes => Some(Page::Routes),
            Self::Terminal | Self::Scrollback => Some(Page::Terminal),
            Self::Everywhere | Self::Log => None,
        }
    }

    /// How far it lies within others: where two share a key, the higher has it.
    pub fn narrowness(self) -> u8 {
        match self {
            Self::Everywhere => 0,
            Self::Scrollback => 2,
            _ => 1,
        }
    }

    /// Whether it is on the screen and takes its keys.
    pub fn is_here(self, ui: &Ui) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Builds => ui.pane() == Page::Builds,
            Self::Vms => ui.pane() == Page::Vms,
            Self::Cluster => ui.pane() == Page::Cluster,
            Self::Routes => ui.pane() == Page::Routes,
            Self::Log => shows_log(ui),
            Self::Terminal => {
                let typing = matches!(ui.tabs.keys, Keys::Search(_));
                ui.pane() == Page::Terminal && !ui.tabs.list.is_empty() && !typing
            }
            Self::Scrollback => ui.pane() == Page::Terminal && matches!(ui.tabs.keys, Keys::Scrollback),
        }
    }
}

/// Whether a log is on the screen that takes the log's keys.
fn shows_log(ui: &Ui) -> bool {
    match ui.page {
        Page::Builds => !ui.zoomed || ui.builds.part == BuildsPart::Log,
        Page::Vms => !ui.zoomed || ui.vms.part == VmsPart::Console,
        Page::Cluster => !ui.zoomed || ui.cluster.part == ClusterPart::Console,
        _ => false,
    }
}
