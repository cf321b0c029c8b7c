//! From a directory to an Mvmfile, or to all that is wrong with it.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{Content, FILE, File, Mode, Mvmfile, MvmfileError, Project};
use crate::event::fault::{Fault, Faults, shown};
use crate::event::words::label;
use crate::host::chamber::MOST_LAYERS;

/// Longest file, in bytes.
const LONGEST: u64 = 1 << 20;
/// Most `run` commands: each is a layer, and there are some besides.
const MOST_COMMANDS: usize = MOST_LAYERS - 16;
/// Where the guest has file systems of its own, or what mvm puts there.
const TAKEN: [&str; 14] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "etc/hostname",
    "etc/hosts",
    "etc/inittab",
    "etc/machine-id",
    "etc/mvm",
    "etc/resolv.conf",
    "etc/service",
    "sbin/init",
    "usr/lib/mvm",
];

impl Project {
    /// The Mvmfile in a directory.
    pub fn read(dir: &Path) -> Result<Self, MvmfileError> {
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |source| MvmfileError::Read { path, source }
        };
        let dir = std::fs::canonicalize(dir).map_err(fail(dir))?;
        let path = dir.join(FILE);
        let text = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(MvmfileError::None { is_flake: dir.join("flake.nix").exists(), dir });
            }
            Ok(meta) if !meta.is_file() => Err(io::Error::other("it is no file")),
            Ok(meta) if meta.len() > LONGEST => Err(io::Error::other("it is longer than 1 MiB")),
            _ => std::fs::read_to_string(&path),
        };
        let text = text.map_err(fail(&path))?;
        let file = Mvmfile::parse(&text, &dir).map_err(|faults| MvmfileError::Invalid { path, faults })?;
        let of_dir = || label(&dir.file_name().unwrap_or_default().to_string_lossy());
        let name = file.name.as_ref().map(ToString::to_string).or_else(of_dir);
        Ok(Self { name: name.unwrap_or_else(|| "app".into()), dir, file })
    }
}

impl Mvmfile {
    /// Reads an Mvmfile that lies in `dir`. What is no TOML or not of the schema is one fault; whatever
    /// cannot be is told all at once.
    pub fn parse(text: &str, dir: &Path) -> Result<Self, Faults> {
        let fault =
            |path: &str, error: &toml::de::Error| Faults(vec![Fault::of_toml(text, path, error, advice)]);
        let read = toml::Deserializer::parse(text).map_err(|error| fault("", &error))?;
        let file: Self = serde_path_to_error::deserialize(read)
            .map_err(|error| fault(&error.path().to_string(), error.inner()))?;
        let faults = file.faults(dir);
        if faults.is_empty() { Ok(file) } else { Err(Faults(faults)) }
    }

    fn faults(&self, dir: &Path) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.check_files(dir, &mut faults);
        self.check_commands(&mut faults);
        for name in self.users.keys().filter(|name| ["root", "mvm"].contains(&name.as_str())) {
            let what = format!("every guest has the user `{name}`");
            add(
                &mut faults,
                format!("users.{name}"),
                what,
                "take it out; services and files can be that user's",
            );
        }
        self.check_services(&mut faults);
        for (index, source) in self.sources.iter().enumerate() {
            let known = ["http://", "https://", "file:", "copy:", "deb "];
            let known = known.iter().any(|begin| source.starts_with(begin));
            if !known || source.contains(char::is_control) {
                let help = "write its address, e.g. `https://HOST/debian`, or a line for apt: `deb https://HOST/debian bookworm main`";
                add(&mut faults, format!("sources[{index}]"), format!("`{source}` is no source"), help);
            }
        }
        faults
    }

    fn check_files(&self, dir: &Path, faults: &mut Vec<Fault>) {
        for (path, file) in &self.files {
            let at = format!("files.\"{path}\"");
            if let Some(taken) = TAKEN.iter().find(|taken| Path::new(path.inside()).starts_with(taken)) {
                let what = format!("/{taken} of a guest is mvm's, or not part of its image");
                let help = "put the file elsewhere, and have a service or a command use it there";
                add(faults, at.clone(), what, help);
            }
            if let Some(owner) = file.owner.as_ref().filter(|owner| !is_owner(owner)) {
                let what = format!("the owner `{owner}` cannot be used");
                add(faults, at.clone(), what, "write USER or USER:GROUP");
            }
            let Content::Source(source) = &file.content else { continue };
            let is_inside =
                source.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            // A link may lead anywhere.
            match dir.join(source).canonicalize() {
                Ok(real) if is_inside && dir.canonicalize().is_ok_and(|dir| real.starts_with(dir)) => {}
                Err(error) if is_inside => {
                    let what = format!("the source `{}` cannot be read: {error}", source.display());
                    let help = "it is relative to the Mvmfile; a text goes into `text = \"…\"`";
                    add(faults, at, what, help);
                }
                _ => {
                    let what =
                        format!("the source `{}` leads out of the Mvmfile's directory", source.display());
                    add(faults, at, what, "name a file or directory beside or below it");
                }
            }
        }
    }

    fn check_commands(&self, faults: &mut Vec<Fault>) {
        for (index, command) in self.run.iter().enumerate() {
            let at = format!("run[{index}]");
            if command.trim().is_empty() {
                add(faults, at, "an empty command".into(), "write a shell command, or take it out");
            } else if command.contains('\0') {
                add(faults, at, "a command with a zero byte".into(), "take it out");
            }
        }
        if self.run.len() > MOST_COMMANDS {
            let what = format!("{} commands; {MOST_COMMANDS} are the most", self.run.len());
            add(faults, "run".into(), what, "join some with `&&`");
        }
    }

    fn check_services(&self, faults: &mut Vec<Fault>) {
        for (name, service) in &self.services {
            let at = format!("services.{name}");
            if name.as_str() == "sshd" {
                add(faults, at.clone(), "every guest has this service".into(), "give it another name");
            }
            if service.run.trim().is_empty() || service.run.contains('\0') {
                let help = "write what starts it, e.g. `exec python3 app.py`";
                add(faults, format!("{at}.run"), "it is no script".into(), help);
            }
            for (key, value) in &service.env {
                let is_name = !key.is_empty()
                    && !key.starts_with(|c: char| c.is_ascii_digit())
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !is_name || value.contains('\0') {
                    let what = format!("`{key}` cannot be a variable");
                    add(faults, format!("{at}.env"), what, "use letters, digits and `_`");
                }
            }
        }
    }
}

fn add(faults: &mut Vec<Fault>, path: String, what: String, help: &str) {
    faults.push(Fault { path: shown(&path), what: shown(&what), help: help.into() });
}

fn is_owner(owner: &str) -> bool {
    let (user, group) = owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group)));
    std::iter::once(user).chain(group).all(|name| name.parse::<super::User>().is_ok())
}

fn advice(message: &str) -> String {
    match message {
        _ if message.starts_with("missing field") => "add it; it has no default".into(),
        _ if message.contains("PortWord") => {
            "write the guest's port, `80`, or HOST:GUEST, `\"8080:80\"`".into()
        }
        _ if message.contains("expected a sequence") => "write a list: `[\"…\", \"…\"]`".into(),
        _ => "`mvm build --help` shows a whole Mvmfile, `mvm init --template debian` writes one".into(),
    }
}

/// A file with more to it than where it comes from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    text: Option<String>,
    source: Option<PathBuf>,
    mode: Option<Mode>,
    owner: Option<String>,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = File;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a path, or a table with `text` or `source`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<File, E> {
        Ok(File { content: Content::Source(text.into()), mode: None, owner: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<File, A::Error> {
        let FileTable { text, source, mode, owner } =
            FileTable::deserialize(MapAccessDeserializer::new(map))?;
        let content = match (text, source) {
            (Some(text), None) => Content::Text(text),
            (None, Some(source)) => Content::Source(source),
            _ => {
                return Err(de::Error::custom(
                    "it takes one of `text` and `source`\nhelp: write `text = \"…\"`, or `source = \"FILE\"`",
                ));
            }
        };
        Ok(File { content, mode, owner })
    }
}

#[cfg(test)]
mod tests;
