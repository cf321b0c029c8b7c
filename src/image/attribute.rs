//! Which attribute of a flake is meant, and what to say when there is none.

use super::error::BuildError;
use super::flake::is_attribute;
use super::nix::Nix;
use super::request::BuildRequest;

/// How many names an error lists.
const LISTED: usize = 12;

/// The Nix system of this machine.
pub fn system() -> String {
    format!("{}-linux", std::env::consts::ARCH)
}

/// The names to try in `packages.<system>`, the best first: with role and profile
/// `<role>-<profile>`, then `<profile>`; with a profile `<profile>`; with a role `<role>`, then
/// `default`; with neither `default`. A profile that does not exist is an error, never the default.
/// An attribute given with the reference is the only one, else the one of `mvm-profiles.toml`.
pub fn candidates(request: &BuildRequest) -> Result<Vec<String>, BuildError> {
    for (what, value) in [("the profile", &request.profile), ("the role", &request.role)] {
        if let Some(value) = value.as_ref().filter(|value| !is_attribute(value)) {
            let help = "letters, digits, `_`, `.` and `-` only";
            return Err(BuildError::Argument { what, value: value.clone(), help });
        }
    }
    let given = request.flake.attribute.as_ref().or(mapped(request));
    Ok(match (given, &request.role, &request.profile) {
        (Some(attribute), _, _) => vec![attribute.clone()],
        (None, Some(role), Some(profile)) => vec![format!("{role}-{profile}"), profile.clone()],
        (None, None, Some(profile)) => vec![profile.clone()],
        (None, Some(role), None) => vec![role.clone(), "default".into()],
        (None, None, None) => vec!["default".into()],
    })
}

/// The attribute that `mvm-profiles.toml` has for the role and the profile.
pub fn mapped(request: &BuildRequest) -> Option<&String> {
    request.entry.as_ref()?.attribute.as_ref()
}

/// What Nix is given for a candidate: the whole path, unless the user wrote his own.
pub fn path(request: &BuildRequest, candidate: &str) -> String {
    if request.flake.attribute.is_some() {
        return candidate.to_owned();
    }
    let quote = if candidate.contains('.') { "\"" } else { "" };
    format!("packages.{}.{quote}{candidate}{quote}", system())
}

/// The names in the flake's `packages.<system>`; `None` when Nix cannot tell.
pub async fn offered(nix: &Nix<'_>, request: &BuildRequest) -> Result<Option<Vec<String>>, BuildError> {
    let packages = request.flake.installable(&format!("packages.{}", system()));
    let args = ["eval", "--json", "--no-write-lock-file", "--apply", "builtins.attrNames"];
    let answer = nix.ask(&args, &[packages]).await?;
    Ok(answer.and_then(|json| serde_json::from_slice(&json).ok()))
}

/// The error for a flake that has none of `candidates`.
pub fn missing(request: &BuildRequest, candidates: &[String], offered: Vec<String>) -> BuildError {
    let wanted: Vec<String> = candidates.iter().map(|name| format!("`{}`", path(request, name))).collect();
    let asked = &candidates[0];
    let names = nearest(asked.rsplit('.').next().unwrap_or(asked), offered);
    let mut help = match names.len() {
        0 => format!("it offers nothing in packages.{}", system()),
        _ => format!("it offers {}", names[..names.len().min(LISTED)].join(", ")),
    };
    if names.len() > LISTED {
        help.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    let flake = super::flake::FlakeRef { attribute: None, ..request.flake.clone() }.display();
    BuildError::Attribute { flake, wanted: wanted.join(" or "), help }
}

/// Sorts names by how near they are to the one asked for.
fn nearest(asked: &str, mut names: Vec<String>) -> Vec<String> {
    names.sort_by(|a, b| {
        strsim::jaro_winkler(asked, b).total_cmp(&strsim::jaro_winkler(asked, a)).then_with(|| a.cmp(b))
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_nearest_first() {
        let names = ["default", "gateway-minimal", "minimal"].map(String::from).to_vec();
        assert_eq!(nearest("minmal", names)[0], "minimal");
    }
}
