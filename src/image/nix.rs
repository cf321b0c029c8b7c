//! Running Nix: argument lists, its two streams, and its end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::elsewhere::Elsewhere;
use super::error::BuildError;
use crate::host::child::{LastWords, end, piece, tame, yielding};
use crate::host::inputs::FlakeInputs;
use crate::host::nix::{is_alone, nix_command};

/// How much Nix may answer on stdout.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// A chatty builder waits for its reader less often with a large pipe.
const PIPE: i32 = 1024 * 1024;
/// How long the log may gather in a large pipe: read line by line as it comes, it would take a
/// core from the builder that writes it.
const GATHER: Duration = Duration::from_millis(2);

/// How Nix is run for one build.
#[derive(Debug, Clone, Copy)]
pub struct Nix<'a> {
    /// Directory to run in.
    pub dir: Option<&'a Path>,
    /// mvm's own inputs, for calls that read a flake; others may refuse to hear of them.
    pub inputs: Option<&'a FlakeInputs>,
    /// Where it runs, if not on this machine.
    pub elsewhere: Option<&'a dyn Elsewhere>,
    /// Leave the CPUs to others first.
    pub background: bool,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// How a run of Nix ended.
#[derive(Debug)]
pub struct Ran {
    /// Whether it succeeded.
    pub ok: bool,
    /// What it answered.
    pub stdout: Vec<u8>,
}

impl Nix<'_> {
    /// Runs `nix ARGS… -- OPERANDS…`, giving each piece of stderr to `hear`.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        args: &[A],
        operands: &[OsString],
        hear: impl FnMut(&[u8]),
    ) -> Result<Ran, BuildError> {
        let mut stdout = Vec::new();
        let status = self.listen(args, operands, hear, |piece| keep(&mut stdout, piece)).await?;
        Ok(Ran { ok: status.success(), stdout })
    }

    /// The same with each piece of stdout given to `take`, however much there is.
    pub async fn listen<A: AsRef<OsStr>>(
        &self,
        args: &[A],
        operands: &[OsString],
        mut hear: impl FnMut(&[u8]),
        mut take: impl FnMut(&[u8]),
    ) -> Result<ExitStatus, BuildError> {
        let mut all: Vec<OsString> = Vec::new();
        if is_alone() || self.elsewhere.is_some() {
            // Nix compresses a log in the thread that passes it on: of a chatty build that is a third
            // of the time. What the user says of it comes later and wins.
            all.extend(["--option", "compress-build-log", "false"].map(OsString::from));
        }
        all.extend(args.iter().map(|arg| arg.as_ref().to_os_string()));
        // After the user's arguments: a flake's own settings are never accepted.
        all.extend(["--option", "accept-flake-config", "false"].map(OsString::from));
        all.extend(self.inputs.map(FlakeInputs::args).unwrap_or_default());
        if !operands.is_empty() {
            all.push("--".into());
            all.extend_from_slice(operands);
        }
        if let Some(place) = self.elsewhere {
            let ran = place.run(all, &mut hear).await?;
            take(&ran.stdout);
            return Ok(ExitStatus::from_raw(if ran.ok { 0 } else { 1 << 8 }));
        }
        let mut command = nix_command();
        command.args(all);
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run_error = |source| BuildError::Run { program: "nix".into(), source };
        if self.background {
            yielding(&mut command);
        }
        let child = tame(&mut command).spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if self.dir.is_none_or(Path::is_dir) => BuildError::NoNix,
            _ => run_error(source),
        })?;
        let running = Running { child, ended: false };
        let ended = running.attend(self.cancel, &mut hear, &mut take).await.map_err(run_error)?;
        ended.ok_or(BuildError::Cancelled)
    }

    /// Asks Nix something whose failure needs no explanation.
    pub async fn ask<A: AsRef<OsStr>>(
        &self,
        args: &[A],
        operands: &[OsString],
    ) -> Result<Option<Vec<u8>>, BuildError> {
        let ran = self.run(args, operands, |_| {}).await?;
        Ok(ran.ok.then_some(ran.stdout))
    }
}

/// A child that is told to end when whoever waits for it goes away.
struct Running {
    child: Child,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.child.id().filter(|_| !self.ended) {
            // It may just have ended by itself.
            let _ = killpg(Pid::from_raw(pid as i32), Signal::SIGINT);
        }
    }
}

impl Running {
    /// Reads both streams until the child has ended; `None` when it was cancelled.
    async fn attend(
        mut self,
        cancel: &CancellationToken,
        hear: &mut impl FnMut(&[u8]),
        take: &mut impl FnMut(&[u8]),
    ) -> io::Result<Option<ExitStatus>> {
        let mut stdout = self.child.stdout.take();
        let stderr = self.child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut log = LogPipe::new(stderr.into_owned_fd()?);
        let mut heard = vec![0; PIPE as usize / 4];
        let mut told = vec![0; 16 * 1024];
        let mut status = None;
        while status.is_none() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                piece = log.piece(&mut heard) => hear(&heard[..piece?]),
                piece = piece(&mut stdout, &mut told) => take(&told[..piece?]),
                ended = self.child.wait() => status = Some(ended?),
            }
        }
        let Some(status) = status else {
            // Nix must not block on a full pipe while it cleans up.
            let drain = async {
                loop {
                    tokio::select! {
                        _ = log.piece(&mut heard) => {}
                        _ = piece(&mut stdout, &mut told) => {}
                    }
                }
            };
            tokio::select! {
                ended = end(&mut self.child) => ended?,
                () = drain => unreachable!("a drain has no end"),
            };
            self.ended = true;
            return Ok(None);
        };
        self.ended = true;
        let mut last = LastWords::default();
        log.gather = Duration::ZERO;
        log.next = Instant::now();
        while !log.is_over() || stdout.is_some() {
            tokio::select! {
                piece = log.piece(&mut heard) => hear(&heard[..piece?]),
                piece = piece(&mut stdout, &mut told) => take(&told[..piece?]),
                () = last.spoken() => break,
            }
        }
        Ok(Some(status))
    }
}

/// Nix's log. Between two pieces the pipe is not watched at all: being woken for each line costs
/// both ends more than the line itself.
struct LogPipe {
    pipe: Option<OwnedFd>,
    gather: Duration,
    next: Instant,
}

impl LogPipe {
    fn new(pipe: OwnedFd) -> Self {
        // Only a wish: an unprivileged user may be over his limit, and a small pipe is soon full.
        let large = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE)).is_ok();
        let gather = if large { GATHER } else { Duration::ZERO };
        Self { pipe: Some(pipe), gather, next: Instant::now() }
    }

    /// The next piece; none ever again once it is over. May be dropped and called again.
    async fn piece(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        tokio::time::sleep_until(self.next).await;
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        let mut watched = Receiver::from_owned_fd(pipe.try_clone()?)?;
        let read = watched.read(buffer).await?;
        if read == 0 {
            self.pipe = None;
        }
        let more = read == buffer.len();
        self.next = Instant::now() + if more { Duration::ZERO } else { self.gather };
        Ok(read)
    }

    fn is_over(&self) -> bool {
        self.pipe.is_none()
    }
}

fn keep(answer: &mut Vec<u8>, piece: &[u8]) {
    let room = MAX_ANSWER.saturating_sub(answer.len());
    answer.extend_from_slice(&piece[..piece.len().min(room)]);
}
