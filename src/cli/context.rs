//! What every command works with.

use std::io::Write;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::fleet;
use crate::headless::Mode;
use crate::host::files::Lock;
use crate::host::paths::Paths;
use crate::host::reserve;
use crate::store::Store;
use crate::vm::lifecycle;

/// Paths, database and wishes about output.
pub struct Context {
    /// Directories.
    pub paths: Paths,
    /// Database, squared with what runs.
    pub store: Store,
    /// `--json`.
    pub json: bool,
    /// `--verbose`.
    pub verbose: bool,
    /// Whether standard output belongs to a command in the guest.
    pub stdout_taken: bool,
    /// `--no-tui`.
    pub no_tui: bool,
}

impl Context {
    /// Opens the state and squares it with the locks that are held. Where the disk is full, what `frees` some of it
    /// has the space that was kept back for it.
    pub fn open(no_tui: bool, json: bool, verbose: bool, frees: bool) -> Result<Self> {
        let paths = Paths::find()?;
        if frees && reserve::give_back(paths.state()) {
            say("warning: the disk is full; what was kept back for this is used to free some of it");
        }
        let mut opened = Store::open(&paths.database())?;
        reserve::keep(paths.state());
        if let Some(aside) = opened.set_aside {
            say(&format!("warning: the state database was damaged; it was set aside as {}", aside.display()));
        }
        // It may have been set aside by a process that had nobody to tell.
        let adopted = lifecycle::adopt(&paths, &mut opened.store)?;
        if !adopted.is_empty() {
            say(&format!("note: found and recorded again: {}", adopted.join(", ")));
        }
        for name in lifecycle::square(&paths, &mut opened.store)? {
            say(&format!("note: the VM `{name}` had ended without a word; it is marked as failed"));
        }
        for text in fleet::square::square(&paths, &mut opened.store)? {
            say(&format!("note: {text}"));
        }
        Ok(Self { paths, store: opened.store, json, verbose, stdout_taken: false, no_tui })
    }

    /// Keeps a second server of this name off this state, as long as the lock is held.
    pub fn serve_alone(&self, name: &str) -> Result<Lock> {
        let dir = self.paths.cluster();
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        let file = dir.join(name).with_extension("lock");
        let lock = Lock::try_take(&file).with_context(|| format!("cannot write `{}`", file.display()))?;
        let state = self.paths.state().display();
        lock.with_context(|| {
            format!("another {name} serves the state `{state}` already\nhelp: end that one first, or use another MVM_STATE_DIR")
        })
    }

    /// How a task's events are shown.
    pub fn mode(&self) -> Mode {
        // A job in the background would be stopped for asking the terminal where its cursor is.
        let foreground =
            nix::unistd::tcgetpgrp(std::io::stderr()).is_ok_and(|group| group == nix::unistd::getpgrp());
        let terminal = foreground && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        match () {
            () if self.json && self.stdout_taken => Mode::JsonAside,
            () if self.json => Mode::Json,
            () if self.no_tui || self.verbose || !terminal || std::env::var_os("CI").is_some() => Mode::Plain,
            () => Mode::Inline,
        }
    }
}

/// Writes one line to standard error.
pub fn say(line: &str) {
    // Nobody reads: nothing to be done.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes one line to standard output, as a result.
pub fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Writes a value to standard output as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}
