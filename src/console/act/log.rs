//! Moving through lists and logs, and what is done with logs.

use super::{Effect, ask_for, ask_with};
use crate::console::command::{Action, LogOp};
use crate::console::log::LogAction;
use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::builds::Part as BuildsPart;
use crate::console::ui::cluster::Part as ClusterPart;
use crate::console::ui::dialog::Purpose;
use crate::console::ui::page::Page;
use crate::console::ui::vms::Part as VmsPart;

/// Rows in a screen of a list.
const SCREEN: isize = 10;
/// Columns a log is scrolled by.
const COLUMNS: usize = 8;

/// Moves the cursor of what has the keys.
pub fn travel(action: Action, model: &Model, ui: &mut Ui) {
    let in_log = match ui.page {
        Page::Builds => ui.builds.part == BuildsPart::Log,
        Page::Vms => ui.vms.part == VmsPart::Console,
        Page::Cluster => ui.cluster.part == ClusterPart::Console && ui.cluster.instance(model).is_some(),
        _ => false,
    };
    if in_log {
        ui.act_on_log(
            model,
            match action {
                Action::Step(by) if by < 0 => LogAction::CursorUp(by.unsigned_abs()),
                Action::Step(by) => LogAction::CursorDown(by.unsigned_abs()),
                Action::Screen(by) if by < 0 => LogAction::PageUp,
                Action::Screen(_) => LogAction::PageDown,
                Action::First => LogAction::Top,
                _ => LogAction::Bottom,
            },
        );
        return;
    }
    let by = match action {
        Action::Step(by) => by,
        Action::Screen(by) => by * SCREEN,
        Action::First => isize::MIN / 2,
        _ => isize::MAX / 2,
    };
    match ui.pane() {
        Page::Builds => ui.builds.move_by(model, by),
        Page::Vms if ui.page == Page::Vms && ui.vms.part == VmsPart::Detail => ui.vms.scroll(by),
        Page::Vms => ui.vms.move_by(model, by),
        Page::Cluster if ui.page == Page::Cluster && ui.cluster.part == ClusterPart::Detail => {
            ui.cluster.scroll(by);
        }
        Page::Cluster => ui.cluster.move_by(model, by),
        Page::Routes => ui.routes.move_by(model, by),
        Page::Terminal => {
            let Some(session) = ui.tabs.session() else { return };
            let screen = session.screen_mut();
            match action {
                Action::Step(by) => screen.scroll(-i32::try_from(by).unwrap_or_default()),
                Action::Screen(by) if by < 0 => screen.page_up(),
                Action::Screen(_) => screen.page_down(),
                Action::First => screen.scroll_to_top(),
                _ => screen.scroll_to_bottom(),
            }
        }
        Page::Log => ui.own_log.move_by(by),
        Page::Overview => {}
    }
}

/// Does something with the log of the page.
pub fn act(op: LogOp, model: &Model, ui: &mut Ui) -> Option<Effect> {
    let action = match op {
        LogOp::Follow => LogAction::ToggleFollow,
        LogOp::Next => LogAction::SearchNext,
        LogOp::Previous => LogAction::SearchPrevious,
        LogOp::Wrap => LogAction::ToggleWrap,
        LogOp::Timestamps => LogAction::ToggleTimestamps,
        LogOp::Mark => LogAction::ToggleMark,
        LogOp::NextMark => LogAction::NextMark,
        LogOp::NextError => LogAction::NextError,
        LogOp::PreviousError => LogAction::PreviousError,
        LogOp::Select => LogAction::StartSelection,
        LogOp::Copy => LogAction::Copy,
        LogOp::Left => LogAction::ScrollLeft(COLUMNS),
        LogOp::Right => LogAction::ScrollRight(COLUMNS),
        LogOp::Clear => {
            ui.act_on_log(model, LogAction::ClearSearch);
            ui.act_on_log(model, LogAction::ClearSelection);
            LogAction::ClearFilter
        }
        LogOp::Search | LogOp::Filter => {
            // Both take words.
            let _ = ask_for(Action::Log(op), model, ui);
            return None;
        }
        LogOp::Export => {
            ask_with(ui, "Write the log into the file", Purpose::Export, "mvm.log".into());
            return None;
        }
    };
    ui.act_on_log(model, action).map(Effect::Copy)
}
