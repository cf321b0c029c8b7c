//! Builds from an Mvmfile.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::claim::{Claim, Limit, in_turns};
use crate::place::Place;
use crate::process::run;

/// A build in which one service has changed, against the first one, which installs the packages.
pub fn measure(place: &Place) -> Result<Claim> {
    run(&mut place.mvm(&["setup", "--yes", "--with", "mvmfile"])?)?;
    let dir = place.paths()?.state().join("mvmfile");
    let output = dir.join("web.elf");
    fs::create_dir_all(&dir)?;
    let (project, output) = (dir.to_str(), output.to_str());
    let arguments = ["build", project.context("no UTF-8")?, "--output", output.context("no UTF-8")?];
    let build = |more: &[&str]| {
        change(&dir)?;
        let begun = Instant::now();
        run(&mut place.mvm(&[&arguments, more].concat())?)?;
        Ok(begun.elapsed())
    };
    // The packages may not be there yet.
    build(&[])?;
    let (ours, theirs) = in_turns(3, || build(&[]), || build(&["--rebuild"]))?;
    Ok(Claim {
        what: "mvm build of an Mvmfile, one service changed",
        ours,
        limit: Limit::Share(0.2, "the first build", theirs),
        stated: Vec::new(),
    })
}

fn change(dir: &Path) -> Result<()> {
    let now = Timestamp::now().as_nanosecond();
    let text = format!("packages = ['nginx-light']\n[services.nginx]\nrun = 'exec nginx # {now}'\n");
    Ok(fs::write(dir.join("Mvmfile.toml"), text)?)
}
