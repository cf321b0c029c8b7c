//! The one list of commands: keys, footer, help, palette, keymap file and mouse all come from it.

pub use crate::console::action::{Action, FleetOp, LogOp, RouteAct, Turn};
use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::terminal::search::Towards;

mod fleet;
mod place;
mod route;

pub use place::Place;

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name in the palette and in the keymap file.
    pub name: &'static str,
    /// What it does, in a few words.
    pub help: &'static str,
    /// Its keys, as long as the keymap file names no others.
    pub keys: &'static [&'static str],
    /// Where it is of use.
    pub place: Place,
    /// What it does.
    pub action: Action,
    /// Its rank in the footer, 1 first; 0 keeps it out.
    pub rank: u8,
    /// Whether it can be done now; else why not.
    pub when: fn(&Model, &Ui) -> Result<(), &'static str>,
}

const fn command(
    name: &'static str,
    keys: &'static [&'static str],
    place: Place,
    action: Action,
    help: &'static str,
) -> Command {
    Command { name, help, keys, place, action, rank: 0, when: always }
}

impl Command {
    const fn rank(mut self, rank: u8) -> Self {
        self.rank = rank;
        self
    }

    const fn when(mut self, when: fn(&Model, &Ui) -> Result<(), &'static str>) -> Self {
        self.when = when;
        self
    }
}

use Place::{Builds, Cluster, Everywhere, Log, Routes, Scrollback, Terminal, Vms};

/// All commands. Where two share a key, that of the narrower place wins.
pub const COMMANDS: &[Command] = &[
    command("overview", &["1"], Everywhere, Action::Go(Page::Overview), "show the overview"),
    command("builds", &["2"], Everywhere, Action::Go(Page::Builds), "show the builds"),
    command("vms", &["3"], Everywhere, Action::Go(Page::Vms), "show the VMs"),
    command("cluster", &["4"], Everywhere, Action::Go(Page::Cluster), "show the cluster"),
    command("routes", &["5"], Everywhere, Action::Go(Page::Routes), "show the routes"),
    command("terminal", &["6"], Everywhere, Action::Go(Page::Terminal), "show the terminal"),
    command("log", &["7"], Everywhere, Action::Go(Page::Log), "show mvm's own log"),
    command("next-pane", &["tab"], Everywhere, Action::Part(1), "give the keys to the next pane")
        .when(has_panes)
        .rank(90),
    command(
        "previous-pane",
        &["shift-tab"],
        Everywhere,
        Action::Part(-1),
        "give the keys to the pane before",
    )
    .when(has_panes),
    command("zoom", &["z"], Everywhere, Action::Zoom, "have the pane fill the screen, or no more")
        .when(can_zoom)
        .rank(91),
    command("open", &["enter"], Everywhere, Action::Open, "show more of what is selected"),
    command("back", &["esc"], Everywhere, Action::Back, "go back"),
    command("up", &["up", "k"], Everywhere, Action::Step(-1), "one up"),
    command("down", &["down", "j"], Everywhere, Action::Step(1), "one down"),
    command("page-up", &["pageup", "ctrl-u"], Everywhere, Action::Screen(-1), "one screen up"),
    command("page-down", &["pagedown", "ctrl-d"], Everywhere, Action::Screen(1), "one screen down"),
    command("first", &["home", "g"], Everywhere, Action::First, "to the first"),
    command("last", &["end", "G"], Everywhere, Action::Last, "to the last"),
    command("build", &["b"], Everywhere, Action::Build, "build the flake").rank(20),
    command("rebuild", &["B"], Everywhere, Action::Rebuild, "build the flake even if nothing changed"),
    command("run", &["r"], Everywhere, Action::Run, "build the flake, boot it, open a session").rank(21),
    command("run-detached", &["R"], Everywhere, Action::RunDetached, "build the flake and boot it for good"),
    command("shell", &["t"], Everywhere, Action::Shell, "open a shell of this machine in a tab"),
    command("cancel", &["c"], Builds, Action::CancelTask, "end the selected task").rank(10).when(task_runs),
    command("ssh", &["s"], Vms, Action::Ssh, "open ssh to the VM in a tab").rank(10).when(vm_runs),
    command("stop", &["x"], Vms, Action::Stop, "shut the VM down").rank(11).when(vm_lives),
    command("restart", &["ctrl-r"], Vms, Action::Restart, "boot the VM again, with its disks")
        .when(vm_is_there),
    command("detach", &["d"], Vms, Action::Detach, "have the VM live on when the console ends")
        .when(vm_lives),
    command("kill", &["X"], Vms, Action::Kill, "end the VM at once").when(vm_lives),
    command("delete", &["D"], Vms, Action::Delete, "remove the VM with disks and logs").when(vm_is_there),
    command("forward", &["p"], Vms, Action::Forward, "forward a port to the VM").rank(12).when(vm_runs),
    command("sort", &["o"], Vms, Action::Sort, "sort by the next column"),
    command("reverse", &["O"], Vms, Action::Reverse, "turn the order round"),
    command("again", &["a"], Everywhere, Action::Again, "build the flake, replace its VM")
        .when(watches)
        .rank(19),
    command("watch", &["W"], Everywhere, Action::Watch, "build, run and replace the VM with each rebuild")
        .when(has_flake),
    command("failed", &["!"], Builds, Action::Failed(1), "go to the next derivation that failed"),
    command("unforward", &["P"], Vms, Action::Unforward, "end the forward made last").when(forwards),
    command("console", &["l"], Vms, Action::Console, "give the keys to the VM's console").when(vm_is_there),
    command("snapshot", &["K"], Vms, Action::Snapshot, "save the VM as it is; it goes on").when(can_save),
    command("save-and-stop", &["Z"], Vms, Action::SaveAndStop, "save the VM as it is, and end it")
        .when(can_save_and_stop),
    command("restore", &["L"], Vms, Action::Restore, "have the VM go on from its snapshot")
        .when(can_restore)
        .rank(13),
    command("fold", &["space"], Cluster, Action::Fold, "hide or show what is below").rank(14).when(has_rows),
    command("fold-all", &["F"], Cluster, Action::FoldAll, "hide or show what is below all tenants")
        .when(has_rows),
    command(
        "scale",
        &["+"],
        Cluster,
        Action::Fleet(FleetOp::Scale),
        "set how many instances there are to be",
    )
    .rank(10)
    .when(fleet::pool),
    command("pool-build", &["b"], Cluster, Action::Fleet(FleetOp::Build), "build the pool's flake")
        .rank(11)
        .when(fleet::pool),
    command("connect", &["s"], Cluster, Action::Fleet(FleetOp::Connect), "open ssh to the instance in a tab")
        .rank(5)
        .when(fleet::runs),
    command("logs", &["l"], Cluster, Action::Fleet(FleetOp::Logs), "give the keys to the instance's console")
        .when(fleet::has_vm),
    command("wake", &["A"], Cluster, Action::Fleet(FleetOp::Turn(Turn::Wake)), "have the instance run again")
        .rank(6)
        .when(fleet::wake),
    command("sleep", &["Z"], Cluster, Action::Fleet(FleetOp::Turn(Turn::Sleep)), "save the instance to disk")
        .rank(7)
        .when(fleet::sleep),
    command("warm", &["M"], Cluster, Action::Fleet(FleetOp::Turn(Turn::Warm)), "halt the instance in memory")
        .rank(8)
        .when(fleet::warm),
    command("start", &["o"], Cluster, Action::Fleet(FleetOp::Turn(Turn::Start)), "boot the instance")
        .rank(6)
        .when(fleet::start),
    command(
        "shut-down",
        &["x"],
        Cluster,
        Action::Fleet(FleetOp::Turn(Turn::Stop)),
        "shut the instance down; its disk stays",
    )
    .rank(9)
    .when(fleet::stop),
    command("destroy", &["D"], Cluster, Action::Fleet(FleetOp::Destroy), "remove the instance with its disk")
        .when(fleet::instance),
    command("cluster-up", &[], Cluster, Action::ClusterUp, "start the cluster").when(no_cluster),
    command("cluster-down", &[], Cluster, Action::ClusterDown, "end the cluster").when(no_cluster),
    command("wake-route", &["w"], Routes, Action::Route(RouteAct::Wake), "have an instance awake")
        .rank(10)
        .when(route::wake),
    command("let-sleep", &["s"], Routes, Action::Route(RouteAct::Sleep), "let its instances go to sleep now")
        .rank(11)
        .when(route::sleep),
    command(
        "drain",
        &["d"],
        Routes,
        Action::Route(RouteAct::Drain),
        "take no new connections, or take them again",
    )
    .rank(12)
    .when(route::is_there),
    command("dial", &["o"], Routes, Action::Route(RouteAct::Dial), "connect to the route in a tab")
        .rank(5)
        .when(route::listens),
    command(
        "cluster-logs",
        &["l"],
        Routes,
        Action::Route(RouteAct::Logs),
        "follow coordinator and agent in a tab",
    )
    .rank(13)
    .when(route::is_there),
    command("follow", &["f"], Log, Action::Log(LogOp::Follow), "follow new lines, or stay")
        .when(has_log)
        .rank(31),
    command("search", &["/"], Log, Action::Log(LogOp::Search), "search the log").when(has_log).rank(30),
    command("next", &["n"], Log, Action::Log(LogOp::Next), "go to the next match"),
    command("previous", &["N"], Log, Action::Log(LogOp::Previous), "go to the match before"),
    command("filter", &["&"], Log, Action::Log(LogOp::Filter), "show only lines with these words"),
    command("clear", &["u"], Log, Action::Log(LogOp::Clear), "forget search, filter and selection"),
    command("next-error", &["e"], Log, Action::Log(LogOp::NextError), "go to the next error")
        .when(has_log)
        .rank(32),
    command("previous-error", &["E"], Log, Action::Log(LogOp::PreviousError), "go to the error before"),
    command("wrap", &["w"], Log, Action::Log(LogOp::Wrap), "wrap long lines, or cut them"),
    command(
        "timestamps",
        &["T"],
        Log,
        Action::Log(LogOp::Timestamps),
        "show when lines were written, or not",
    ),
    command("mark", &["m"], Log, Action::Log(LogOp::Mark), "mark the line, or unmark it"),
    command("next-mark", &["'"], Log, Action::Log(LogOp::NextMark), "go to the next mark"),
    command("select", &["v"], Log, Action::Log(LogOp::Select), "select lines from here on"),
    command("copy", &["y"], Log, Action::Log(LogOp::Copy), "copy the selected lines, or this one"),
    command("left", &["left", "h"], Log, Action::Log(LogOp::Left), "scroll to the left"),
    command("right", &["right"], Log, Action::Log(LogOp::Right), "scroll to the right"),
    command("export", &["S"], Log, Action::Log(LogOp::Export), "write the log into a file"),
    command("tab-next", &["n"], Terminal, Action::Tab(1), "show the next tab").rank(10).when(tabs),
    command("tab-previous", &["p"], Terminal, Action::Tab(-1), "show the tab before").when(tabs),
    command("tab-close", &["x"], Terminal, Action::CloseTab, "close the tab").rank(12),
    command("reconnect", &["enter"], Terminal, Action::Reconnect, "open the session again").when(tab_is_over),
    command("scrollback", &["["], Terminal, Action::Scrollback, "look at what scrolled away").rank(11),
    command("find", &["/"], Scrollback, Action::FindText, "search the scrollback").rank(10),
    command("find-older", &["n"], Scrollback, Action::FindNext(Towards::Older), "go to the match above")
        .rank(11),
    command("find-newer", &["N"], Scrollback, Action::FindNext(Towards::Newer), "go to the match below"),
    command("copy-text", &["y"], Scrollback, Action::CopyText, "copy the selection, or what is visible")
        .rank(12),
    command("leave", &["q", "esc", "["], Scrollback, Action::Scrollback, "give the keys back").rank(13),
    command("palette", &[":"], Everywhere, Action::Palette, "run a command by its name").rank(95),
    command("help", &["?"], Everywhere, Action::Help, "show all commands").rank(96),
    command("suspend", &["ctrl-z"], Everywhere, Action::Suspend, "give the shell back until `fg`"),
    command("quit", &["q"], Everywhere, Action::Quit, "leave the console").rank(97),
    command(
        "end",
        &["ctrl-c"],
        Everywhere,
        Action::End,
        "leave the console; in a dialog without being asked",
    ),
];

fn always(_: &Model, _: &Ui) -> Result<(), &'static str> {
    Ok(())
}

fn has_panes(_: &Model, ui: &Ui) -> Result<(), &'static str> {
    match ui.page {
        Page::Overview | Page::Builds | Page::Vms | Page::Cluster => Ok(()),
        _ => Err("this page has one pane"),
    }
}

fn can_zoom(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    if ui.page == Page::Terminal { Ok(()) } else { has_panes(model, ui) }
}

fn has_log(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    ui.shown_log(model).map(|_| ()).ok_or("there is no log here")
}

fn task_runs(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    match ui.builds.task(model) {
        Some(task) if task.ended.is_none() => Ok(()),
        Some(_) => Err("the selected task is over"),
        None => Err("there is no task"),
    }
}

fn has_flake(_: &Model, ui: &Ui) -> Result<(), &'static str> {
    ui.flake.as_ref().map(|_| ()).ok_or("start with `mvm tui --flake DIR`, or build one")
}

fn watches(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    match ui.watching {
        false => Err("nothing is watched"),
        true if model.watch.is_busy() => Err("a rebuild is under way"),
        true => Ok(()),
    }
}

fn forwards(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    let forwards = ui.vms.vm(model).is_some_and(|vm| !vm.forwards.is_empty());
    if forwards { Ok(()) } else { Err("no port is forwarded to the VM") }
}

fn has_rows(model: &Model, _: &Ui) -> Result<(), &'static str> {
    if model.cluster.is_empty() { Err("there is no fleet yet") } else { Ok(()) }
}

fn no_cluster(_: &Model, _: &Ui) -> Result<(), &'static str> {
    Err("this mvm cannot start a cluster yet")
}

fn tabs(_: &Model, ui: &Ui) -> Result<(), &'static str> {
    if ui.tabs.list.len() > 1 { Ok(()) } else { Err("there is no other tab") }
}

fn tab_is_over(_: &Model, ui: &Ui) -> Result<(), &'static str> {
    if ui.tabs.has_program() { Err("the session goes on") } else { Ok(()) }
}

fn vm_is_there(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    ui.vms.vm(model).map(|_| ()).ok_or("there is no VM")
}

fn vm_lives(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    vm_is_there(model, ui)?;
    if ui.vms.vm(model).is_some_and(|vm| vm.is_live()) { Ok(()) } else { Err("the selected VM is over") }
}

fn vm_runs(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    vm_lives(model, ui)?;
    if ui.vms.vm(model).is_some_and(|vm| vm.is_running()) { Ok(()) } else { Err("the VM is not ready yet") }
}

fn can_save(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    vm_runs(model, ui)?;
    match ui.vms.vm(model).and_then(|vm| vm.info.as_ref()) {
        Some(info) if info.shares => Err("its shared directories cannot be saved; give volumes a size"),
        _ => Ok(()),
    }
}

fn can_save_and_stop(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    can_save(model, ui)?;
    match ui.vms.vm(model).and_then(|vm| vm.info.as_ref()) {
        Some(info) if info.removed_at_end => Err("it was started with `--rm`: nothing of it stays"),
        _ => Ok(()),
    }
}

fn can_restore(model: &Model, ui: &Ui) -> Result<(), &'static str> {
    let vm = ui.vms.vm(model).ok_or("there is no VM")?;
    if vm.is_live() {
        return Err("the VM is not over; what it did since its snapshot would be lost");
    }
    vm.snapshot().ok_or("the VM has no snapshot")?;
    let taken = model.vms.iter().any(|other| other.is_live() && other.name == vm.name);
    if taken { Err("another VM of its name runs") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
