//! The system's `ssh` to a guest.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::keys;
use crate::artifacts::Artifacts;
use crate::host::child::find_program;
use crate::host::paths::Paths;

/// Why ssh cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No client.
    #[error("`ssh` is not installed\nhelp: run `mvm setup`, or install the package openssh-client")]
    Missing,
    /// The user's key.
    #[error("cannot make mvm's ssh key: {0}\nhelp: is the state directory writable?")]
    Key(#[from] io::Error),
    /// A word that no shell can be given.
    #[error("the command holds a NUL byte, which cannot be passed on")]
    Nul,
}

/// What mvm knows of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Its agent was given users' keys and a host key: the session is the user `mvm`'s by default.
    Personalised,
    /// It has no agent: its users, keys and host key are its own, and root's is the default session.
    Unknown,
}

/// What the artifacts in a directory say of the guest; an agent where they cannot be asked any more.
pub fn guest(artifacts: &Path) -> Guest {
    match Artifacts::open(artifacts) {
        Ok(artifacts) if !artifacts.has_agent() => Guest::Unknown,
        _ => Guest::Personalised,
    }
}

/// The command line that opens a session in the VM `id`, or runs `command` there.
///
/// The connection goes through the VM's shim, so it needs no port on the host. To be started in
/// the state's root.
pub fn command_line(
    paths: &Paths,
    id: &str,
    guest: Guest,
    user: Option<&str>,
    command: &[String],
) -> Result<(std::path::PathBuf, Vec<OsString>), SshError> {
    let program = find_program("ssh").ok_or(SshError::Missing)?;
    keys::user_key(paths.state())?;
    let mut arguments: Vec<OsString> = Vec::new();
    // Nothing of the user's own configuration, which is about other hosts.
    arguments.extend(["-F", "none", "-o", "IdentitiesOnly=yes"].map(OsString::from));
    let (user, checking) = match guest {
        Guest::Personalised => (user.unwrap_or("mvm"), "yes"),
        Guest::Unknown => (user.unwrap_or("root"), "accept-new"),
    };
    arguments.extend(["-o".into(), format!("StrictHostKeyChecking={checking}").into()]);
    arguments.extend(["-o", "LogLevel=ERROR", "-o", "UpdateHostKeys=no", "-o"].map(OsString::from));
    arguments.push(format!("HostKeyAlias={id}").into());
    // Relative, as ssh has its own ideas of quotes, `%` and `${}` in a path.
    for option in
        [format!("UserKnownHostsFile=vms/{id}/known_hosts"), format!("IdentityFile={}", keys::USER_KEY)]
    {
        arguments.extend(["-o".into(), option.into()]);
    }
    arguments.push("-o".into());
    arguments.push(format!("ProxyCommand={}", proxy_command(id)?).into());
    arguments.push(format!("{user}@{id}").into());
    if !command.is_empty() {
        arguments.push("--".into());
        // The server hands one line to a shell: each word is quoted for it.
        arguments
            .push(shlex::try_join(command.iter().map(String::as_str)).map_err(|_| SshError::Nul)?.into());
    }
    Ok((program, arguments))
}

/// ssh gives this line to a shell, after replacing `%` sequences.
fn proxy_command(id: &str) -> Result<String, SshError> {
    let program = std::env::current_exe()?;
    let program = program.to_str().ok_or_else(|| io::Error::other("mvm's own path is not UTF-8"))?;
    let line = shlex::try_join([program, "proxy", id, "22"]).map_err(|_| SshError::Nul)?;
    Ok(line.replace('%', "%%"))
}
