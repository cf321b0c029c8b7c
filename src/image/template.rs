//! Projects to begin with, written whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::host::files::write_atomic;
use crate::host::languages::Language;

/// A file of a template: where it lies, and its content.
type File = (&'static str, &'static str);

const GITIGNORE: File = (".gitignore", include_str!("../../assets/templates/gitignore"));
const HELLO: [File; 2] = [("flake.nix", include_str!("../../assets/templates/hello/flake.nix")), GITIGNORE];
const GATEWAY: [File; 6] = [
    ("flake.nix", include_str!("../../assets/templates/gateway/flake.nix")),
    ("mvm.toml", include_str!("../../assets/templates/gateway/mvm.toml")),
    ("mvm-profiles.toml", include_str!("../../assets/templates/gateway/mvm-profiles.toml")),
    ("modules/status.nix", include_str!("../../assets/templates/gateway/modules/status.nix")),
    ("www/index.html", include_str!("../../assets/templates/gateway/www/index.html")),
    GITIGNORE,
];
const PYTHON: [File; 4] = [
    ("flake.nix", include_str!("../../assets/templates/python/flake.nix")),
    ("mvm.toml", include_str!("../../assets/templates/python/mvm.toml")),
    ("app.py", include_str!("../../assets/templates/python/app.py")),
    GITIGNORE,
];
const NODE: [File; 4] = [
    ("flake.nix", include_str!("../../assets/templates/node/flake.nix")),
    ("mvm.toml", include_str!("../../assets/templates/node/mvm.toml")),
    ("server.js", include_str!("../../assets/templates/node/server.js")),
    GITIGNORE,
];
const DEBIAN: [File; 3] = [
    ("Mvmfile.toml", include_str!("../../assets/templates/debian/Mvmfile.toml")),
    ("site/index.html", include_str!("../../assets/templates/debian/site/index.html")),
    (".gitignore", include_str!("../../assets/templates/debian/gitignore")),
];

/// A project to begin with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// A shell and ssh
    #[default]
    Hello,
    /// A web page on port 8080, with roles and profiles of its own
    Gateway,
    /// A Python service on port 8080 (takes `mvm setup --with python`)
    Python,
    /// A Node service on port 8080 (takes `mvm setup --with node`)
    Node,
    /// No flake but an Mvmfile: nginx on Debian, on port 8080 (takes `mvm setup --with mvmfile`)
    Debian,
}

/// Why a template was not written.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There are such files already.
    #[error(
        "`{dir}` has {} already; nothing was written\nhelp: give another directory, or --force to write over files",
        named(files)
    )]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// The files, relative to it.
        files: Vec<&'static str>,
    },
    /// A file could not be written.
    #[error(
        "cannot write `{path}`: {source}\nhelp: {}; what was not there before is removed again",
        help(source)
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotADirectory => "a part of this path is a file: give another directory",
        io::ErrorKind::AlreadyExists => {
            "a link that leads nowhere is in the way: remove it, or give another directory"
        }
        io::ErrorKind::NotFound => "nothing can be made there: give another directory",
        _ => "mend its permissions or free some space",
    }
}

impl Template {
    /// The files.
    pub fn files(self) -> &'static [File] {
        match self {
            Self::Hello => &HELLO,
            Self::Gateway => &GATEWAY,
            Self::Python => &PYTHON,
            Self::Node => &NODE,
            Self::Debian => &DEBIAN,
        }
    }

    /// The language its guests take from this machine.
    pub fn language(self) -> Option<Language> {
        match self {
            Self::Hello | Self::Gateway | Self::Debian => None,
            Self::Python => Some(Language::Python),
            Self::Node => Some(Language::Node),
        }
    }

    /// Writes the files into `dir`, which is made if it is not there. Files of their names are an error
    /// unless `force` has them written over.
    pub fn write(self, dir: &Path, force: bool) -> Result<(), TemplateError> {
        let names = self.files().iter().map(|(name, _)| *name);
        let there = |name: &&str| dir.join(name).symlink_metadata().is_ok();
        let files: Vec<&str> = names.clone().filter(there).collect();
        // A directory is not written over.
        let in_the_way: Vec<&str> =
            names.filter(there).filter(|name| !force || dir.join(name).is_dir()).collect();
        if !in_the_way.is_empty() {
            return Err(TemplateError::Exists { dir: dir.into(), files: in_the_way });
        }
        let mut made = Vec::new();
        let written = self.files().iter().try_for_each(|(name, content)| {
            let path = dir.join(name);
            put(&path, content, files.contains(name), &mut made)
                .map_err(|source| TemplateError::Write { path, source })
        });
        if written.is_err() {
            for path in made.iter().rev() {
                // It was not there before; what another process put into a directory keeps that.
                let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            }
        }
        written
    }
}

/// Writes one file, over another only if it was seen before; adds to `made` what was not there.
fn put(path: &Path, content: &str, over: bool, made: &mut Vec<PathBuf>) -> io::Result<()> {
    if over {
        return write_atomic(path, content.as_bytes(), 0o644);
    }
    let missing = path.ancestors().skip(1).take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    let missing: Vec<&Path> = missing.collect();
    for dir in missing.into_iter().rev() {
        DirBuilder::new().create(dir)?;
        made.push(dir.to_path_buf());
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    made.push(path.to_path_buf());
    file.write_all(content.as_bytes())
}

fn named(files: &[&str]) -> String {
    files.iter().map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn all_in(dir: &Path) -> usize {
        ignore::WalkBuilder::new(dir).standard_filters(false).build().skip(1).count()
    }

    #[test]
    fn every_template_is_written_whole_into_a_new_directory() {
        for template in Template::value_variants() {
            let base = tempfile::tempdir().unwrap();
            let dir = base.path().join("some/where");
            template.write(&dir, false).unwrap();
            for (name, content) in template.files() {
                assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), *content);
            }
        }
    }

    #[test]
    fn what_is_there_is_named_and_nothing_is_written() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("mvm.toml"), "cpus = 2").unwrap();
        fs::create_dir(base.path().join("flake.nix")).unwrap();
        let error = Template::Gateway.write(base.path(), false).unwrap_err().to_string();
        assert!(error.contains("has `flake.nix`, `mvm.toml` already"), "{error}");
        assert_eq!(all_in(base.path()), 2);
    }

    #[test]
    fn force_writes_over_what_is_there() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("flake.nix"), "{ }").unwrap();
        Template::Hello.write(base.path(), true).unwrap();
        assert_eq!(fs::read_to_string(base.path().join("flake.nix")).unwrap(), HELLO[0].1);
        fs::create_dir(base.path().join("mvm.toml")).unwrap();
        let error = Template::Node.write(base.path(), true).unwrap_err().to_string();
        assert!(error.contains("has `mvm.toml` already"), "a directory is no file: {error}");
    }

    #[test]
    fn what_cannot_be_written_whole_is_taken_back() {
        let base = tempfile::tempdir().unwrap();
        // A file where a directory has to be, of which the last but one file takes notice.
        fs::write(base.path().join("www"), "").unwrap();
        let error = Template::Gateway.write(base.path(), false).unwrap_err().to_string();
        assert!(error.contains("www/index.html"), "{error}");
        assert_eq!(all_in(base.path()), 1);
    }
}
