//! Where a distribution's packages come from.

use std::path::Path;

use super::{Base, Distribution, MvmfileError};

/// Releases of Debian that nothing is added to once they are out.
const ROLLING: [&str; 3] = ["sid", "unstable", "experimental"];

impl Distribution {
    /// The keys its packages are signed with, and Debian's name for the package that has them.
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Debian => ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
            Self::Ubuntu => (
                "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
                "ubuntu-keyring (or ubuntu-archive-keyring)",
            ),
        }
    }

    /// Its archives: address, what is behind the release's name, components.
    fn archives(self, suite: &str) -> Vec<(&'static str, &'static str, &'static str)> {
        const DEBIAN: &str = "http://deb.debian.org/debian";
        // Its other architectures are elsewhere.
        let ubuntu = if cfg!(target_arch = "x86_64") {
            ("http://archive.ubuntu.com/ubuntu", "http://security.ubuntu.com/ubuntu")
        } else {
            ("http://ports.ubuntu.com/ubuntu-ports", "http://ports.ubuntu.com/ubuntu-ports")
        };
        match self {
            Self::Debian if ROLLING.contains(&suite) => vec![(DEBIAN, "", "main")],
            Self::Debian => vec![
                (DEBIAN, "", "main"),
                (DEBIAN, "-updates", "main"),
                ("http://deb.debian.org/debian-security", "-security", "main"),
            ],
            Self::Ubuntu => vec![
                (ubuntu.0, "", "main universe"),
                (ubuntu.0, "-updates", "main universe"),
                (ubuntu.1, "-security", "main universe"),
            ],
        }
    }
}

/// What apt is told, in its own words: those of the Mvmfile, else the distribution's archives.
pub(super) fn sources(base: &Base, given: &[String]) -> Result<Vec<String>, MvmfileError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let (keys, package) = base.distribution.keys();
    if !Path::new(keys).exists() {
        return Err(MvmfileError::NoKeys { base: base.to_string(), keys, package });
    }
    let archives = base.distribution.archives(&base.suite).into_iter();
    let line = |(address, behind, components)| {
        format!("deb [signed-by={keys}] {address} {}{behind} {components}", base.suite)
    };
    Ok(archives.map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(base: &str) -> Vec<String> {
        let base = Base::try_from(base.to_string()).unwrap();
        let archives = base.distribution.archives(&base.suite).into_iter();
        archives.map(|(_, behind, components)| format!("{}{behind} {components}", base.suite)).collect()
    }

    #[test]
    fn a_release_comes_with_its_updates_unless_it_is_made_of_them() {
        assert_eq!(
            suites("debian:bookworm"),
            ["bookworm main", "bookworm-updates main", "bookworm-security main"]
        );
        assert_eq!(suites("debian:sid"), ["sid main"]);
        assert_eq!(suites("ubuntu:noble")[2], "noble-security main universe");
    }

    #[test]
    fn what_the_mvmfile_says_is_all_there_is() {
        let given = vec!["https://mirror.example/debian".to_string()];
        assert_eq!(sources(&Base::default(), &given).unwrap(), given);
    }
}
