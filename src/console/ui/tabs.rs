//! Sessions in tabs.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;

use futures_util::future::select_all;
use tui_input::Input;

use super::page::neighbour;
use crate::terminal::Size;
use crate::terminal::pty::Exit;
use crate::terminal::search::Towards;
use crate::terminal::session::{Pumped, Session};

/// Most bytes taken in from a session before keys are looked at again.
const BUDGET: usize = 256 * 1024;

/// What runs in a tab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// ssh to a VM, by its id.
    Ssh(String),
    /// A shell of this machine.
    Shell,
    /// A connection to a TCP address.
    Dial(SocketAddr),
    /// What coordinator and agent of this state write.
    ClusterLogs,
}

/// A tab.
pub struct Tab {
    /// What runs in it.
    pub program: Program,
    /// Its name: the VM's, `shell`, the address, or `logs`.
    pub name: String,
    /// The session, while one could be started.
    pub session: Result<Session, String>,
    /// Whether something rang or ended while another tab was shown.
    pub calls: bool,
}

impl std::fmt::Debug for Tab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tab").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Tab {
    /// How its program ended, once it has.
    pub fn exit(&self) -> Option<Exit> {
        self.session.as_ref().ok().and_then(Session::exit)
    }

    /// Whether its program runs.
    pub fn is_live(&self) -> bool {
        self.session.is_ok() && self.exit().is_none()
    }
}

/// What keys do in the terminal.
#[derive(Debug, Default)]
pub enum Keys {
    /// They go to the program, but for the prefix.
    #[default]
    Program,
    /// The prefix was pressed: the next one is the console's.
    Prefixed,
    /// They move through the scrollback.
    Scrollback,
    /// They are what is searched for.
    Search(Input),
}

/// The terminal page.
#[derive(Debug, Default)]
pub struct Tabs {
    /// The tabs, in order.
    pub list: Vec<Tab>,
    /// The number of the one shown.
    pub active: usize,
    /// What keys do.
    pub keys: Keys,
    size: Option<Size>,
}

impl Tabs {
    /// The tab shown.
    pub fn tab(&self) -> Option<&Tab> {
        self.list.get(self.active)
    }

    /// The session shown.
    pub fn session(&mut self) -> Option<&mut Session> {
        self.list.get_mut(self.active)?.session.as_mut().ok()
    }

    /// Whether a program takes the keys.
    pub fn has_program(&self) -> bool {
        self.tab().is_some_and(Tab::is_live)
    }

    /// Adds a tab and shows it.
    pub fn open(&mut self, tab: Tab) {
        self.list.push(tab);
        self.show(self.list.len() - 1);
    }

    /// Shows a tab.
    pub fn show(&mut self, index: usize) {
        self.active = index.min(self.list.len().saturating_sub(1));
        self.keys = Keys::Program;
        if let Some(tab) = self.list.get_mut(self.active) {
            tab.calls = false;
        }
    }

    /// Shows a neighbour of the tab shown.
    pub fn turn(&mut self, by: isize) {
        let all: Vec<usize> = (0..self.list.len()).collect();
        if !all.is_empty() {
            self.show(neighbour(&all, self.active, by));
        }
    }

    /// Closes the tab shown; its program is hung up.
    pub fn close(&mut self) {
        if self.active < self.list.len() {
            self.list.remove(self.active);
            self.show(self.active);
        }
    }

    /// Asks all programs to end, so that dropping them need not wait for each in turn.
    pub fn hang_up(&mut self) {
        self.list.iter_mut().filter_map(|tab| tab.session.as_mut().ok()).for_each(Session::hang_up);
    }

    /// The size of the screens, once it is known.
    pub fn size(&self) -> Size {
        self.size.unwrap_or(Size::new(80, 24))
    }

    /// Gives all screens a size.
    pub fn resize(&mut self, size: Size) {
        if self.size == Some(size) {
            return;
        }
        self.size = Some(size);
        for session in self.list.iter_mut().filter_map(|tab| tab.session.as_mut().ok()) {
            session.resize(size);
        }
    }

    /// Waits until a session has something to say; gives its number.
    pub async fn ready(&self) -> usize {
        let mut waits = Vec::new();
        for (index, tab) in self.list.iter().enumerate() {
            if let Ok(session) = &tab.session {
                waits.push(Box::pin(async move {
                    session.ready().await;
                    index
                }));
            }
        }
        match waits.is_empty() {
            true => pending().await,
            false => pin!(select_all(waits)).await.0,
        }
    }

    /// Takes in what a session has to say.
    pub fn pump(&mut self, index: usize) -> Pumped {
        let Some(tab) = self.list.get_mut(index) else { return Pumped::default() };
        let Ok(session) = &mut tab.session else { return Pumped::default() };
        let pumped = session.pump(BUDGET);
        tab.calls |= index != self.active && (pumped.effects.bell || pumped.exit.is_some());
        pumped
    }

    /// Searches the scrollback for `text`, upwards from the end.
    pub fn search(&mut self, text: &str) -> bool {
        let Some(session) = self.session() else { return false };
        let screen = session.screen_mut();
        screen.clear_selection();
        screen.search(text);
        text.is_empty() || screen.search_on(Towards::Older)
    }

    /// Leaves the scrollback.
    pub fn return_to_program(&mut self) {
        self.keys = Keys::Program;
        if let Some(session) = self.session() {
            let screen = session.screen_mut();
            screen.clear_selection();
            screen.search("");
            screen.scroll_to_bottom();
        }
    }
}
