//! What a command asks for beyond changing the screen's state.

use std::io;

use super::{App, End, Next};
use crate::console::act::Effect;
use crate::console::screen::Screen;
use crate::console::ui::page::Page;
use crate::console::ui::tabs::{Program, Tab};
use crate::console::work::Job;
use crate::event::TaskId;
use crate::terminal::session::Pumped;

impl App {
    /// Does what a command asks for.
    pub(super) fn perform(&mut self, effect: Effect, screen: &mut Screen) -> io::Result<Next> {
        match effect {
            Effect::Work(job) => drop(self.work(job)),
            Effect::WorkThenOpen(job) => {
                let task = self.work(job);
                self.ui.awaited.extend(task);
            }
            Effect::Suspend => screen.suspend()?,
            Effect::Quit => return Ok(Next::Leave(End::Left)),
            Effect::Open(program) => {
                if let Some(tab) = self.session(program) {
                    self.ui.tabs.open(tab);
                    self.ui.page = Page::Terminal;
                }
            }
            Effect::Reopen(program) => {
                if let Some(tab) = self.session(program) {
                    self.ui.tabs.list[self.ui.tabs.active] = tab;
                }
            }
            Effect::Export(path) => {
                let Some((log, state)) = self.ui.shown_log(&self.model) else { return Ok(Next::Stay) };
                let word = match state.export(log, &path) {
                    Ok(1) => format!("wrote 1 line to {}", path.display()),
                    Ok(lines) => format!("wrote {lines} lines to {}", path.display()),
                    Err(error) => error.to_string().replace('\n', "; "),
                };
                self.ui.word = Some(word);
            }
            Effect::Copy(text) => {
                let word = match screen.copy(&text) {
                    Ok(()) => format!("copied {} characters", text.chars().count()),
                    Err(error) => error.to_string(),
                };
                self.ui.word = Some(word);
            }
        }
        Ok(Next::Stay)
    }

    /// Has a job done; a task among them is what is looked at from now on.
    pub(super) fn work(&mut self, job: Job) -> Option<TaskId> {
        let is_task = job.task().is_some();
        let taken = self.backing.take(job);
        let id = self.unless_demo(taken)?;
        if is_task {
            self.ui.builds.select(id.clone());
        }
        Some(id)
    }

    fn session(&mut self, program: Program) -> Option<Tab> {
        let tab = self.backing.session(program, &self.model, self.ui.tabs.size(), self.scrollback);
        self.unless_demo(tab)
    }

    /// Says why there is nothing.
    fn unless_demo<T>(&mut self, done: Option<T>) -> Option<T> {
        if done.is_none() {
            self.ui.word = Some("this is a demo: nothing is done".into());
        }
        done
    }

    /// Takes in what a session has to say.
    pub(super) fn pump(&mut self, index: usize, screen: &mut Screen) -> io::Result<Next> {
        let shown = self.ui.page == Page::Terminal && self.ui.tabs.active == index;
        let Pumped { effects, exit, .. } = self.ui.tabs.pump(index);
        self.stale |= effects.changed && shown || effects.title || effects.bell || exit.is_some();
        if effects.failed {
            let word = "the terminal could not make sense of what came, and starts anew";
            tracing::error!("{word}");
            self.ui.word = Some(word.into());
            self.stale = true;
        }
        if effects.bell {
            screen.bell()?;
        }
        match effects.clipboard {
            Some(text) => {
                self.stale = true;
                self.perform(Effect::Copy(text), screen)
            }
            None => Ok(Next::Stay),
        }
    }
}
