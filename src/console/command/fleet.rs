//! What can be done with the selected pool or instance, and else why not.

use super::{Model, Ui};
use crate::console::model::fleet::Instance;
use crate::fleet::state::{Change, InstanceState};

type Answer = Result<(), &'static str>;

/// There is a pool.
pub fn pool(model: &Model, ui: &Ui) -> Answer {
    ui.cluster.pool(model).map(|_| ()).ok_or("select a pool")
}

/// There is an instance.
pub fn instance(model: &Model, ui: &Ui) -> Answer {
    selected(model, ui).map(|_| ())
}

/// It has a VM.
pub fn has_vm(model: &Model, ui: &Ui) -> Answer {
    selected(model, ui)?.info.vm.as_ref().map(|_| ()).ok_or("the instance has not been started yet")
}

/// Its guest answers.
pub fn runs(model: &Model, ui: &Ui) -> Answer {
    has_vm(model, ui)?;
    match state(model, ui)? {
        InstanceState::Running => Ok(()),
        _ => Err("the instance does not run: wake it first"),
    }
}

/// It can be made to run.
pub fn wake(model: &Model, ui: &Ui) -> Answer {
    match state(model, ui)? {
        InstanceState::Running => Err("the instance runs"),
        InstanceState::Destroyed => Err("the instance is being removed"),
        _ => Ok(()),
    }
}

/// It can be saved.
pub fn sleep(model: &Model, ui: &Ui) -> Answer {
    allows(model, ui, Change::Sleep, "only what is running or warm can be put to sleep")
}

/// It can be halted.
pub fn warm(model: &Model, ui: &Ui) -> Answer {
    allows(model, ui, Change::Warm, "only what is running can be warmed")
}

/// It can be booted.
pub fn start(model: &Model, ui: &Ui) -> Answer {
    let state = state(model, ui)?;
    if state == InstanceState::Created || state.after(Change::Start).is_ok() {
        return Ok(());
    }
    Err("only what is stopped or failed can be started")
}

/// It can be shut down.
pub fn stop(model: &Model, ui: &Ui) -> Answer {
    allows(model, ui, Change::Stop, "the instance is not up")
}

fn allows(model: &Model, ui: &Ui, change: Change, else_why: &'static str) -> Answer {
    state(model, ui)?.after(change).map(|_| ()).map_err(|_| else_why)
}

fn state(model: &Model, ui: &Ui) -> Result<InstanceState, &'static str> {
    let name = selected(model, ui)?.info.state.as_str();
    let known = InstanceState::ALL.into_iter().find(|state| state.as_str() == name);
    known.ok_or("this mvm does not know its state")
}

fn selected<'a>(model: &'a Model, ui: &Ui) -> Result<&'a Instance, &'static str> {
    ui.cluster.instance(model).ok_or("select an instance")
}
