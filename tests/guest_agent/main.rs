//! The agent's real loop, driven by the host's client over a socket pair.

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mvm::guest::agent::{self, MAX_SESSIONS};
use mvm::guest::channel::Line;
use mvm::guest::client::{AgentClient, AgentError};
use mvm::guest::frames::*;
use mvm::guest::session::{Event, Session};
use mvm::guest::system::Rehearsal;
use nix::unistd::{getegid, geteuid};
use tokio::time::timeout;

mod commands;
mod liars;
mod listener;
mod requests;

const LONG: Duration = Duration::from_secs(60);

/// A guest: an agent on a thread, over a directory that stands for its root.
struct Guest {
    root: tempfile::TempDir,
    system: Arc<Rehearsal>,
    agent: Option<JoinHandle<()>>,
}

impl Guest {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/mvm")).unwrap();
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
        let passwd = format!("root:x:{}:{}::/tmp:/bin/sh\n", geteuid(), getegid());
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        Self { root, system: Arc::default(), agent: None }
    }

    fn boot(&mut self) -> UnixStream {
        let (host, guest) = UnixStream::pair().unwrap();
        let (root, system) = (self.root.path().to_path_buf(), self.system.clone());
        let serve = move || agent::serve(Line::Stream(guest.into()), root, system).unwrap();
        self.agent = Some(std::thread::spawn(serve));
        host
    }

    fn client(&mut self) -> AgentClient {
        let stream = self.boot();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let (client, driver) = AgentClient::start(stream);
        tokio::spawn(driver);
        client
    }
}

fn sh(script: &str) -> Exec {
    Exec { argv: vec!["sh".into(), "-c".into(), script.into()], ..Exec::default() }
}

/// Everything a command says: stdout, stderr, exit code.
async fn collect(mut session: Session) -> (String, String, u32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match timeout(LONG, session.next()).await.expect("an event in time").unwrap() {
            Event::Stdout(bytes) => out.extend(bytes),
            Event::Stderr(bytes) => err.extend(bytes),
            Event::Exit(code) => return (text(out), text(err), code),
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Written by a child, lest another test's fork hold the file open for writing when it is run.
fn hook(root: &Path, name: &str, script: &str) {
    let path = root.join("etc/mvm").join(name);
    let write = "printf \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", write, "sh"]).arg(path).arg(script);
    assert!(shell.status().unwrap().success());
}
