//! An output that was built in another store, brought into this machine's.

use std::ffi::OsString;
use std::path::Path;

use super::error::BuildError;
use super::log::{NixLog, Report, Usual};
use super::machines::StoreUri;
use super::nix::Nix;
use super::origin::Origin;
use crate::event::EventSink;
use crate::event::text::strip;

/// Copies `out` with all it refers to; nothing happens for what is here already.
pub async fn copy(out: &Path, from: &StoreUri, nix: &Nix<'_>, sink: &EventSink) -> Result<(), BuildError> {
    sink.phase("copy");
    // Whoever lets a store build for him takes what it gives, as Nix does with builders.
    let mut args: Vec<OsString> =
        ["copy", "--no-check-sigs", "--log-format", "internal-json"].map(Into::into).into();
    args.extend(["--from".into(), from.as_str().into()]);
    let (origin, usual) = (Origin::default(), Usual::new());
    let mut log = NixLog::new(sink, &origin, &usual, "");
    let nix = Nix { inputs: None, ..*nix };
    let ran = nix.run(&args, &[out.into()], |bytes| log.feed(bytes)).await;
    let report = log.finish();
    if ran?.ok {
        return Ok(());
    }
    Err(BuildError::Copy { out: out.into(), from: from.as_str().into(), message: said(&report) })
}

/// Nix's errors in plain words.
fn said(report: &Report) -> String {
    let said = if report.errors.is_empty() { &report.others } else { &report.errors };
    let plain = |error: &String| strip(error).trim_start_matches("error:").trim().to_owned();
    said.iter().map(plain).collect::<Vec<_>>().join("\n")
}
