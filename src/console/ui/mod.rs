//! What the user does with the screen: where they look, what is selected, which dialog is open.

pub mod builds;
pub mod cluster;
pub mod dialog;
pub mod logs;
pub mod own_log;
pub mod page;
pub mod routes;
pub mod tabs;
pub mod vms;

use builds::BuildsUi;
use cluster::ClusterUi;
use dialog::Dialog;
use logs::LogPane;
use own_log::OwnLog;
use page::Page;
use routes::RoutesUi;
use tabs::Tabs;
use vms::VmsUi;

use crate::event::TaskId;

/// The state of the screen.
#[derive(Debug, Default)]
pub struct Ui {
    /// The page that fills the screen.
    pub page: Page,
    /// The tile of the overview that has the keys.
    pub tile: Page,
    /// Whether the part of the page that has the keys fills it.
    pub zoomed: bool,
    /// The builds page.
    pub builds: BuildsUi,
    /// The VMs page.
    pub vms: VmsUi,
    /// The cluster page.
    pub cluster: ClusterUi,
    /// The routes page.
    pub routes: RoutesUi,
    /// The log of the builds page.
    pub build_log: LogPane,
    /// The console of the VMs page.
    pub console_log: LogPane,
    /// The console of the cluster page.
    pub instance_log: LogPane,
    /// The terminal page.
    pub tabs: Tabs,
    /// The page of mvm's own log.
    pub own_log: OwnLog,
    /// What is asked.
    pub dialog: Option<Dialog>,
    /// A word to the user about their last key.
    pub word: Option<String>,
    /// The flake that is worked on.
    pub flake: Option<String>,
    /// Whether sources of the flake are watched.
    pub watching: bool,
    /// The runs whose VMs get a session in a tab as soon as they are ready.
    pub awaited: Vec<TaskId>,
}

impl Ui {
    /// The pane that has the keys: the page, or the overview's tile.
    pub fn pane(&self) -> Page {
        if self.page == Page::Overview { self.tile } else { self.page }
    }
}
