//! `mvm build --list`.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::context::{Context, print, print_json};
use super::options::FlakeArgs;
use super::report::Interrupted;
use super::task::Interrupt;
use crate::event::fault::shown;
use crate::image::attribute::system;
use crate::image::error::BuildError;
use crate::image::nix::Nix;
use crate::image::offer::{Offer, offers};
use crate::image::profiles::{FILE, Profiles};
use crate::run::wish::resources;
use crate::vm::config::RuntimeConfig;

/// Shows what a flake offers.
pub async fn list(context: &Context, args: &FlakeArgs) -> Result<()> {
    let request = args.request(&context.paths, &[]).await?;
    let profiles = Profiles::of(&request.flake)?;
    let cancel = Interrupt::heard();
    let nix = Nix {
        elsewhere: None,
        dir: request.flake.nix_dir(),
        inputs: Some(&request.inputs),
        background: false,
        cancel: &cancel,
    };
    let offers = match offers(&request, &profiles, &context.paths.builds(), &nix).await {
        Err(BuildError::Cancelled) => return Err(Interrupted.into()),
        offers => offers?,
    };
    let config = |offer: &Offer| match &offer.entry {
        Some(entry) => resources(&profiles, entry),
        None => Ok(RuntimeConfig::default()),
    };
    let configs = offers.iter().map(config).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<_> = offers.iter().zip(&configs).collect();
    if context.json {
        let items: Vec<Value> = rows.into_iter().map(|(offer, config)| item(offer, config)).collect();
        let flake = request.flake.display();
        return print_json(&json!({ "v": 1, "flake": flake, "system": system(), "attributes": items }));
    }
    if rows.is_empty() {
        return print(&format!("{} offers nothing in packages.{}.", request.flake.display(), system()));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ATTRIBUTE", "ROLE", "PROFILE", "CPUS", "MEM", "DISK", "MODULES", "STATE"]);
    for (offer, config) in rows {
        table.add_row(row(offer, config));
    }
    table.to_string().lines().try_for_each(|line| print(line.trim_end()))?;
    print("")?;
    print("* is what is built when nothing is asked for.")?;
    if profiles.entries.is_empty() {
        Ok(())
    } else {
        print(&format!("Sizes and modules are those of {FILE}."))
    }
}

fn item(offer: &Offer, config: &RuntimeConfig) -> Value {
    let modules = offer.entry.as_ref().map(|entry| entry.modules.as_slice()).unwrap_or_default();
    json!({
        "attribute": offer.attribute, "role": offer.role, "profile": offer.profile,
        "default": offer.is_default, "offered": offer.is_there, "build": offer.build,
        "from_file": offer.entry.is_some(), "modules": modules,
        "cpus": config.cpus, "memory_mib": config.memory_mib, "disk_mib": config.disk_mib,
    })
}

fn row(offer: &Offer, config: &RuntimeConfig) -> [String; 8] {
    let word = |word: Option<String>| word.unwrap_or_else(|| "-".into());
    let mib = |mib: Option<u64>| {
        word(mib.map(|mib| if mib % 1024 == 0 { format!("{}G", mib / 1024) } else { format!("{mib}M") }))
    };
    let modules = offer.entry.as_ref().map(|entry| entry.modules.join(" ")).filter(|text| !text.is_empty());
    let state = match offer {
        Offer { is_there: false, .. } => "not offered",
        Offer { build: Some(_), .. } => "built",
        Offer { build: None, .. } => "-",
    };
    [
        format!("{}{}", shown(&offer.attribute), if offer.is_default { " *" } else { "" }),
        word(offer.role.clone()),
        word(offer.profile.clone()),
        word(config.cpus.map(|cpus| cpus.to_string())),
        mib(config.memory_mib.map(u64::from)),
        mib(config.disk_mib),
        word(modules),
        state.into(),
    ]
}
