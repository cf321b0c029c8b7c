//! `mvm agent certs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::context::{Context, print, print_json, say};
use crate::agent::pki::{self, DAYS, Listed, PeerName, Role, Validity};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm agent certs init                       found the cluster's authority\n  mvm agent certs issue node dev             for an agent; its file is printed\n  mvm agent certs issue coordinator front    for a coordinator\n  mvm agent certs issue client ann --days 30 for an operator\n  mvm agent certs status\n  mvm agent certs rotate                     new certificates in place of all that are there\n\nEach file holds a certificate and its key; give it, with `ca.pem`, to whom it is for. `ca.key` stays.\n`status` exits with 1 when a certificate is over or damaged."
)]
pub struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
    /// Directory of the certificates; cluster/pki in mvm's state, unless given
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Found the cluster's certificate authority, unless there is one
    Init,
    /// Issue a certificate with its key; the file is printed
    Issue {
        /// What its holder may do: node (serve), coordinator (wake, keep, release), client (everything)
        role: Role,
        /// Its holder's name
        name: PeerName,
        /// How long it is to last
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Issue new certificates with new keys in place of all that are there
    Rotate,
    /// Show what there is, for whom, and until when
    Status,
}

/// Runs the command.
pub fn certs(context: &Context, args: CertsArgs) -> Result<ExitCode> {
    let CertsArgs { command, dir } = args;
    let dir = dir.unwrap_or_else(|| context.paths.pki());
    match command {
        CertsCommand::Init => init(context, &dir)?,
        CertsCommand::Issue { role, name, days } => {
            let issued = pki::issue(&dir, role, &name, Validity::days(days)?)?;
            match context.json {
                true => print_json(&with_version(entry(&issued.path, &issued.certificate)))?,
                false => print(&issued.path.display().to_string())?,
            }
        }
        CertsCommand::Rotate => rotate(context, &dir)?,
        CertsCommand::Status => return status(context, &dir),
    }
    Ok(ExitCode::SUCCESS)
}

fn init(context: &Context, dir: &Path) -> Result<()> {
    let founded = pki::init(dir)?;
    if context.json {
        let Validity { from, until } = founded.validity;
        return print_json(
            &json!({ "v": 1, "new": founded.new, "path": founded.path, "from": from, "until": until }),
        );
    }
    if !founded.new {
        let until = day(founded.validity.until);
        say(&format!("note: there is an authority already, until {until}; nothing was changed"));
    }
    print(&founded.path.display().to_string())
}

fn rotate(context: &Context, dir: &Path) -> Result<()> {
    let all = pki::rotate(dir)?;
    if context.json {
        let items: Vec<_> = all.iter().map(|issued| entry(&issued.path, &issued.certificate)).collect();
        return print_json(&json!({ "v": 1, "certificates": items }));
    }
    if all.is_empty() {
        say("note: nothing was issued yet; `mvm agent certs issue` does");
    }
    for issued in &all {
        let until = day(issued.certificate.validity.until);
        print(&format!("{}  until {until}", issued.path.display()))?;
    }
    Ok(())
}

fn status(context: &Context, dir: &Path) -> Result<ExitCode> {
    let status = pki::status(dir)?;
    let now = Timestamp::now();
    let fine = |listed: &Listed| listed.certificate.as_ref().is_ok_and(|one| one.validity.holds(now));
    let all_fine = status.authority.holds(now) && status.certificates.iter().all(fine);
    let code = if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.json {
        let items: Vec<_> = status
            .certificates
            .iter()
            .map(|listed| match &listed.certificate {
                Ok(certificate) => entry(&listed.path, certificate),
                Err(error) => json!({ "path": listed.path, "fault": error.to_string() }),
            })
            .collect();
        let Validity { from, until } = status.authority;
        let authority = json!({ "path": dir.join(pki::AUTHORITY), "can_issue": status.can_issue,
                                "from": from, "until": until, "days_left": status.authority.days_left(now) });
        print_json(&json!({ "v": 1, "authority": authority, "certificates": items }))?;
        return Ok(code);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ROLE", "NAME", "UNTIL", "LEFT", "FILE"]);
    let path = dir.join(pki::AUTHORITY).display().to_string();
    let role = if status.can_issue { "authority" } else { "authority (no key)" };
    table.add_row([role.into(), "-".into(), day(status.authority.until), left(status.authority, now), path]);
    for listed in &status.certificates {
        let path = listed.path.display().to_string();
        table.add_row(match &listed.certificate {
            Ok(one) => [
                one.role.to_string(),
                one.name.to_string(),
                day(one.validity.until),
                left(one.validity, now),
                path,
            ],
            Err(_) => ["-".into(), "-".into(), "-".into(), "damaged".into(), path],
        });
    }
    table.to_string().lines().try_for_each(|line| print(line.trim_end()))?;
    for error in status.certificates.iter().filter_map(|listed| listed.certificate.as_ref().err()) {
        say(&format!("warning: {error}"));
    }
    Ok(code)
}

fn entry(path: &Path, certificate: &pki::Certificate) -> Value {
    let pki::Certificate { name, role, validity } = certificate;
    json!({ "path": path, "role": role, "name": name, "from": validity.from, "until": validity.until,
            "days_left": validity.days_left(Timestamp::now()) })
}

fn with_version(mut entry: Value) -> Value {
    entry["v"] = 1.into();
    entry
}

fn day(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d").to_string()
}

fn left(validity: Validity, now: Timestamp) -> String {
    match validity.days_left(now) {
        _ if now < validity.from => "not yet valid".into(),
        _ if now > validity.until => "over".into(),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}
