//! From an Mvmfile to the layers of its image, each known by what goes into it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::guest::{self, quoted};
use super::sources::sources;
use super::tree::Files;
use super::{Content, MvmfileError, Project, User};
use crate::event::fault::shown;
use crate::host::files::hex;
use crate::host::packages::MMDEBSTRAP;
use crate::host::paths::Paths;

/// Changes when the way of making layers does, so that older ones are redone.
const LAYOUT: &str = "1";
/// Packages that every guest of a distribution has.
const ALWAYS: [&str; 1] = ["sudo"];
/// What no service reads takes a third of the least Debian.
const LEFT_OUT: [&str; 8] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/man/*",
];
const USERS: &str = include_str!("../../../assets/mvmfile/users.sh");
const FILES: &str = include_str!("../../../assets/mvmfile/files.sh");
const GUEST: &str = include_str!("../../../assets/mvmfile/guest.sh");

/// One layer: how it is made on top of those below.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Its name for people, a part of a file's name.
    pub name: String,
    /// What is done, for people, e.g. a command as it is written.
    pub what: String,
    /// How.
    pub how: How,
    /// Digest of all that goes into it, what is below included.
    pub key: String,
}

/// How a layer is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum How {
    /// A program makes a whole root directory; its name comes last.
    Root {
        /// The program and its arguments before the directory.
        before: Vec<OsString>,
        /// Its arguments after it.
        after: Vec<OsString>,
    },
    /// A shell script runs in the image.
    Script {
        /// The script.
        script: String,
        /// Its arguments.
        args: Vec<String>,
        /// What it reads on its standard input, as an archive with this digest.
        input: Option<(Files, String)>,
        /// Whether it may look for other machines.
        network: bool,
    },
}

/// The layers, the lowest first. None of the files `but` is in any.
pub(super) fn steps(
    project: &Project,
    paths: &Paths,
    but: &[PathBuf],
    cancel: &CancellationToken,
) -> Result<Vec<Step>, MvmfileError> {
    let file = &project.file;
    let mut steps = Steps(Vec::new());
    steps.add("packages", format!("installing the packages of {}", file.base), root(project)?);
    steps.add("users", "making the users".into(), script(users(project), false));
    if !file.files.is_empty() {
        steps.add("files", "copying the files".into(), files(project, but, cancel)?);
    }
    for (index, command) in file.run.iter().enumerate() {
        let what = format!("`{}`", shown(&first_line(command)));
        steps.add(&format!("run-{}", index + 1), what, script(command.clone(), true));
    }
    let mut files = Files::default();
    guest::add(&mut files, paths)?;
    let mut users: Vec<String> = Vec::new();
    for (name, service) in &file.services {
        guest::service(&mut files, name.as_str(), service);
        users.extend(service.user.iter().flat_map(|user| [name.to_string(), user.to_string()]));
    }
    steps.add("guest", "adding the services".into(), unpacking(GUEST, users, files, cancel)?);
    Ok(steps.0)
}

struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, name: &str, what: String, how: How) {
        let mut digest = Sha256::new();
        let below = self.0.last().map_or(LAYOUT, |step| &step.key);
        let words: Vec<String> = match &how {
            How::Root { before, after } => {
                before.iter().chain(after).map(|word| word.to_string_lossy().into_owned()).collect()
            }
            How::Script { script, args, network, input } => {
                let mut words = vec![script.clone(), network.to_string()];
                words.extend(input.iter().map(|(_, digest)| digest.clone()));
                words.extend(args.iter().cloned());
                words
            }
        };
        for word in std::iter::once(below).chain(words.iter().map(String::as_str)) {
            digest.update((word.len() as u64).to_le_bytes());
            digest.update(word);
        }
        let key = hex(&digest.finalize())[..32].to_string();
        self.0.push(Step { name: name.into(), what, how, key });
    }
}

fn script(script: String, network: bool) -> How {
    How::Script { script, args: Vec::new(), input: None, network }
}

/// A script that unpacks files.
fn unpacking(
    script: &str,
    args: Vec<String>,
    files: Files,
    cancel: &CancellationToken,
) -> Result<How, MvmfileError> {
    let digest = files.digest(cancel)?;
    Ok(How::Script { script: script.into(), args, input: Some((files, digest)), network: false })
}

/// The project's own files.
fn files(project: &Project, but: &[PathBuf], cancel: &CancellationToken) -> Result<How, MvmfileError> {
    let mut files = Files::default();
    let mut owners = BTreeSet::new();
    for (path, file) in &project.file.files {
        let from = files.len();
        let mode = file.mode.map(|mode| mode.0);
        match &file.content {
            Content::Text(text) => files.text(path.inside(), mode.unwrap_or(0o644), text.as_str()),
            Content::Source(source) => files.put(path.inside(), &project.dir.join(source), mode, but)?,
        }
        if let Some(owner) = &file.owner {
            let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
            files.own(from, user, group);
            owners.insert([user.to_string(), group.to_string()]);
        }
    }
    unpacking(FILES, owners.into_iter().flatten().collect(), files, cancel)
}

fn root(project: &Project) -> Result<How, MvmfileError> {
    let file = &project.file;
    let named = file.packages.iter().map(|package| package.as_str());
    let packages: BTreeSet<&str> = ALWAYS.into_iter().chain(named).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let mut before: Vec<OsString> = vec![MMDEBSTRAP.provides.into()];
    before
        .extend(["--mode=root", "--format=directory", "--variant=minbase", "--verbose"].map(OsString::from));
    before.extend(LEFT_OUT.map(|rule| format!("--dpkgopt={rule}").into()));
    // The state is private: apt's own user could not write there.
    before.push("--aptopt=APT::Sandbox::User \"root\"".into());
    before.push(format!("--include={}", packages.join(",")).into());
    before.push(file.base.suite.clone().into());
    let after = sources(&file.base, &file.sources)?.into_iter().map(OsString::from).collect();
    Ok(How::Root { before, after })
}

/// The commands that make the users.
fn users(project: &Project) -> String {
    let users = &project.file.users;
    let (numbered, others): (Vec<_>, Vec<_>) = users.iter().partition(|(_, account)| account.uid.is_some());
    let of = |users: Vec<(&User, &super::Account)>| users.into_iter().map(useradd).collect::<String>();
    let own = "useradd --create-home --user-group --shell /bin/bash --groups kvm --password '*' mvm\n";
    [USERS, &of(numbered), own, &of(others)].concat()
}

fn useradd((name, account): (&User, &super::Account)) -> String {
    let mut text = String::from("useradd --create-home --user-group");
    if let Some(uid) = account.uid {
        text += &format!(" --uid {uid}");
    }
    if let Some(home) = &account.home {
        text += &format!(" --home-dir {}", quoted(home.as_str()));
    }
    let shell = account.shell.as_ref().map_or("/bin/sh", |shell| shell.as_str());
    text += &format!(" --shell {}", quoted(shell));
    if !account.groups.is_empty() {
        let groups: Vec<&str> = account.groups.iter().map(|group| group.as_str()).collect();
        text += &format!(" --groups {}", groups.join(","));
    }
    text + &format!(" {name}\n")
}

fn first_line(command: &str) -> String {
    let mut lines = command.trim().lines();
    let first = lines.next().unwrap_or_default().to_string();
    if lines.next().is_some() { first + " …" } else { first }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A state with all that setup lays out, of no content, and a project.
    fn keys(dir: &Path, mvmfile: &str) -> Vec<(String, String)> {
        let paths = Paths::at(dir.join("s"), dir.join("r")).unwrap();
        let (tools, skeleton) = (paths.host_tools(), paths.offline_flake().join("guest"));
        let project = dir.join("web");
        for dir in ["build/bin", "guest/bin", "guest/lib"].map(|name| tools.join(name)) {
            fs::create_dir_all(dir).unwrap();
        }
        fs::create_dir_all(&skeleton).unwrap();
        fs::create_dir_all(&project).unwrap();
        for file in ["build/bin/busybox", "guest/bin/mvm-guest", "guest/lib/ld-linux.so.2"] {
            fs::write(tools.join(file), file).unwrap();
        }
        for file in ["inittab", "rehearse", "start", "stop", "supervise", "sshd", "poweroff"] {
            fs::write(skeleton.join(file), file).unwrap();
        }
        fs::write(project.join(super::super::FILE), mvmfile).unwrap();
        let project = Project::read(&project).unwrap();
        let steps = steps(&project, &paths, &[], &CancellationToken::new()).unwrap();
        steps.into_iter().map(|step| (step.name, step.key)).collect()
    }

    // Archives of its own, as this machine may have no keys.
    const WEB: &str = "
        sources = ['http://127.0.0.1/debian']
        packages = ['nginx']
        run = ['make', 'make install']
        [users.web]
        [files]
        '/srv/page' = 'page'
        [services.web]
        run = 'exec web'
    ";

    /// The names of the layers that are others once something has changed.
    fn others(change: impl FnOnce(&Path) -> String) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("web")).unwrap();
        fs::write(dir.path().join("web/page"), "1").unwrap();
        let before = keys(dir.path(), WEB);
        assert_eq!(keys(dir.path(), WEB), before);
        let changed = change(dir.path());
        let after = keys(dir.path(), &changed);
        after.into_iter().filter(|step| !before.contains(step)).map(|(name, _)| name).collect()
    }

    #[test]
    fn a_changed_service_is_one_layer_and_what_lies_above_a_change_is_made_again() {
        assert_eq!(others(|_| WEB.replace("exec web", "exec web -v")), ["guest"]);
        assert_eq!(others(|_| WEB.replace("make install", "make all")), ["run-2", "guest"]);
        let page = |dir: &Path| {
            fs::write(dir.join("web/page"), "2").unwrap();
            WEB.into()
        };
        assert_eq!(others(page), ["files", "run-1", "run-2", "guest"]);
        assert_eq!(others(|_| WEB.replace("'nginx'", "'nginx', 'curl'")).len(), 6);
        // Neither the order of packages nor what a VM gets is part of any.
        assert!(others(|_| WEB.replace("'nginx'", "'nginx', 'nginx'") + "[resources]\ncpus = 2").is_empty());
    }
}
