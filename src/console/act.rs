//! What each command changes, and what it asks the rest of mvm to do.

mod fleet;
mod log;
mod route;

use std::path::PathBuf;

use tui_input::Input;

use super::command::{Action, FleetOp, LogOp};
use super::log::LogAction;
use super::model::Model;
use super::model::vm::VmModel;
use super::ui::Ui;
use super::ui::builds::Part as BuildsPart;
use super::ui::cluster::{Part as ClusterPart, What};
use super::ui::dialog::{Confirmed, Dialog, Purpose};
use super::ui::page::{Page, neighbour};
use super::ui::tabs::{Keys, Program};
use super::ui::vms::Part as VmsPart;
use super::work::{ClusterWish, FleetWish, Job, RunWish};
use crate::run::wish::BuildWish;
use crate::vm::spec::PortMap;

/// What the app has to do beyond changing the screen's state.
#[derive(Debug)]
pub enum Effect {
    /// Have it done by the worker.
    Work(Job),
    /// The same, and open a session once the VM is ready.
    WorkThenOpen(Job),
    /// Open a session in a tab.
    Open(Program),
    /// Open the session of the tab shown again.
    Reopen(Program),
    /// Write the log of the page into a file.
    Export(PathBuf),
    /// Put text into the clipboard.
    Copy(String),
    /// Suspend.
    Suspend,
    /// Leave.
    Quit,
}

/// What a flake is asked for with.
const FLAKE: &str = "Flake: a directory, or any reference Nix knows";

/// Does a command.
pub fn act(action: Action, model: &Model, ui: &mut Ui) -> Option<Effect> {
    match action {
        Action::Quit | Action::End => return quit(model, ui),
        Action::Suspend => return Some(Effect::Suspend),
        Action::Go(page) => {
            ui.page = page;
            ui.zoomed = false;
        }
        Action::Part(by) => part(model, ui, by),
        Action::Zoom => zoom(ui),
        Action::Open => open(model, ui),
        Action::Back => back(ui),
        Action::Palette => ui.dialog = Some(Dialog::Palette { input: Input::default(), cursor: 0 }),
        Action::Help => ui.dialog = Some(Dialog::Help { top: 0 }),
        Action::Step(_) | Action::Screen(_) | Action::First | Action::Last => log::travel(action, model, ui),
        Action::Log(op) => return log::act(op, model, ui),
        Action::Build | Action::Rebuild | Action::Run | Action::RunDetached => match &ui.flake {
            Some(flake) => return Some(build(action, flake.clone())),
            None => ask(ui, FLAKE, Purpose::Flake(action)),
        },
        // Once the sources are watched, they are built.
        Action::Watch => ui.watching = !ui.watching,
        Action::Again => return again(model, ui),
        Action::Failed(by) => {
            if !ui.builds.jump(model, by) {
                ui.word = Some("nothing failed in this task".into());
            }
        }
        Action::Unforward => {
            let vm = ui.vms.vm(model)?;
            let map = vm.forwards.last()?.parse().ok()?;
            return Some(Effect::Work(Job::Unforward { vm: vm.id.clone(), map }));
        }
        Action::Console => (ui.page, ui.vms.part) = (Page::Vms, VmsPart::Console),
        Action::Fold => ui.cluster.fold(model),
        Action::FoldAll => ui.cluster.fold_all(model),
        Action::Fleet(op) => return fleet::act(op, model, ui),
        Action::Route(op) => return route::act(op, model, ui),
        // Their commands say why not, and are not called.
        Action::ClusterUp => return Some(Effect::Work(Job::Cluster(ClusterWish::Up))),
        Action::ClusterDown => {
            let question = "End agent and coordinator, and remove the cluster's instances with their disks?";
            confirm(ui, question.into(), Confirmed::ClusterDown);
        }
        Action::Snapshot => return vm(model, ui).map(|vm| Effect::Work(Job::Save { vm, stop: false })),
        Action::SaveAndStop => {
            if let Some(vm) = ui.vms.vm(model) {
                let question = format!("Save {} and end it, with the sessions in it?", vm.name);
                confirm(ui, question, Confirmed::SaveAndStop(vm.id.clone()));
            }
        }
        Action::Restore => return vm(model, ui).map(|vm| Effect::Work(Job::Restore(vm))),
        Action::CancelTask => {
            return ui.builds.task(model).map(|task| Effect::Work(Job::Cancel(task.id.clone())));
        }
        Action::Ssh => return vm(model, ui).map(|vm| Effect::Open(Program::Ssh(vm))),
        Action::Shell => return Some(Effect::Open(Program::Shell)),
        Action::Stop => return vm(model, ui).map(|vm| Effect::Work(Job::Stop { vm, at_once: false })),
        Action::Restart => return vm(model, ui).map(|vm| Effect::Work(Job::Restart(vm))),
        Action::Detach => return vm(model, ui).map(|vm| Effect::Work(Job::Detach(vm))),
        Action::Kill => {
            if let Some(vm) = ui.vms.vm(model) {
                let question = format!("End {} at once, without asking the guest?", vm.name);
                confirm(ui, question, Confirmed::Kill(vm.id.clone()));
            }
        }
        Action::Delete => {
            if let Some(vm) = ui.vms.vm(model) {
                let question = format!("Remove {} with its disks and logs?", vm.name);
                confirm(ui, question, Confirmed::Delete(vm.id.clone()));
            }
        }
        Action::Forward => {
            // Its command looked whether there is a VM.
            let _ = ask_for(action, model, ui);
        }
        Action::Sort => ui.vms.next_column(),
        Action::Reverse => ui.vms.reverse = !ui.vms.reverse,
        Action::Tab(by) => ui.tabs.turn(by),
        Action::CloseTab => close_tab(ui),
        Action::Reconnect => return reconnect(model, ui),
        Action::Scrollback => match ui.tabs.keys {
            Keys::Scrollback => ui.tabs.return_to_program(),
            _ => ui.tabs.keys = Keys::Scrollback,
        },
        Action::FindText => ui.tabs.keys = Keys::Search(Input::default()),
        Action::FindNext(towards) => {
            if ui.tabs.session().is_some_and(|session| !session.screen_mut().search_on(towards)) {
                ui.word = Some("not found".into());
            }
        }
        Action::CopyText => {
            let screen = ui.tabs.session()?.screen();
            return Some(Effect::Copy(screen.selected_text().unwrap_or_else(|| screen.visible_text())));
        }
    }
    None
}

/// Asks for the line of text that a command needs, or can take; an error where it takes none.
pub fn ask_for(action: Action, model: &Model, ui: &mut Ui) -> Result<(), &'static str> {
    match action {
        Action::Build | Action::Rebuild | Action::Run | Action::RunDetached => {
            ask(ui, FLAKE, Purpose::Flake(action));
        }
        Action::Forward => {
            let vm = ui.vms.vm(model).ok_or("there is no VM")?;
            let (title, purpose) =
                (format!("Forward to {}: HOST:GUEST", vm.name), Purpose::Forward(vm.id.clone()));
            ask(ui, &title, purpose);
        }
        Action::Fleet(FleetOp::Scale) => return fleet::ask(model, ui),
        Action::Log(LogOp::Search) => ask(ui, "Search", Purpose::Search),
        Action::Log(LogOp::Filter) => ask(ui, "Filter", Purpose::Filter),
        Action::Log(LogOp::Export) => ask(ui, "Write the log into the file", Purpose::Export),
        _ => return Err("it takes no words"),
    }
    Ok(())
}

/// Builds the watched flake and puts its VM in the place of the one that runs.
pub fn again(model: &Model, ui: &Ui) -> Option<Effect> {
    rebuild((Vec::new(), 0), model, ui)
}

/// What a change of the watched sources calls for: a rebuild, and the end of one that is of no use any more.
pub fn follow(model: &mut Model, ui: &Ui) -> Option<Effect> {
    if !ui.watching {
        // Of what was watched before.
        model.watch.forget();
        return None;
    }
    if let Some(task) = model.watch.outdated() {
        return Some(Effect::Work(Job::Cancel(task)));
    }
    let trigger = model.watch.due()?;
    rebuild(trigger, model, ui)
}

fn rebuild(trigger: (Vec<String>, u64), model: &Model, ui: &Ui) -> Option<Effect> {
    let build = BuildWish { flake: ui.flake.clone()?, background: true, ..BuildWish::default() };
    let old = model.watch.last().and_then(|cycle| cycle.vm.as_ref());
    let old = old.and_then(|id| model.vm(id)).filter(|vm| vm.is_live());
    Some(Effect::Work(Job::Run(RunWish {
        build,
        name: old.and_then(|vm| vm.name.parse().ok()),
        detach: false,
        replaces: old.map(|vm| vm.id.clone()),
        trigger: Some(trigger),
    })))
}

/// Opens the session of the tab again: to the VM that has its name by now.
fn reconnect(model: &Model, ui: &mut Ui) -> Option<Effect> {
    let tab = ui.tabs.tab()?;
    let Program::Ssh(id) = &tab.program else { return Some(Effect::Reopen(tab.program.clone())) };
    let live = |vm: &&VmModel| vm.is_live();
    let same = model.vm(id).filter(live);
    let vm = same.or_else(|| model.vms.iter().filter(live).find(|vm| vm.name == tab.name));
    if vm.is_none() {
        ui.word = Some(format!("{} is over: start it with `r`, or restart it on the VMs page", tab.name));
    }
    vm.map(|vm| Effect::Reopen(Program::Ssh(vm.id.clone())))
}

fn close_tab(ui: &mut Ui) {
    if ui.tabs.has_program() {
        confirm(ui, "End the session in this tab?".into(), Confirmed::CloseTab);
    } else {
        ui.tabs.close();
    }
}

/// Does what a dialog was opened for, now that it was answered with yes.
pub fn confirmed(action: Confirmed, ui: &mut Ui) -> Option<Effect> {
    match action {
        Confirmed::CloseTab => {
            ui.tabs.close();
            None
        }
        Confirmed::Quit => Some(Effect::Quit),
        Confirmed::Kill(vm) => Some(Effect::Work(Job::Stop { vm, at_once: true })),
        Confirmed::SaveAndStop(vm) => Some(Effect::Work(Job::Save { vm, stop: true })),
        Confirmed::Delete(vm) => Some(Effect::Work(Job::Delete(vm))),
        Confirmed::ClusterDown => Some(Effect::Work(Job::Cluster(ClusterWish::Down))),
        Confirmed::Destroy(path) => Some(Effect::Work(Job::Fleet(FleetWish::Destroy(path)))),
    }
}

/// Does what a line of text was asked for; asks again while it cannot be used.
pub fn answered(title: String, purpose: Purpose, input: Input, model: &Model, ui: &mut Ui) -> Option<Effect> {
    let text = input.value().trim().to_owned();
    match purpose {
        Purpose::Flake(_) if text.is_empty() => None,
        Purpose::Flake(action) => {
            // The one that is watched stays that, and its VM with it.
            if !ui.watching {
                ui.flake = Some(text.clone());
            }
            Some(build(action, text))
        }
        Purpose::Search => {
            ui.act_on_log(model, LogAction::SettleSearch);
            None
        }
        Purpose::Filter => None,
        Purpose::Export if text.is_empty() => None,
        Purpose::Export => Some(Effect::Export(text.into())),
        Purpose::Scale(path) => fleet::scale(title, path, input, ui),
        Purpose::Forward(vm) => match text.parse::<PortMap>() {
            Ok(map) => Some(Effect::Work(Job::Forward { vm, map })),
            Err(error) => {
                let problem = error.to_string().lines().next().map(str::to_owned);
                ui.dialog = Some(Dialog::Prompt { title, input, purpose: Purpose::Forward(vm), problem });
                None
            }
        },
    }
}

fn ask(ui: &mut Ui, title: &str, purpose: Purpose) {
    ask_with(ui, title, purpose, Input::default());
}

/// Asks for a line of text, part of which is there already.
fn ask_with(ui: &mut Ui, title: &str, purpose: Purpose, input: Input) {
    let title = title.to_owned();
    ui.dialog = Some(Dialog::Prompt { title, input, purpose, problem: None });
}

fn quit(model: &Model, ui: &mut Ui) -> Option<Effect> {
    let tasks = model.tasks.iter().filter(|task| task.own && task.ended.is_none()).count();
    let vms = model.vms.iter().filter(|vm| vm.leashed && vm.is_live()).count();
    let sessions = ui.tabs.list.iter().filter(|tab| tab.is_live()).count();
    let ends = [("cancels", tasks, "task"), ("stops", vms, "VM"), ("ends", sessions, "session")];
    let ends = ends.into_iter().filter(|(_, count, _)| *count > 0);
    let ends: Vec<String> = ends
        .map(|(does, count, what)| format!("{does} {count} {what}{}", if count > 1 { "s" } else { "" }))
        .collect();
    if ends.is_empty() {
        return Some(Effect::Quit);
    }
    let question = format!("This {}. Quit?", ends.join(", "));
    confirm(ui, question, Confirmed::Quit);
    None
}

fn confirm(ui: &mut Ui, question: String, action: Confirmed) {
    ui.dialog = Some(Dialog::Confirm { question, action });
}

fn build(action: Action, flake: String) -> Effect {
    let wish =
        BuildWish { flake, rebuild: action == Action::Rebuild, background: true, ..BuildWish::default() };
    let run =
        |detach| Job::Run(RunWish { build: wish.clone(), name: None, detach, replaces: None, trigger: None });
    match action {
        Action::Run => Effect::WorkThenOpen(run(false)),
        Action::RunDetached => Effect::Work(run(true)),
        _ => Effect::Work(Job::Build(wish)),
    }
}

fn vm(model: &Model, ui: &Ui) -> Option<String> {
    ui.vms.vm(model).map(|vm| vm.id.clone())
}

fn part(model: &Model, ui: &mut Ui, by: isize) {
    match ui.page {
        Page::Overview => ui.tile = neighbour(&Page::TILES, ui.tile, by),
        Page::Builds => ui.builds.part = neighbour(&BuildsPart::ALL, ui.builds.part, by),
        Page::Vms => ui.vms.part = neighbour(&VmsPart::ALL, ui.vms.part, by),
        Page::Cluster => {
            let all = if has_console(model, ui) { &ClusterPart::ALL[..] } else { &ClusterPart::ALL[..2] };
            ui.cluster.part = neighbour(all, ui.cluster.part, by);
        }
        _ => {}
    }
}

fn has_console(model: &Model, ui: &Ui) -> bool {
    matches!(ui.cluster.what(model), Some(What::Instance(..)))
}

fn zoom(ui: &mut Ui) {
    match ui.page {
        Page::Overview => ui.page = ui.tile,
        _ => ui.zoomed = !ui.zoomed,
    }
}

fn open(model: &Model, ui: &mut Ui) {
    match ui.page {
        Page::Overview => ui.page = ui.tile,
        Page::Builds if ui.builds.part != BuildsPart::Log => ui.builds.part = BuildsPart::Log,
        Page::Vms => ui.vms.part = VmsPart::Console,
        Page::Cluster if has_console(model, ui) => ui.cluster.part = ClusterPart::Console,
        Page::Cluster => ui.cluster.fold(model),
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

#[cfg(test)]
mod tests;
