//! What is done with pools and instances.

use tui_input::Input;

use super::{Effect, ask_with, confirm};
use crate::console::command::FleetOp;
use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::cluster::Part;
use crate::console::ui::dialog::{Confirmed, Dialog, Purpose};
use crate::console::ui::page::Page;
use crate::console::ui::tabs::Program;
use crate::console::work::{FleetWish, Job};
use crate::fleet::desired::Counts;
use crate::fleet::ids::PoolPath;

/// Does a command.
pub fn act(op: FleetOp, model: &Model, ui: &mut Ui) -> Option<Effect> {
    let wish = |wish| Some(Effect::Work(Job::Fleet(wish)));
    match op {
        FleetOp::Scale => {
            ask_with_counts(model, ui, counts(model, ui));
            None
        }
        FleetOp::Build => wish(FleetWish::Build(ui.cluster.pool(model)?.path.parse().ok()?)),
        FleetOp::Connect => Some(Effect::Open(Program::Ssh(ui.cluster.instance(model)?.info.vm.clone()?))),
        FleetOp::Logs => {
            (ui.page, ui.cluster.part) = (Page::Cluster, Part::Console);
            None
        }
        FleetOp::Turn(turn) => {
            let path = ui.cluster.instance(model)?.path.parse().ok()?;
            wish(FleetWish::Turn { path, turn })
        }
        FleetOp::Destroy => {
            let path = ui.cluster.instance(model)?.path.parse().ok()?;
            confirm(ui, format!("Remove {path} with its disk?"), Confirmed::Destroy(path));
            None
        }
    }
}

/// Asks how many instances of the selected pool there are to be.
pub fn ask(model: &Model, ui: &mut Ui) -> Result<(), &'static str> {
    ask_with_counts(model, ui, Input::default()).ok_or("select a pool")
}

fn ask_with_counts(model: &Model, ui: &mut Ui, counts: Input) -> Option<()> {
    let path: PoolPath = ui.cluster.pool(model)?.path.parse().ok()?;
    ask_with(ui, &format!("Instances of {path}: RUNNING WARM SLEEPING"), Purpose::Scale(path), counts);
    Some(())
}

/// Those that there are to be now.
fn counts(model: &Model, ui: &Ui) -> Input {
    let counts = ui.cluster.pool(model).and_then(|pool| pool.info.counts).unwrap_or_default();
    format!("{} {} {}", counts.running, counts.warm, counts.sleeping).into()
}

/// Has a pool scaled as was answered; asks again while that are no three numbers.
pub fn scale(title: String, path: PoolPath, input: Input, ui: &mut Ui) -> Option<Effect> {
    match parse(input.value()) {
        Some(counts) => Some(Effect::Work(Job::Fleet(FleetWish::Scale { path, counts }))),
        None => {
            let problem = Some("three numbers, e.g. `2 1 1` for two running, one warm, one sleeping".into());
            ui.dialog = Some(Dialog::Prompt { title, input, purpose: Purpose::Scale(path), problem });
            None
        }
    }
}

fn parse(text: &str) -> Option<Counts> {
    let numbers: Vec<u32> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [running, warm, sleeping] = numbers.try_into().ok()?;
    Some(Counts { running, warm, sleeping })
}

#[cfg(test)]
mod tests;
