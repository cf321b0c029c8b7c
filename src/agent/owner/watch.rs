//! The file of the desired state, read again whenever it has changed.

use std::path::PathBuf;

use crate::fleet::desired::{DesiredState, SCHEMA_VERSION};
use crate::host::files::Stamp;

/// The file, and what it last said that could be used.
#[derive(Debug)]
pub struct DesiredFile {
    path: PathBuf,
    /// What it looked like when it was last read; one that is gone is told once as well.
    seen: Option<Option<Stamp>>,
    /// What it said.
    pub desired: DesiredState,
}

impl DesiredFile {
    /// A file that is yet to be read.
    pub fn new(path: PathBuf) -> Self {
        let desired = DesiredState {
            schema_version: SCHEMA_VERSION,
            node_id: String::new(),
            tenants: Vec::new(),
            prune_unknown_tenants: false,
            prune_unknown_pools: false,
        };
        Self { path, seen: None, desired }
    }

    /// Reads the file if it has changed; whether it says something else. What cannot be used is told
    /// once, and what it said before goes on to be desired.
    pub fn look(&mut self) -> Result<bool, String> {
        let stamp = Stamp::of(&self.path);
        if self.seen.replace(stamp) == Some(stamp) {
            return Ok(false);
        }
        let desired = read(&self.path)?;
        let changed = desired != self.desired;
        self.desired = desired;
        Ok(changed)
    }
}

/// Reads a desired state from a file.
pub fn read(path: &std::path::Path) -> Result<DesiredState, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("cannot read the desired state `{}`: {error}\nhelp: give a file of JSON", path.display())
    })?;
    DesiredState::parse(&text).map_err(|error| format!("the desired state `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_told_once_and_what_it_said_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desired.json");
        std::fs::write(&path, r#"{"schema_version": 1, "node_id": "one", "tenants": []}"#).unwrap();
        let mut file = DesiredFile::new(path.clone());
        assert_eq!(file.look(), Ok(true));
        assert_eq!(file.look(), Ok(false));
        std::fs::write(&path, "{ half").unwrap();
        assert!(file.look().is_err());
        assert_eq!(file.look(), Ok(false));
        std::fs::remove_file(&path).unwrap();
        assert!(file.look().is_err());
        assert_eq!(file.desired.node_id, "one");
    }
}
