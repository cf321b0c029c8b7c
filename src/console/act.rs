//! What each command changes, and what it asks the rest of mvm to do.

use tui_input::Input;

use super::command::Action;
use super::model::Model;
use super::ui::Ui;
use super::ui::builds::Part as BuildsPart;
use super::ui::dialog::{Dialog, Purpose};
use super::ui::page::{Page, neighbour};
use super::ui::vms::Part as VmsPart;
use super::work::{Job, RunWish};
use crate::run::wish::BuildWish;

/// What the app has to do beyond changing the screen's state.
#[derive(Debug)]
pub enum Effect {
    /// Have it done by the worker.
    Work(Job),
    /// The same, and open a session once the VM is ready.
    WorkThenOpen(Job),
    /// Open ssh to a VM, by its id, in a tab.
    OpenSsh(String),
    /// Open a shell in a tab.
    OpenShell,
    /// Suspend.
    Suspend,
    /// Leave.
    Quit,
}

/// Does a command. A word is for the user, when it cannot be done.
pub fn act(action: Action, model: &Model, ui: &mut Ui) -> Result<Option<Effect>, String> {
    match action {
        Action::Quit => return Ok(quit(model, ui)),
        Action::End => return Ok(Some(Effect::Quit)),
        Action::Suspend => return Ok(Some(Effect::Suspend)),
        Action::Go(page) => {
            ui.page = page;
            ui.zoomed = false;
        }
        Action::Part(by) => part(ui, by),
        Action::Zoom => zoom(ui),
        Action::Open => open(ui),
        Action::Back => back(ui),
        Action::Palette => ui.dialog = Some(Dialog::Palette { input: Input::default(), cursor: 0 }),
        Action::Help => ui.dialog = Some(Dialog::Help { top: 0 }),
        Action::Step(by) => move_by(model, ui, by),
        Action::Screen(by) => move_by(model, ui, by * 10),
        Action::First => move_by(model, ui, isize::MIN / 2),
        Action::Last => move_by(model, ui, isize::MAX / 2),
        Action::Build | Action::Rebuild | Action::Run | Action::RunDetached => {
            let Some(flake) = flake(model, ui) else {
                ask_flake(ui, action);
                return Ok(None);
            };
            return Ok(Some(build(action, flake)));
        }
        Action::Watch => ui.watching = !ui.watching,
        Action::CancelTask => {
            let task = ui.builds.task(model).map(|task| task.id.clone());
            return Ok(task.map(|task| Effect::Work(Job::Cancel(task))));
        }
        Action::Ssh => return Ok(vm(model, ui).map(Effect::OpenSsh)),
        Action::Shell => return Ok(Some(Effect::OpenShell)),
        Action::Stop => {
            return Ok(vm(model, ui).map(|vm| Effect::Work(Job::Stop { vm, at_once: false })));
        }
        Action::Kill | Action::Delete => confirm(model, ui, action),
        Action::Forward => {
            let Some(vm) = ui.vms.vm(model) else { return Ok(None) };
            let title = format!("Forward to {}: HOST:GUEST", vm.name);
            let purpose = Purpose::Forward(vm.id.clone());
            ui.dialog = Some(Dialog::Prompt { title, input: Input::default(), purpose });
        }
        Action::Sort => ui.vms.next_column(),
        Action::Reverse => ui.vms.reverse = !ui.vms.reverse,
    }
    Ok(None)
}

/// Does what a dialog was opened for, now that it was answered with yes.
pub fn confirmed(action: Action, model: &Model, ui: &Ui) -> Option<Effect> {
    match action {
        Action::Quit => Some(Effect::Quit),
        Action::Kill => vm(model, ui).map(|vm| Effect::Work(Job::Stop { vm, at_once: true })),
        Action::Delete => vm(model, ui).map(|vm| Effect::Work(Job::Delete(vm))),
        _ => None,
    }
}

/// Does what a line of text was asked for.
pub fn answered(purpose: Purpose, text: String, ui: &mut Ui) -> Option<Effect> {
    match purpose {
        Purpose::Flake(action) => {
            ui.flake = Some(text.clone());
            Some(build(action, text))
        }
        Purpose::Forward(_) => None,
    }
}

fn quit(model: &Model, ui: &mut Ui) -> Option<Effect> {
    let under_way = model.tasks.iter().filter(|task| task.own && task.ended.is_none()).count();
    if under_way == 0 {
        return Some(Effect::Quit);
    }
    let question = format!("{under_way} under way will be cancelled. Quit?");
    ui.dialog = Some(Dialog::Confirm { question, action: Action::Quit });
    None
}

fn confirm(model: &Model, ui: &mut Ui, action: Action) {
    let Some(vm) = ui.vms.vm(model) else { return };
    let question = match action {
        Action::Kill => format!("End {} at once, without asking the guest?", vm.name),
        _ => format!("Remove {} with its disks and logs?", vm.name),
    };
    ui.dialog = Some(Dialog::Confirm { question, action });
}

fn build(action: Action, flake: String) -> Effect {
    let wish = BuildWish { flake, rebuild: action == Action::Rebuild, ..BuildWish::default() };
    let run =
        |detach| Job::Run(RunWish { build: wish.clone(), name: None, detach, replaces: None, trigger: None });
    match action {
        Action::Run => Effect::WorkThenOpen(run(false)),
        Action::RunDetached => Effect::Work(run(true)),
        _ => Effect::Work(Job::Build(wish)),
    }
}

fn flake(_model: &Model, ui: &Ui) -> Option<String> {
    ui.flake.clone()
}

fn ask_flake(ui: &mut Ui, action: Action) {
    let title = "Flake (a directory, or any reference Nix knows)".into();
    ui.dialog = Some(Dialog::Prompt { title, input: Input::default(), purpose: Purpose::Flake(action) });
}

fn vm(model: &Model, ui: &Ui) -> Option<String> {
    ui.vms.vm(model).map(|vm| vm.id.clone())
}

fn part(ui: &mut Ui, by: isize) {
    match ui.page {
        Page::Overview => ui.tile = neighbour(&Page::TILES, ui.tile, by),
        Page::Builds => ui.builds.part = neighbour(&BuildsPart::ALL, ui.builds.part, by),
        Page::Vms => ui.vms.part = neighbour(&VmsPart::ALL, ui.vms.part, by),
        _ => {}
    }
}

fn zoom(ui: &mut Ui) {
    match ui.page {
        Page::Overview => ui.page = ui.tile,
        _ => ui.zoomed = !ui.zoomed,
    }
}

fn open(ui: &mut Ui) {
    match ui.page {
        Page::Overview => ui.page = ui.tile,
        Page::Builds if ui.builds.part != BuildsPart::Log => ui.builds.part = BuildsPart::Log,
        Page::Vms => ui.vms.part = VmsPart::Console,
        _ => {}
    }
}

fn back(ui: &mut Ui) {
    if ui.zoomed {
        ui.zoomed = false;
    } else if ui.page != Page::Overview {
        ui.tile = if Page::TILES.contains(&ui.page) { ui.page } else { ui.tile };
        ui.page = Page::Overview;
    }
}

fn move_by(model: &Model, ui: &mut Ui, by: isize) {
    match ui.pane() {
        Page::Builds => ui.builds.move_by(model, by),
        Page::Vms => ui.vms.move_by(model, by),
        Page::Cluster => ui.cluster.move_by(model, by),
        Page::Routes => ui.routes.move_by(model, by),
        _ => {}
    }
}
