//! `Mvmfile.toml`: an image by a distribution's packages, files, commands and services.

pub mod build;
pub mod error;
mod guest;
mod layers;
mod parse;
pub mod shelf;
mod sources;
mod stage;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::profiles::Amount;
pub use error::MvmfileError;
pub use words::{Base, Distribution, GuestPath, Label, Mode, Package, Port, User};

/// The file's name.
pub const FILE: &str = "Mvmfile.toml";

/// What an image is made of, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mvmfile {
    /// The image's name; that of the directory when absent.
    pub name: Option<Label>,
    /// The distribution it begins with.
    #[serde(default)]
    pub base: Base,
    /// Where packages come from, as addresses or as lines for apt; the distribution's own archives when absent.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Packages besides the least there can be.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Users besides those of the packages.
    #[serde(default)]
    pub users: BTreeMap<User, Account>,
    /// Files, by their place in the guest.
    #[serde(default)]
    pub files: BTreeMap<GuestPath, File>,
    /// Shell commands, run in the image in this order, as root, once its files are there.
    #[serde(default)]
    pub run: Vec<String>,
    /// What runs in the guest.
    #[serde(default)]
    pub services: BTreeMap<Label, Service>,
    /// What is published when it is started.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// What the VM gets unless told otherwise.
    #[serde(default)]
    pub resources: Resources,
}

/// A user of the image's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Number; the next free one when absent.
    pub uid: Option<u32>,
    /// Groups besides the user's own; they must be there.
    #[serde(default)]
    pub groups: Vec<User>,
    /// Home directory; below `/home` when absent.
    pub home: Option<GuestPath>,
    /// Login shell; `/bin/sh` when absent.
    pub shell: Option<GuestPath>,
}

/// A file or directory of the image: a path beside the Mvmfile, or more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What it holds.
    pub content: Content,
    /// Its permissions; as the source is executable or not when absent.
    pub mode: Option<Mode>,
    /// `USER` or `USER:GROUP`; root when absent.
    pub owner: Option<String>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text in the Mvmfile.
    Text(String),
    /// A file or directory, relative to the Mvmfile's.
    Source(PathBuf),
}

/// Something that is kept running.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// A shell script, or one that begins with `#!`.
    pub run: String,
    /// The user it runs as; root when absent.
    pub user: Option<User>,
    /// Where it runs; `/` when absent.
    pub dir: Option<GuestPath>,
    /// Its environment besides the usual.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What the VM gets; what each may be is for who makes one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Number of CPUs, as written.
    pub cpus: Option<Amount>,
    /// Memory, as written.
    pub memory: Option<Amount>,
    /// Size of the upper disk, as written.
    pub disk: Option<Amount>,
}

/// An Mvmfile and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// The image's name.
    pub name: String,
    /// What the file says.
    pub file: Mvmfile,
}
