//! What makes a distribution's root a guest of mvm's: agent, init, ssh, services.

use super::tree::Files;
use super::{MvmfileError, Service};
use crate::host::paths::Paths;

/// Where the programs are that need libraries of their own, and those libraries.
const PROGRAMS: &str = "usr/lib/mvm/libexec";
const LIBRARIES: &str = "usr/lib/mvm/lib";
/// Files of the skeleton: their mode, name and place.
const SKELETON: [(u32, &str, &str); 8] = [
    (0o644, "inittab", "etc/inittab"),
    (0o755, "rehearse", "etc/mvm/rehearse"),
    (0o755, "start", "etc/mvm/start"),
    (0o755, "stop", "etc/mvm/stop"),
    (0o755, "supervise", "etc/mvm/supervise"),
    (0o755, "sshd", "etc/service/sshd/run"),
    (0o755, "poweroff", "sbin/poweroff"),
    (0o755, "poweroff", "sbin/halt"),
];
/// Texts of its own.
const TEXTS: [(u32, &str, &str); 3] = [
    (0o644, "etc/mvm/role", "\n"),
    (0o644, "etc/service/sshd/sealed", ""),
    (0o440, "etc/sudoers.d/mvm", "mvm ALL=(ALL:ALL) NOPASSWD: ALL\n"),
];

/// Adds the guest's own files, as setup has laid them out.
pub(super) fn add(files: &mut Files, paths: &Paths) -> Result<(), MvmfileError> {
    let skeleton = paths.offline_flake().join("guest");
    for (mode, name, place) in SKELETON {
        files.put(place, &skeleton.join(name), Some(mode), &[])?;
    }
    for (mode, place, text) in TEXTS {
        files.text(place, mode, text);
    }
    let busybox = paths.host_tools().join("build/bin/busybox");
    files.put("usr/lib/mvm/bin/busybox", &busybox, Some(0o755), &[])?;
    let tools = paths.host_tools().join("guest");
    // The distribution has libraries of the same names, older ones perhaps.
    files.put(LIBRARIES, &tools.join("lib"), None, &[])?;
    let loader = loader(&tools.join("lib"))?;
    let bin = tools.join("bin");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&bin).map_err(MvmfileError::file("read", &bin))? {
        let entry = entry.map_err(MvmfileError::file("read", &bin))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    for name in names {
        files.put(&format!("{PROGRAMS}/{name}"), &bin.join(&name), Some(0o755), &[])?;
        let place = match name.as_str() {
            "mvm-guest" => format!("usr/bin/{name}"),
            // Where dropbear looks for it.
            "sftp-server" => format!("usr/lib/{name}"),
            _ => format!("usr/lib/mvm/bin/{name}"),
        };
        let text = format!(
            "#!/bin/sh\nexec /{LIBRARIES}/{loader} --argv0 {name} --library-path /{LIBRARIES} /{PROGRAMS}/{name} \"$@\"\n"
        );
        files.text(&place, 0o755, text);
    }
    Ok(())
}

/// Adds a service of the image's own.
pub(super) fn service(files: &mut Files, name: &str, service: &Service) {
    let script = match service.run.starts_with("#!") {
        true => service.run.clone(),
        false => format!("#!/bin/sh\n{}\n", service.run),
    };
    files.text(&format!("etc/service/{name}/script"), 0o755, script);
    files.text(&format!("etc/service/{name}/run"), 0o755, run(name, service));
}

/// What starts a service's script as it shall run.
fn run(name: &str, service: &Service) -> String {
    let mut text = String::from("#!/bin/sh\n");
    if let Some(user) = &service.user {
        text += &format!(
            "HOME=$(getent passwd {user} | cut -d: -f6) USER={user} LOGNAME={user}\nexport HOME USER LOGNAME\n"
        );
    }
    for (key, value) in &service.env {
        text += &format!("export {key}={}\n", quoted(value));
    }
    if let Some(dir) = &service.dir {
        text += &format!("cd {} || exit 1\n", quoted(dir.as_str()));
    }
    let become_user = match &service.user {
        Some(user) => format!("setpriv --reuid {user} --regid \"$(id -g {user})\" --init-groups "),
        None => String::new(),
    };
    text + &format!("exec {become_user}/etc/service/{name}/script\n")
}

/// A text as a shell takes it; there is no zero byte in it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn loader(dir: &std::path::Path) -> Result<String, MvmfileError> {
    let entries = std::fs::read_dir(dir).map_err(MvmfileError::file("read", dir))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.into_iter().find(|name| name.starts_with("ld-")).ok_or(MvmfileError::NotPrepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_runs_as_its_user_in_its_directory_with_its_environment() {
        let service: Service = toml::from_str(
            "run = 'exec ./app'\nuser = 'web'\ndir = '/srv/app'\n[env]\nGREETING = \"it's me; $HOME\"",
        )
        .unwrap();
        insta::assert_snapshot!(run("app", &service), @r#"
        #!/bin/sh
        HOME=$(getent passwd web | cut -d: -f6) USER=web LOGNAME=web
        export HOME USER LOGNAME
        export GREETING='it'\''s me; $HOME'
        cd '/srv/app' || exit 1
        exec setpriv --reuid web --regid "$(id -g web)" --init-groups /etc/service/app/script
        "#);
    }
}
