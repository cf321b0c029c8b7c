//! Starting what runs in a tab.

use tokio::process::Command;

use crate::console::model::Model;
use crate::console::ui::tabs::{Program, Tab};
use crate::host::paths::Paths;
use crate::terminal::Size;
use crate::terminal::session::Session;
use crate::vm::ssh;

/// Starts a program on a terminal of its own, in a tab.
pub fn open(program: Program, model: &Model, paths: &Paths, size: Size, scrollback: usize) -> Tab {
    let name = match &program {
        Program::Ssh(id) => model.vm(id).map_or(id.clone(), |vm| vm.name.clone()),
        Program::Shell => "shell".into(),
        Program::Dial(address) => address.to_string(),
        Program::ClusterLogs => "logs".into(),
    };
    let session = command(&program, model, paths)
        .and_then(|command| Session::spawn(command, size, scrollback).map_err(|error| error.to_string()));
    Tab { program, name, session, calls: false }
}

fn command(program: &Program, model: &Model, paths: &Paths) -> Result<Command, String> {
    match program {
        Program::Ssh(id) => {
            let info = model.vm(id).and_then(|vm| vm.info.as_ref());
            let guest = info.map_or(ssh::Guest::Personalised, |info| ssh::guest(&info.artifacts));
            let (program, arguments) =
                ssh::command_line(paths, id, guest, None, &[]).map_err(|error| error.to_string())?;
            let mut command = Command::new(program);
            command.args(arguments).current_dir(paths.state());
            Ok(command)
        }
        Program::Shell => {
            let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
            Ok(Command::new(shell.unwrap_or_else(|| "/bin/sh".into())))
        }
        Program::Dial(address) => mvm(&["connect", &address.to_string()]),
        Program::ClusterLogs => mvm(&["dev", "cluster", "logs", "-f"]),
    }
}

/// This program with other words.
fn mvm(words: &[&str]) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("mvm does not find itself: {error}"))?;
    let mut command = Command::new(program);
    command.args(words);
    Ok(command)
}
