//! What is selected among tasks, and in the tree of one.

use super::page::step;
use crate::console::model::Model;
use crate::console::model::task::TaskModel;
use crate::event::TaskId;

/// Parts of the builds page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The list of tasks.
    #[default]
    Tasks,
    /// The derivations of the selected task.
    Tree,
    /// The log.
    Log,
}

impl Part {
    /// All parts, in the order in which Tab goes through them.
    pub const ALL: [Self; 3] = [Self::Tasks, Self::Tree, Self::Log];
}

/// What the cursor is on in a task's tree, from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cursor {
    /// The task itself.
    #[default]
    Task,
    /// A line of its error.
    Error(usize),
    /// A derivation, by its store path: it is followed wherever its row goes.
    Derivation(String),
}

/// The builds page.
#[derive(Debug, Default)]
pub struct BuildsUi {
    /// The part that has the keys.
    pub part: Part,
    /// The selected task; the newest while none was chosen.
    selected: Option<TaskId>,
    /// The task the cursor was moved in, and where it is.
    cursor: Option<(TaskId, Cursor)>,
}

impl BuildsUi {
    /// The selected task.
    pub fn task<'a>(&self, model: &'a Model) -> Option<&'a TaskModel> {
        self.selected.as_ref().and_then(|id| model.task(id)).or(model.tasks.first())
    }

    /// Selects a task.
    pub fn select(&mut self, id: TaskId) {
        self.selected = Some(id);
    }

    /// Where the cursor is in the tree of `task`.
    pub fn cursor(&self, task: &TaskModel) -> &Cursor {
        match &self.cursor {
            Some((id, Cursor::Derivation(drv))) if *id == task.id && task.tree.find(drv).is_none() => {
                &Cursor::Task
            }
            Some((id, cursor)) if *id == task.id => cursor,
            _ => &Cursor::Task,
        }
    }

    /// The derivation whose log is to be shown; that of the whole task when absent.
    pub fn source(&self, model: &Model) -> Option<&str> {
        match self.cursor(self.task(model)?) {
            Cursor::Derivation(drv) => Some(drv),
            Cursor::Task | Cursor::Error(_) => None,
        }
    }

    /// Moves the selection in the part that has the keys; on the overview, where no log has them,
    /// among tasks.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        match self.part {
            Part::Tasks | Part::Log => self.move_task(model, by),
            Part::Tree => self.move_cursor(model, by),
        }
    }

    fn move_task(&mut self, model: &Model, by: isize) {
        let current = self.task(model).and_then(|task| model.tasks.iter().position(|one| one.id == task.id));
        self.selected = step(current, by, model.tasks.len()).map(|at| model.tasks[at].id.clone());
    }

    fn move_cursor(&mut self, model: &Model, by: isize) {
        let Some(task) = self.task(model) else { return };
        let errors = task.error_lines().count();
        let current = match self.cursor(task) {
            Cursor::Task => 0,
            Cursor::Error(line) => (line + 1).min(errors),
            Cursor::Derivation(drv) => 1 + errors + task.tree.find(drv).map_or(0, |at| task.tree.row_of(at)),
        };
        let to = step(Some(current), by, 1 + errors + task.tree.len()).unwrap_or(0);
        let cursor = match to.checked_sub(1) {
            None => Cursor::Task,
            Some(line) if line < errors => Cursor::Error(line),
            Some(row) => match task.tree.at_row(row - errors).and_then(|at| task.tree.get(at)) {
                Some(it) => Cursor::Derivation(it.drv.clone()),
                None => Cursor::Task,
            },
        };
        self.put(task.id.clone(), cursor);
    }

    /// Puts the cursor on the next (1) or the previous (-1) derivation that failed, round the ends;
    /// on the error where none is known. Returns whether there is any.
    pub fn jump(&mut self, model: &Model, by: isize) -> bool {
        let Some(task) = self.task(model) else { return false };
        let here = match self.cursor(task) {
            Cursor::Derivation(drv) => task.tree.find(drv),
            Cursor::Task | Cursor::Error(_) => None,
        };
        let failed = task.tree.failed();
        let next = match here {
            Some(at) if by > 0 => failed.range(at + 1..).next().or(failed.first()),
            Some(at) => failed.range(..at).next_back().or(failed.last()),
            None if by > 0 => failed.first(),
            None => failed.last(),
        };
        let cursor = match next.and_then(|at| task.tree.get(*at)) {
            Some(it) => Cursor::Derivation(it.drv.clone()),
            None if task.error_lines().next().is_some() => Cursor::Error(0),
            None => return false,
        };
        self.put(task.id.clone(), cursor);
        true
    }

    /// The task stays selected while newer ones come, once something in it was looked at.
    fn put(&mut self, task: TaskId, cursor: Cursor) {
        self.selected = Some(task.clone());
        self.cursor = Some((task, cursor));
    }
}

#[cfg(test)]
mod tests;
