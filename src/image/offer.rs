//! What a flake offers: its packages, what they are for, and which of them are built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::attribute::{candidates, system};
use super::collect::{sound, store_hash};
use super::error::BuildError;
use super::failure;
use super::nix::Nix;
use super::profiles::{Entry, Profiles};
use super::request::BuildRequest;
use crate::event::text::strip;

/// The output of each package; null of what is none, or cannot be told.
const OUTPUTS: &str = "builtins.mapAttrs (_: package:
  let output = builtins.tryEval (package.outPath or null); in
  if output.success then output.value else null)";

/// One way to ask for a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name in `packages.<system>`.
    pub attribute: String,
    /// The role: the entry's, else what the name says.
    pub role: Option<String>,
    /// The profile, likewise.
    pub profile: Option<String>,
    /// What `mvm-profiles.toml` says of it.
    pub entry: Option<Entry>,
    /// Whether it is what is built when nothing is asked for.
    pub is_default: bool,
    /// Whether the flake has it; an entry may name what is not there.
    pub is_there: bool,
    /// The build of this very state of the source, if there is one.
    pub build: Option<PathBuf>,
}

/// All that the flake of `request` offers, by name; its role, profile and attribute do not count.
pub async fn offers(
    request: &BuildRequest,
    profiles: &Profiles,
    builds: &Path,
    nix: &Nix<'_>,
) -> Result<Vec<Offer>, BuildError> {
    let outputs = outputs(request, nix).await?;
    let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
    let mut offers = listed(request, profiles, &names)?;
    for offer in &mut offers {
        let output = outputs.get(&offer.attribute).and_then(Option::as_deref);
        let hash = output.and_then(store_hash);
        offer.build = hash.and_then(|hash| sound(&builds.join(hash))).map(|artifacts| artifacts.dir);
    }
    Ok(offers)
}

async fn outputs(
    request: &BuildRequest,
    nix: &Nix<'_>,
) -> Result<BTreeMap<String, Option<PathBuf>>, BuildError> {
    let packages = request.flake.installable(&format!("packages.{}", system()));
    let eval = |apply| ["eval", "--json", "--no-write-lock-file", "--apply", apply];
    if let Some(json) = nix.ask(&eval(OUTPUTS), std::slice::from_ref(&packages)).await?
        && let Ok(outputs) = serde_json::from_slice(&json)
    {
        return Ok(outputs);
    }
    // One that fails in a way nobody can catch leaves at least the names.
    let mut said = Vec::new();
    let names =
        nix.run(&eval("builtins.attrNames"), &[packages], |bytes| said.extend_from_slice(bytes)).await?;
    let wrong = |message: String| {
        failure::lacking(request, &message).unwrap_or_else(|| BuildError::Nix {
            flake: request.flake.display(),
            message,
            help: "mend the flake; it must have `packages`".into(),
            log: Vec::new(),
        })
    };
    if !names.ok {
        let said = String::from_utf8_lossy(&said);
        let said = strip(said.rsplit_once("error:").map_or(said.as_ref(), |(_, last)| last));
        return Err(wrong(said.trim().to_owned()));
    }
    let names: Vec<String> =
        serde_json::from_slice(&names.stdout).map_err(|error| wrong(error.to_string()))?;
    Ok(names.into_iter().map(|name| (name, None)).collect())
}

/// An offer for each entry of the file, and for each name that no entry is for.
fn listed(request: &BuildRequest, profiles: &Profiles, names: &[&str]) -> Result<Vec<Offer>, BuildError> {
    let ask = |entry: Option<&Entry>| {
        let asked = BuildRequest {
            flake: super::FlakeRef { attribute: None, ..request.flake.clone() },
            role: entry.and_then(|entry| entry.role.clone()),
            profile: entry.and_then(|entry| entry.name.clone()),
            entry: entry.cloned(),
            ..request.clone()
        };
        let wanted = candidates(&asked)?;
        let there = wanted.iter().find(|name| names.contains(&name.as_str()));
        Ok::<String, BuildError>(there.unwrap_or(&wanted[0]).clone())
    };
    let default = ask(profiles.entry(None, None))?;
    let mut offers = Vec::new();
    for entry in &profiles.entries {
        offers.push((ask(Some(entry))?, Some(entry)));
    }
    for name in names {
        if offers.iter().all(|(attribute, _)| attribute != name) {
            offers.push(((*name).to_owned(), None));
        }
    }
    offers.sort_by(|(a, _), (b, _)| a.cmp(b));
    let offer = |(attribute, entry): (String, Option<&Entry>)| {
        let (role, profile) = match entry {
            Some(entry) => (entry.role.clone(), entry.name.clone()),
            None => parts(&attribute, names),
        };
        Offer {
            is_default: attribute == default,
            is_there: names.contains(&attribute.as_str()),
            role,
            profile,
            entry: entry.cloned(),
            attribute,
            build: None,
        }
    };
    Ok(offers.into_iter().map(offer).collect())
}

/// The role and the profile that a name is made of: `<role>-<profile>`, or what other names are made of.
/// Where both may have a dash, the profile is one that the flake offers by itself.
fn parts(name: &str, names: &[&str]) -> (Option<String>, Option<String>) {
    let begins = |other: &&str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    let ends = |other: &&str| other.strip_suffix(name).is_some_and(|rest| rest.ends_with('-'));
    let given = |is: bool| is.then(|| name.to_owned());
    match (names.iter().any(begins), names.iter().any(ends)) {
        (false, false) => {}
        (role, profile) => return (given(role && !profile), given(profile)),
    }
    let splits = || name.match_indices('-').map(|(at, _)| (&name[..at], &name[at + 1..]));
    let split = splits().find(|(_, profile)| names.contains(profile)).or_else(|| splits().next_back());
    let split = split.filter(|(role, profile)| !role.is_empty() && !profile.is_empty());
    split.map(|(role, profile)| (role.to_owned(), profile.to_owned())).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::inputs::FlakeInputs;

    fn list(entries: Vec<Entry>, names: &[&str]) -> Vec<Offer> {
        let request = BuildRequest {
            flake: "github:a/b".parse().unwrap(),
            profile: None,
            role: None,
            entry: None,
            rebuild: false,
            background: false,
            machines: Default::default(),
            nix_args: Vec::new(),
            inputs: FlakeInputs::default(),
        };
        listed(&request, &Profiles { entries, ..Profiles::default() }, names).unwrap()
    }

    #[test]
    fn a_name_says_its_role_and_profile() {
        let part = |name, names: &[&str]| {
            let (role, profile) = parts(name, names);
            format!("{} {}", role.unwrap_or("-".into()), profile.unwrap_or("-".into()))
        };
        assert_eq!(part("gateway-minimal", &[]), "gateway minimal");
        assert_eq!(part("my-gateway-dev", &[]), "my-gateway dev");
        assert_eq!(part("gateway-very-small", &["very-small"]), "gateway very-small");
        let names = ["gateway", "minimal", "gateway-minimal"];
        assert_eq!(
            (part("gateway", &names), part("minimal", &names)),
            ("gateway -".into(), "- minimal".into())
        );
        assert_eq!((part("default", &[]), part("-x", &[])), ("- -".into(), "- -".into()));
    }

    #[test]
    fn an_entry_stands_with_the_attribute_that_it_gives() {
        let text = |text: &str| Some(text.to_owned());
        let entries = vec![
            Entry { role: text("web"), name: text("big"), attribute: text("web-dev"), ..Entry::default() },
            Entry { name: text("dev"), ..Entry::default() },
            Entry { name: text("lost"), ..Entry::default() },
        ];
        let offers = list(entries, &["default", "dev", "web-dev"]);
        let row = |offer: &Offer| {
            let word = |word: &Option<String>| word.clone().unwrap_or("-".into());
            let entry = if offer.entry.is_some() { "entry" } else { "" };
            let mark = if offer.is_default { "*" } else { "" };
            let there = if offer.is_there { "" } else { "missing" };
            format!("{}{mark} {} {} {entry}{there}", offer.attribute, word(&offer.role), word(&offer.profile))
        };
        let rows: Vec<String> = offers.iter().map(row).collect();
        assert_eq!(
            rows,
            ["default* - - ", "dev - dev entry", "lost - lost entrymissing", "web-dev web big entry"]
        );
    }

    #[test]
    fn an_entry_without_role_and_profile_is_the_default() {
        let entries = vec![Entry { attribute: Some("web".into()), ..Entry::default() }];
        let offers = list(entries, &["default", "web"]);
        assert_eq!(offers.iter().map(|offer| offer.is_default).collect::<Vec<_>>(), [false, true]);
    }
}
