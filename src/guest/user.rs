//! Users of the guest, from `/etc/passwd` and `/etc/group`.

use std::path::{Path, PathBuf};

/// PATH of everything the agent runs.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user commands run as when none is named.
pub const DEFAULT: &str = "mvm";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one first.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: String,
}

impl User {
    /// The user `name` of the system under `root`. `root` exists even where `/etc/passwd` does not.
    pub fn find(root: &Path, name: &str) -> Option<Self> {
        let passwd = read(root, "etc/passwd");
        let mut user = passwd.lines().filter_map(parse).find(|user| user.name == name).or_else(|| {
            (name == "root").then(|| User {
                name: "root".into(),
                uid: 0,
                gid: 0,
                groups: vec![0],
                home: "/root".into(),
                shell: "/bin/sh".into(),
            })
        })?;
        for line in read(root, "etc/group").lines() {
            let fields: Vec<_> = line.split(':').collect();
            let [_, _, gid, members] = fields[..] else { continue };
            let Ok(gid) = gid.parse() else { continue };
            if gid != user.gid && members.split(',').any(|member| member == name) {
                user.groups.push(gid);
            }
        }
        Some(user)
    }

    /// The user a command runs as: the named one, else `mvm`, else root.
    pub fn of_command(root: &Path, name: Option<&str>) -> Option<Self> {
        match name {
            Some(name) => Self::find(root, name),
            None => Self::find(root, DEFAULT).or_else(|| Self::find(root, "root")),
        }
    }

    /// What a login would set.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HOME", self.home.to_string_lossy().into_owned()),
            ("USER", self.name.clone()),
            ("LOGNAME", self.name.clone()),
            ("SHELL", self.shell.clone()),
            ("PATH", PATH.into()),
        ]
    }
}

fn read(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap_or_default()
}

fn parse(line: &str) -> Option<User> {
    let fields: Vec<_> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    let gid = gid.parse().ok()?;
    Some(User {
        name: name.into(),
        uid: uid.parse().ok()?,
        gid,
        groups: vec![gid],
        home: home.into(),
        shell: if shell.is_empty() { "/bin/sh".into() } else { shell.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_list_it_and_mvm_is_the_default() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let write = |file: &str, text: &str| std::fs::write(root.path().join(file), text).unwrap();
        assert_eq!(User::of_command(root.path(), None).unwrap().name, "root");
        write("etc/passwd", "bad line\nroot:x:0:0::/root:/bin/ash\nmvm:x:1000:100::/home/mvm:\n");
        write("etc/group", "users:x:100:mvm\nkvm:x:36:a,mvm\nother:x:7:mvmx\n");
        let user = User::of_command(root.path(), None).unwrap();
        assert_eq!((user.uid, user.groups), (1000, vec![100, 36]));
        assert_eq!(user.shell, "/bin/sh");
        assert_eq!(User::of_command(root.path(), Some("root")).unwrap().shell, "/bin/ash");
        assert_eq!(User::of_command(root.path(), Some("nobody")), None);
    }
}
