//! Flake references, parsed at the door.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What the user pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlakeRef {
    /// Where the flake is.
    pub place: Place,
    /// What follows `#`, if anything.
    pub attribute: Option<String>,
}

/// Where a flake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory on this machine with a `flake.nix`.
    Local(Tree),
    /// A reference that Nix resolves, e.g. `github:owner/repo`.
    Url(String),
}

/// A local flake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The directory with `flake.nix`, without symbolic links in its path.
    pub dir: PathBuf,
    /// What Nix takes as the source: the root of the git tree, or the directory itself.
    pub root: PathBuf,
    /// Whether `root` is a git tree, so that Nix sees tracked files only.
    pub git: bool,
    /// Whether it was given as `path:…`: a directory as it is, be it in a git tree or not.
    pub by_path: bool,
}

/// Why a reference cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RefError {
    /// It would be taken for an option.
    #[error("the flake reference `{0}` begins with `-`\nhelp: if it is a directory, write `./{0}`")]
    Option(String),
    /// Nothing was given.
    #[error("the flake reference is empty\nhelp: give a directory with a flake.nix, e.g. `--flake .`")]
    Empty,
    /// No such directory.
    #[error(
        "no directory `{path}`: {source}\nhelp: give a directory with a flake.nix, or a URL such as github:OWNER/REPO"
    )]
    NoDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No flake there.
    #[error("`{dir}` has no flake.nix\nhelp: {help}")]
    NoFlake {
        /// The directory.
        dir: PathBuf,
        /// Where one is.
        help: String,
    },
    /// An attribute Nix or a shell could misread.
    #[error(
        "`{0}` is no attribute mvm accepts\nhelp: letters, digits, `_`, `.` and `-` only, e.g. `minimal` or `packages.x86_64-linux.minimal`"
    )]
    Attribute(String),
}

impl FromStr for FlakeRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        if text.is_empty() {
            return Err(RefError::Empty);
        }
        if text.starts_with('-') {
            return Err(RefError::Option(text.into()));
        }
        if let Some(path) = text.strip_prefix("path:").filter(|path| is_here(path)) {
            return local(path, Tree::at);
        }
        if is_url(text) {
            let (url, attribute) = split_attribute(text);
            return Ok(Self {
                place: Place::Url(url.into()),
                attribute: attribute.map(checked).transpose()?,
            });
        }
        local(text, Tree::find)
    }
}

impl FlakeRef {
    /// The reference as people write it, made absolute.
    pub fn display(&self) -> String {
        let place = match &self.place {
            Place::Local(tree) if tree.by_path => format!("path:{}", tree.dir.display()),
            Place::Local(tree) => tree.dir.display().to_string(),
            Place::Url(url) => url.clone(),
        };
        match &self.attribute {
            Some(attribute) => format!("{place}#{attribute}"),
            None => place,
        }
    }

    /// A short name for people, e.g. the directory's.
    pub fn short_name(&self) -> String {
        let text = match &self.place {
            Place::Local(tree) => tree.dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Place::Url(url) => url.split(['?', '#']).next().unwrap_or(url).to_string(),
        };
        text.rsplit('/').next().unwrap_or(&text).to_string()
    }

    /// What Nix is given for `attribute`; Nix has to run in [`Self::nix_dir`].
    pub fn installable(&self, attribute: &str) -> OsString {
        let place = match &self.place {
            Place::Local(tree) => tree.reference(),
            Place::Url(url) => url.clone(),
        };
        format!("{place}#{attribute}").into()
    }

    /// The directory Nix has to run in.
    pub fn nix_dir(&self) -> Option<&Path> {
        self.tree().map(Tree::nix_dir)
    }

    /// The local tree, if it is one.
    pub fn tree(&self) -> Option<&Tree> {
        match &self.place {
            Place::Local(tree) => Some(tree),
            Place::Url(_) => None,
        }
    }
}

impl Tree {
    /// The flake in `dir`, as a part of the git tree around it if there is one.
    pub fn find(dir: &Path) -> Result<Self, RefError> {
        let tree = Self::at(dir)?;
        let root = tree.dir.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_path_buf);
        Ok(Self { git: root.is_some(), by_path: false, root: root.unwrap_or(tree.root), dir: tree.dir })
    }

    /// The flake in `dir`, which is all there is to it.
    fn at(dir: &Path) -> Result<Self, RefError> {
        let canonical =
            dir.canonicalize().map_err(|source| RefError::NoDir { path: dir.to_path_buf(), source })?;
        if !canonical.join("flake.nix").is_file() {
            return Err(RefError::NoFlake { help: suggestion(&canonical), dir: canonical });
        }
        Ok(Self { root: canonical.clone(), dir: canonical, git: false, by_path: true })
    }

    /// Whether Nix (2.8) cannot make a URL of the git tree's root: it neither escapes the path
    /// itself nor, given it escaped, takes the tree for a local one whose changes count.
    fn is_odd(&self) -> bool {
        let root = self.root.as_os_str().as_bytes();
        self.git && escape(root).len() != root.len()
    }

    /// A reference relative to where Nix runs, which spares paths from Nix's URL parser.
    fn reference(&self) -> String {
        if self.by_path {
            return "path:.".into();
        }
        if !self.is_odd() {
            return ".".into();
        }
        match self.dir.strip_prefix(&self.root) {
            Ok(sub) if !sub.as_os_str().is_empty() => {
                format!("git+file:.?dir={}", escape(sub.as_os_str().as_bytes()))
            }
            _ => "git+file:.".into(),
        }
    }

    /// Where Nix has to run for [`Self::reference`] to be right.
    fn nix_dir(&self) -> &Path {
        if self.is_odd() { &self.root } else { &self.dir }
    }
}

/// A scheme and a colon, as in `path:…` or `git+file:…`; a path never has one before its first `/`.
fn is_url(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
        && !Path::new(text).is_dir()
}

/// A directory, and an attribute if one follows.
fn local(text: &str, tree: impl Fn(&Path) -> Result<Tree, RefError>) -> Result<FlakeRef, RefError> {
    // A `#` may be part of a directory's name: the whole is tried first.
    let (dir, attribute) = if Path::new(text).is_dir() { (text, None) } else { split_attribute(text) };
    let dir = if dir.is_empty() { "." } else { dir };
    let attribute = attribute.map(checked).transpose()?;
    Ok(FlakeRef { place: Place::Local(tree(Path::new(dir))?), attribute })
}

/// Whether what follows `path:` says no more than where a directory is.
fn is_here(path: &str) -> bool {
    let is_plain = !path.is_empty() && !path.contains(['?', '%']);
    is_plain || Path::new(path).is_dir() || Path::new(split_attribute(path).0).is_dir()
}

fn split_attribute(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('#') {
        Some((place, "")) => (place, None),
        Some((place, attribute)) => (place, Some(attribute)),
        None => (text, None),
    }
}

fn checked(attribute: &str) -> Result<String, RefError> {
    if is_attribute(attribute) { Ok(attribute.into()) } else { Err(RefError::Attribute(attribute.into())) }
}

/// Whether `text` may be used as an attribute, a profile or a role.
pub fn is_attribute(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Percent-encodes what is not safe in a URL's path.
fn escape(path: &[u8]) -> String {
    path.iter().fold(String::new(), |mut out, &byte| {
        if byte.is_ascii_alphanumeric() || b"/_.-~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// What else there is to build: an Mvmfile, or a flake in a parent or a few levels below.
fn suggestion(dir: &Path) -> String {
    if dir.join("Mvmfile.toml").is_file() {
        return format!(
            "it has an Mvmfile.toml: `mvm build {}` makes an app of it, for `mvm start`",
            dir.display()
        );
    }
    if let Some(parent) = dir.ancestors().skip(1).find(|dir| dir.join("flake.nix").is_file()) {
        return format!("there is one in `{}`: use --flake {}", parent.display(), parent.display());
    }
    let mut found: Vec<String> = ignore::WalkBuilder::new(dir)
        .max_depth(Some(4))
        .build()
        .flatten()
        .take(5000)
        .filter(|entry| entry.file_name() == "flake.nix")
        .filter_map(|entry| Some(format!("`{}`", entry.path().parent()?.display())))
        .take(5)
        .collect();
    found.sort();
    match found.as_slice() {
        [] => "run `mvm init` there, or give another directory".into(),
        found => format!("there is one in {}", found.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flake(dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("flake.nix"), "{ }").unwrap();
    }

    #[test]
    fn a_directory_may_have_any_name_and_an_attribute_after_it() {
        let base = tempfile::tempdir().unwrap();
        for name in ["plain", "with space", "ha#sh", "que?stion", "ünï"] {
            let dir = base.path().canonicalize().unwrap().join(name);
            flake(&dir);
            let plain: FlakeRef = dir.to_str().unwrap().parse().unwrap();
            assert_eq!((plain.nix_dir(), plain.attribute.as_deref()), (Some(dir.as_path()), None));
            let with: FlakeRef = format!("{}#minimal", dir.display()).parse().unwrap();
            assert_eq!((with.nix_dir(), with.attribute.as_deref()), (Some(dir.as_path()), Some("minimal")));
            assert_eq!(with.installable("x"), ".#x");
        }
    }

    #[test]
    fn a_git_root_with_odd_characters_is_entered_and_the_flake_below_it_is_named() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().canonicalize().unwrap().join("re po#é%41");
        flake(&root.join("sub dir"));
        std::fs::create_dir(root.join(".git")).unwrap();
        let reference: FlakeRef = root.join("sub dir").to_str().unwrap().parse().unwrap();
        assert_eq!(reference.installable("a"), "git+file:.?dir=sub%20dir#a");
        assert_eq!(reference.nix_dir(), Some(root.as_path()));
    }

    #[test]
    fn references_nix_resolves_pass_through() {
        for url in
            ["github:NixOS/nixpkgs", "path:/x?rev=y", "path:/a%20b", "git+file:///x?dir=y", "nixpkgs:x"]
        {
            let reference: FlakeRef = format!("{url}#a").parse().unwrap();
            assert_eq!(reference.place, Place::Url(url.into()));
            assert_eq!(reference.display(), format!("{url}#a"));
        }
    }

    #[test]
    fn a_directory_given_by_path_is_local_and_no_part_of_the_git_tree_around_it() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().canonicalize().unwrap();
        let dir = root.join("sub");
        flake(&dir);
        std::fs::create_dir(root.join(".git")).unwrap();
        let reference: FlakeRef = format!("path:{}#a", dir.display()).parse().unwrap();
        assert_eq!(reference.installable("x"), "path:.#x");
        assert_eq!(reference.display(), format!("path:{}#a", dir.display()));
        let tree = reference.tree().unwrap();
        assert_eq!((&tree.root, tree.git, reference.nix_dir()), (&dir, false, Some(dir.as_path())));
        for name in ["ha#sh", "que?stion", "per%20cent"] {
            let dir = root.join(name);
            flake(&dir);
            let reference: FlakeRef = format!("path:{}#a", dir.display()).parse().unwrap();
            assert_eq!(reference.nix_dir(), Some(dir.as_path()));
            assert_eq!(reference.display().parse::<FlakeRef>().unwrap(), reference);
        }
        let error = "path:/no/such/dir".parse::<FlakeRef>().unwrap_err().to_string();
        assert!(error.contains("no directory `/no/such/dir`"), "{error}");
    }

    #[test]
    fn what_could_be_misread_is_refused_with_a_reason() {
        let refused = |text: &str| text.parse::<FlakeRef>().unwrap_err().to_string();
        assert!(refused("--impure").contains("begins with `-`"));
        assert!(refused("").contains("empty"));
        assert!(refused("github:a/b#x y").contains("`x y` is no attribute"));
        assert!(refused("/no/such/dir").contains("no directory `/no/such/dir`"));
    }

    #[test]
    fn a_directory_without_a_flake_is_named_together_with_the_nearest_one() {
        let base = tempfile::tempdir().unwrap();
        flake(&base.path().join("nix/hello"));
        let error = base.path().to_str().unwrap().parse::<FlakeRef>().unwrap_err().to_string();
        assert!(error.contains("has no flake.nix") && error.contains("nix/hello"), "{error}");
        std::fs::create_dir(base.path().join("nix/hello/src")).unwrap();
        let below = base.path().join("nix/hello/src");
        let error = below.to_str().unwrap().parse::<FlakeRef>().unwrap_err().to_string();
        assert!(error.contains("use --flake"), "{error}");
    }
}
