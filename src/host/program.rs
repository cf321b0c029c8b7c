//! Programs run to their end: what they print becomes log events, what fails becomes an error.

use std::collections::VecDeque;
use std::io;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::child;
use crate::event::EventSink;
use crate::event::text::{clean, strip};

/// How many of a program's last lines an error keeps.
const TAIL: usize = 12;

/// Why a program's run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("cannot run `{program}`: {source}\nhelp: is it installed? `mvm doctor` tells")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("`{command}` failed ({status})\n{tail}\nhelp: run it by hand to see more")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// Its exit code, unless a signal ended it.
        code: Option<i32>,
        /// Its last lines.
        tail: String,
    },
    /// The user wanted no more of it.
    #[error("cancelled\nhelp: run the command again; it goes on where it stopped")]
    Cancelled,
}

/// Runs the command with its output as log lines in `sink`; returns what it wrote on stdout.
pub async fn run(
    command: &mut Command,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<String, ProgramError> {
    let mut text = String::new();
    run_with(command, Stdio::null(), cancel, Some(&mut text), |line| sink.info(line)).await?;
    Ok(text)
}

/// Runs the command silently; returns what it wrote on stdout.
pub async fn output(command: &mut Command) -> Result<String, ProgramError> {
    let mut text = String::new();
    run_with(command, Stdio::null(), &CancellationToken::new(), Some(&mut text), |_| {}).await?;
    Ok(text)
}

/// Runs the command and gives `each` line of its output, whichever of the two it comes from.
pub async fn stream(
    command: &mut Command,
    input: Stdio,
    cancel: &CancellationToken,
    each: impl FnMut(&str),
) -> Result<(), ProgramError> {
    run_with(command, input, cancel, None, each).await
}

/// What it writes on stdout goes into `text` too.
async fn run_with(
    command: &mut Command,
    input: Stdio,
    cancel: &CancellationToken,
    mut text: Option<&mut String>,
    mut each: impl FnMut(&str),
) -> Result<(), ProgramError> {
    child::tame(command).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let start = |source| ProgramError::Start { program: program.clone(), source };
    let mut child = command.spawn().map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut tail = VecDeque::new();
    let read = async {
        let mut out = lines(stdout);
        let mut err = lines(stderr);
        let (mut out_open, mut err_open) = (out.is_some(), err.is_some());
        while out_open || err_open {
            let (line, is_out) = tokio::select! {
                line = next(&mut out), if out_open => (line, true),
                line = next(&mut err), if err_open => (line, false),
            };
            let Some(line) = line else {
                *(if is_out { &mut out_open } else { &mut err_open }) = false;
                continue;
            };
            if let Some(text) = text.as_deref_mut().filter(|_| is_out) {
                text.push_str(&line);
                text.push('\n');
            }
            // Of a progress display only the last state is worth a line.
            let line = clean(line.trim_end());
            each(&line);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(strip(&line));
        }
    };
    let ended = tokio::select! {
        () = read => true,
        () = cancel.cancelled() => false,
    };
    if !ended {
        // The child is over either way; how it ended says nothing more.
        let _ = child::end(&mut child).await;
        return Err(ProgramError::Cancelled);
    }
    let status = tokio::select! {
        status = child.wait() => status.map_err(start)?,
        () = cancel.cancelled() => {
            let _ = child::end(&mut child).await;
            return Err(ProgramError::Cancelled);
        }
    };
    if status.success() {
        return Ok(());
    }
    let words = std::iter::once(command.as_std().get_program()).chain(command.as_std().get_args());
    let command = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let tail = Vec::from(tail).join("\n");
    Err(ProgramError::Failed { command, status: status.to_string(), code: status.code(), tail })
}

type Lines<R> = tokio::io::Split<BufReader<R>>;

fn lines<R: AsyncRead + Unpin>(pipe: Option<R>) -> Option<Lines<R>> {
    pipe.map(|pipe| BufReader::new(pipe).split(b'\n'))
}

// Bytes, not text: a line that is no UTF-8 is no reason to stop reading.
async fn next<R: AsyncRead + Unpin>(lines: &mut Option<Lines<R>>) -> Option<String> {
    let line = lines.as_mut()?.next_segment().await.ok()??;
    Some(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_tells_the_command_and_its_last_lines() {
        let error = output(Command::new("ls").arg("/no/such/place")).await.unwrap_err().to_string();
        assert!(error.contains("`ls /no/such/place` failed"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn cancelling_ends_the_program() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let (sink, _stream) = EventSink::new(crate::event::TaskId::new('t'));
        let ended = run(Command::new("sleep").arg("1000"), &sink, &cancel).await;
        assert!(matches!(ended, Err(ProgramError::Cancelled)));
    }
}
