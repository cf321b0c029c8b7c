//! `mvm init`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::context::{print, print_json, say};
use crate::image::flake::Tree;
use crate::image::template::Template;

const EXAMPLES: &str = "\
Examples:
  mvm init                                a shell and ssh, here
  mvm init web --template gateway         a page on port 8080, in the directory web
  mvm init api --template python          then: mvm setup --with python
  mvm init web --template debian          no Nix: an Mvmfile.toml, built into one file

What is written is a flake, or an Mvmfile, with comments, for who has never seen one. It takes all it needs
from this machine. Files that are there are left alone, and nothing is written then.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Where to; it is made if it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What to begin with
    #[arg(long, value_enum, default_value_t)]
    template: Template,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
}

/// Writes a flake and says how to go on.
pub fn init(args: &InitArgs, json: bool) -> Result<ExitCode> {
    args.template.write(&args.dir, args.force)?;
    let dir = args.dir.strip_prefix(".").unwrap_or(&args.dir);
    let files: Vec<PathBuf> = args.template.files().iter().map(|(name, _)| dir.join(name)).collect();
    let next = next(args)?;
    if json {
        print_json(&json!({ "v": 1, "files": files, "next": next }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for file in &files {
        say(&format!("wrote {}", file.display()));
    }
    say("\nnext:");
    next.iter().try_for_each(|line| print(line))?;
    Ok(ExitCode::SUCCESS)
}

/// The commands that bring it to life.
fn next(args: &InitArgs) -> Result<Vec<String>> {
    let dir = args.dir.display().to_string();
    let dir = shlex::try_quote(&dir)?.into_owned();
    let flake = if dir == "." { String::new() } else { format!(" --flake {dir}") };
    let mut next = Vec::new();
    if args.template == Template::Debian {
        let (build, app) = match dir.as_str() {
            "." => ("mvm build".into(), "./web.elf".into()),
            dir => (format!("mvm build {dir} --output {dir}/web.elf"), format!("{dir}/web.elf")),
        };
        return Ok(vec!["mvm setup --with mvmfile".into(), build, app]);
    }
    if Tree::find(&args.dir)?.git {
        // Nix sees nothing else of a git tree.
        next.push(format!("git add {dir}"));
    }
    next.extend(match (args.template, args.template.language()) {
        (_, Some(language)) => {
            vec![format!("mvm setup --with {}", language.name()), format!("mvm run{flake} --detach")]
        }
        (Template::Hello, _) => vec![format!("mvm build{flake} --list"), format!("mvm run --setup{flake}")],
        (_, None) => vec![format!("mvm run --setup{flake} --detach"), "curl http://127.0.0.1:8080/".into()],
    });
    Ok(next)
}
