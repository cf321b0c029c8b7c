//! Claims about speed, measured: `cargo bench`, or `cargo bench -- boot log` for some of them.
//!
//! Each claim is measured side by side with what it is held against, taking turns in one run, so
//! that whatever else the machine does falls on both; medians are compared. A claim that takes too
//! long is measured fewer times and says so. The exit code is 1 when a limit was missed.
//!
//! The machine is prepared by mvm's own `setup --yes`; all state lies in `target/bench-state`.

mod agent;
mod boot;
mod build;
mod builder;
mod claim;
mod console;
mod fleet;
mod flood;
mod frame;
mod guest;
mod hand;
mod idle;
mod log;
mod mvmfile;
mod place;
mod plan;
mod process;
mod proxy;
mod restore;
mod start;
mod status;
mod terminal;
mod watch;

use std::process::ExitCode;

use anyhow::{Result, bail};

use claim::Claim;
use place::Place;

type Measure = fn(&Place) -> Result<Claim>;

const CLAIMS: [(&str, Measure); 32] = [
    ("build", build::measure),
    ("exec", guest::measure),
    ("boot", boot::measure),
    ("restore", restore::measure),
    ("bare", restore::measure_bare),
    ("log", log::measure),
    ("status", status::measure),
    ("terminal", terminal::measure),
    ("start", start::measure),
    ("frame", frame::measure),
    ("flood", flood::measure),
    ("idle", idle::measure),
    ("watch", watch::measure),
    ("watch-ready", watch::measure_ready),
    ("watch-many", watch::measure_many),
    ("watch-idle", watch::measure_idle),
    ("builder", builder::measure),
    ("mvmfile", mvmfile::measure),
    ("plan", plan::measure),
    ("plan-growth", plan::measure_growth),
    ("agent", agent::measure),
    ("each", agent::measure_each),
    ("wake", fleet::measure),
    ("agent-idle", fleet::measure_idle),
    ("proxy-bulk", proxy::bulk::measure),
    ("proxy-bulk-4", proxy::bulk::measure_several),
    ("proxy-bulk-up", proxy::bulk::measure_up),
    ("proxy-calls", proxy::rate::measure),
    ("proxy-asks", proxy::rate::measure_asks),
    ("proxy-crowd", proxy::crowd::measure),
    ("proxy-wake", proxy::wake::measure),
    ("proxy-storm", proxy::wake::measure_storm),
];

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some(proxy::backend::WORD) {
        return proxy::backend::serve().map(|()| ExitCode::SUCCESS);
    }
    // cargo adds `--bench`.
    let wished: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let names: Vec<&str> = CLAIMS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = wished.iter().find(|word| !names.contains(&word.as_str())) {
        bail!("there is no claim `{unknown}`; there are: {}", names.join(", "));
    }
    let place = Place::prepare()?;
    let mut missed = 0;
    for (name, measure) in CLAIMS {
        if wished.is_empty() || wished.iter().any(|word| word == name) {
            let claim = measure(&place)?;
            missed += usize::from(!claim.is_met());
            println!("{claim}");
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
