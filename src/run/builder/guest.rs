//! The builder VM while it is up: programs run in it, files given and taken.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::BuilderError;
use super::disk::Disk;
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::Exec;
use crate::guest::session::{Event, Session};
use crate::host::child::tame;
use crate::host::nix::nix_store_command;
use crate::run::boot::{RunError, Running};
use crate::run::request::BuilderWish;

/// Where builders work: on the disk, not in memory.
pub const TMP: &str = "/nix/tmp";
/// How much is passed on at once.
const PIECE: usize = 64 * 1024;
/// How long it may take for what is quickly done.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of what it answers is kept, in bytes.
const ANSWER: usize = 16 << 20;

/// A VM that is up. It ends when this is dropped.
#[derive(Debug)]
pub struct Up {
    /// The VM, on the leash.
    pub running: Running,
    /// Its agent.
    pub agent: AgentClient,
    /// Ends what it does.
    pub cancel: CancellationToken,
    /// Its store.
    pub disk: Disk,
}

/// Keeps what a guest says, as far as that is sensible.
pub fn bounded(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = ANSWER.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

impl Up {
    fn start(&self, argv: Vec<String>, dir: String) -> Result<Session, AgentError> {
        let user = std::env::var("NIX_CONFIG").unwrap_or_default();
        // The VM is the sandbox; and it may be killed at any moment.
        let config = format!(
            "experimental-features = nix-command flakes\nsandbox = false\nsync-before-registering = true\n\
             build-hook = /bin/build-remote\nbuild-users-group =\nwarn-dirty = false\neval-cache = false\n{user}"
        );
        let env = [
            ("NIX_CONFIG", config.as_str()),
            ("TMPDIR", TMP),
            // No later build sees it, so none of it has to reach a disk.
            ("XDG_CACHE_HOME", "/run/cache"),
            ("LD_LIBRARY_PATH", "/usr/lib/mvm-builder"),
            ("NIX_SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
            // The project may belong to another user than the guest's root.
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ];
        let env = env.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
        self.agent.exec(Exec { argv, env, cwd: Some(dir), user: Some("root".into()), tty: None })
    }

    /// What a program does next.
    async fn next(&self, session: &mut Session) -> Result<Event, BuilderError> {
        tokio::select! {
            event = session.next() => Ok(event?),
            () = self.cancel.cancelled() => Err(RunError::Cancelled.into()),
        }
    }

    /// Runs a program to its end; gives its exit code.
    pub async fn exec(
        &self,
        argv: Vec<String>,
        dir: String,
        stdout: &mut dyn FnMut(&[u8]),
        stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<u32, BuilderError> {
        let mut session = self.start(argv, dir)?;
        session.close_stdin()?;
        loop {
            match self.next(&mut session).await? {
                Event::Stdout(bytes) => stdout(&bytes),
                Event::Stderr(bytes) => stderr(&bytes),
                Event::Exit(code) => return Ok(code),
            }
        }
    }

    /// What a program answers that is quickly done, and whether it succeeded.
    pub async fn ask(&self, argv: &[&str]) -> Result<(bool, String), BuilderError> {
        let mut answer = Vec::new();
        let mut keep = |bytes: &[u8]| bounded(&mut answer, bytes);
        let mut ignore = |_: &[u8]| {};
        let asked = self.exec(words(argv), "/tmp".into(), &mut keep, &mut ignore);
        let code = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| BuilderError::Silent)??;
        Ok((code == 0, String::from_utf8_lossy(&answer).into_owned()))
    }

    /// What the VM has too little of, as far as can be told after a failure.
    pub async fn lack(&self, wish: BuilderWish, full: bool) -> Result<Option<String>, BuilderError> {
        if full {
            let (mib, more) = (wish.disk_mib, wish.disk_mib * 2);
            return Ok(Some(format!(
                "its store of {mib} MiB is full: `--builder-disk {more}M` makes it larger"
            )));
        }
        let killed = self.ask(&["dmesg"]).await?.1.contains("Out of memory: Killed");
        let (mib, more) = (wish.memory_mib, wish.memory_mib * 2);
        Ok(killed
            .then(|| format!("its {mib} MiB of memory are used up: `--builder-mem {more}M` gives it more")))
    }

    /// Copies paths of this machine's store into the VM's.
    pub async fn give(&self, paths: &[PathBuf]) -> Result<(), BuilderError> {
        let failed = |error: std::io::Error| BuilderError::Give(error.to_string());
        let mut export = nix_store_command();
        export.arg("--export").args(paths).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        export.kill_on_drop(true);
        let mut child = tame(&mut export).spawn().map_err(failed)?;
        let mut from = child.stdout.take().ok_or_else(|| BuilderError::Give("it has no output".into()))?;
        let mut session = self.start(words(&["nix-store", "--import"]), "/tmp".into())?;
        let input = session.input();
        // Its end of the pipe goes with it: an export that nobody reads comes to its end.
        let feed = async move {
            let mut piece = vec![0; PIECE];
            loop {
                match from.read(&mut piece).await.map_err(failed)? {
                    0 => return Ok(input.close()?),
                    read => input.write(&piece[..read]).await?,
                }
            }
        };
        let mut said = Vec::new();
        let heard = async {
            loop {
                match self.next(&mut session).await? {
                    Event::Stdout(_) => {}
                    Event::Stderr(bytes) => bounded(&mut said, &bytes),
                    Event::Exit(code) => return Ok::<_, BuilderError>(code),
                }
            }
        };
        let (fed, code) = tokio::select! {
            ended = async { tokio::join!(feed, heard) } => ended,
            // A guest may take nothing any more.
            () = self.cancel.cancelled() => return Err(RunError::Cancelled.into()),
        };
        let ended = child.wait().await.map_err(failed)?;
        match (fed, code?, ended.success()) {
            (Ok(()), 0, true) => Ok(()),
            (Err(error), 0, _) => Err(error),
            _ => Err(BuilderError::Give(String::from_utf8_lossy(&said).trim().to_string())),
        }
    }

    /// Copies a file of the VM's, with holes where it has nothing but zeros; false when there is none.
    pub async fn copy(&self, file: &Path, to: &Path, most: u64) -> Result<bool, BuilderError> {
        let file = file.to_string_lossy();
        let failed = |source| BuilderError::File { path: to.into(), source };
        let mut copy = File::create(to).map_err(failed)?;
        let mut session = self.start(words(&["cat", &file]), "/tmp".into())?;
        session.close_stdin()?;
        let mut length = 0;
        loop {
            match self.next(&mut session).await? {
                Event::Stdout(bytes) => {
                    length += bytes.len() as u64;
                    if length > most {
                        return Err(BuilderError::TooMuch(most));
                    }
                    let written = match bytes.iter().all(|byte| *byte == 0) {
                        true => copy.seek(SeekFrom::Start(length)).map(drop),
                        false => copy.write_all(&bytes),
                    };
                    written.map_err(failed)?;
                }
                Event::Stderr(_) => {}
                Event::Exit(0) => break,
                Event::Exit(_) => return std::fs::remove_file(to).map(|()| false).map_err(failed),
            }
        }
        // The last of it may be a hole.
        let kept = move || copy.set_len(length).and_then(|()| copy.sync_all());
        let kept = tokio::task::spawn_blocking(kept).await.map_err(io::Error::other);
        kept.and_then(|kept| kept).map_err(failed)?;
        Ok(true)
    }
}
