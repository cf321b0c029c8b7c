//! What each page shows of a log.

use ratatui::layout::Rect;

use crate::console::log::{LogAction, LogBuffer, LogState, Outcome, SourceId};
use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::event::TaskId;

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Task(TaskId),
    Vm(String),
}

/// A log on a page.
#[derive(Debug, Default)]
pub struct LogPane {
    /// What is shown of it.
    pub state: LogState,
    subject: Option<Subject>,
    source: Option<SourceId>,
    area: Rect,
}

impl LogPane {
    /// Puts lines on the rows of the pane, which lies in `area`.
    fn lay_out(&mut self, log: &LogBuffer, subject: Subject, source: Option<SourceId>, area: Rect) {
        if self.subject.as_ref() != Some(&subject) {
            self.state = self.state.anew();
            (self.subject, self.source) = (Some(subject), None);
        }
        if self.source != source {
            self.source = source;
            // Only which lines are shown changes.
            let _ = self.state.act(log, LogAction::FilterSource(source));
        }
        self.area = area;
        self.state.layout(log, area.width, area.height);
    }

    /// Where it lies.
    pub fn area(&self) -> Rect {
        self.area
    }
}

/// The log on the page that is shown.
fn log<'a>(page: Page, ui: &Ui, model: &'a Model) -> Option<(&'a LogBuffer, Subject, Option<SourceId>)> {
    match page {
        Page::Builds => {
            let task = ui.builds.task(model)?;
            let source = ui.builds.source(model).and_then(|drv| task.source(drv));
            Some((&task.log, Subject::Task(task.id.clone()), source))
        }
        Page::Vms => {
            let vm = ui.vms.vm(model)?;
            Some((&vm.console, Subject::Vm(vm.id.clone()), None))
        }
        Page::Cluster => {
            let vm = model.vm(ui.cluster.instance(model)?.info.vm.as_ref()?)?;
            Some((&vm.console, Subject::Vm(vm.id.clone()), None))
        }
        _ => None,
    }
}

fn pane_mut(page: Page, ui: &mut Ui) -> &mut LogPane {
    match page {
        Page::Builds => &mut ui.build_log,
        Page::Cluster => &mut ui.instance_log,
        _ => &mut ui.console_log,
    }
}

impl Ui {
    /// The log pane of the page.
    pub fn log_pane(&self) -> Option<&LogPane> {
        match self.page {
            Page::Builds => Some(&self.build_log),
            Page::Vms => Some(&self.console_log),
            Page::Cluster => Some(&self.instance_log),
            _ => None,
        }
    }

    /// Where the log was drawn last.
    pub fn log_area(&self) -> Option<Rect> {
        self.log_pane().map(LogPane::area)
    }

    /// Prepares the log of the page for drawing in `area`.
    pub fn lay_out_log(&mut self, model: &Model, area: Rect) {
        let Some((buffer, subject, source)) = log(self.page, self, model) else { return };
        let pane = pane_mut(self.page, self);
        pane.lay_out(buffer, subject, source, area);
    }

    /// Does something with the log of the page. Text it gives is to be copied.
    pub fn act_on_log(&mut self, model: &Model, action: LogAction) -> Option<String> {
        let (buffer, ..) = log(self.page, self, model)?;
        let pane = pane_mut(self.page, self);
        match pane.state.act(buffer, action) {
            Outcome::Copy(text) => Some(text),
            Outcome::Changed => None,
        }
    }

    /// The log of the page as it is shown, to be written into a file.
    pub fn shown_log<'a>(&'a self, model: &'a Model) -> Option<(&'a LogBuffer, &'a LogState)> {
        let (buffer, ..) = log(self.page, self, model)?;
        Some((buffer, &self.log_pane()?.state))
    }

    /// Whether more of the log is to be looked at for filter or search.
    pub fn is_scanning(&self, model: &Model) -> bool {
        self.shown_log(model).is_some_and(|(buffer, state)| state.is_scanning(buffer))
    }
}
