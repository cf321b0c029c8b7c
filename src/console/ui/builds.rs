//! What is selected among tasks.

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

/// The builds page.
#[derive(Debug, Default)]
pub struct BuildsUi {
    /// The part that has the keys.
    pub part: Part,
    /// The selected task; the newest while none was chosen.
    selected: Option<TaskId>,
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

    /// Moves the selection among tasks.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        let current = self.task(model).and_then(|task| model.tasks.iter().position(|one| one.id == task.id));
        self.selected = step(current, by, model.tasks.len()).map(|at| model.tasks[at].id.clone());
    }
}
