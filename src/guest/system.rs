//! The privileged steps of personalisation and power off, behind a trait so that tests can rehearse.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::{Gid, Uid, chown};

use super::frames::{Network, VolumeSource};
use super::network;

/// Time a volume's block device has to appear.
const VOLUME_DEADLINE: Duration = Duration::from_secs(5);

/// What only root of a guest may do.
pub trait System: Send + Sync {
    /// Sets the wall clock, nanoseconds since the epoch.
    fn set_clock(&self, time_ns: u64) -> io::Result<()>;
    /// Credits entropy and has the generator use it at once.
    fn credit_entropy(&self, bytes: &[u8]) -> io::Result<()>;
    /// Sets the host name.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    /// Brings up loopback and the network device.
    fn configure_network(&self, network: Option<&Network>) -> io::Result<()>;
    /// Mounts a volume on an existing directory.
    fn mount(&self, source: &VolumeSource, target: &Path, read_only: bool) -> io::Result<()>;
    /// Makes the directory one of its own in memory, so that what is written there never reaches a disk.
    fn keep_in_memory(&self, dir: &Path) -> io::Result<()>;
    /// Allows no more writing to a directory that is kept in memory.
    fn close(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file to a user.
    fn chown(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()>;
    /// Writes disks back and ends the machine.
    fn power_off(&self) -> io::Result<()>;
}

/// How a directory in memory is mounted.
const IN_MEMORY: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// The guest itself.
#[derive(Debug, Clone, Copy)]
pub struct Linux {
    /// Whether the machine ends at a reset, and not when it is powered off.
    pub ends_by_reset: bool,
}

/// A [`System`] that only notes what it was asked.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// One line a step, in order.
    pub steps: Mutex<Vec<String>>,
}

impl System for Linux {
    fn set_clock(&self, time_ns: u64) -> io::Result<()> {
        let time = TimeSpec::from_duration(Duration::from_nanos(time_ns));
        Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
    }

    fn credit_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
        const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
        let device = OpenOptions::new().read(true).write(true).open("/dev/urandom")?;
        // struct rand_pool_info: bits, bytes, then the bytes; as words to be aligned.
        let mut pool = vec![bytes.len() as u32 * 8, bytes.len() as u32];
        pool.extend(
            bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])),
        );
        pool[0] = (pool.len() as u32 - 2) * 32;
        pool[1] = (pool.len() as u32 - 2) * 4;
        // SAFETY: the first call reads the structure built above, the second takes no argument.
        let results = unsafe {
            [
                libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, pool.as_ptr()),
                libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _),
            ]
        };
        if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(nix::unistd::sethostname(name)?)
    }

    fn configure_network(&self, network: Option<&Network>) -> io::Result<()> {
        network::configure(network)
    }

    fn mount(&self, source: &VolumeSource, target: &Path, read_only: bool) -> io::Result<()> {
        let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let none = None::<&str>;
        match source {
            VolumeSource::Tag(tag) => mount(Some(tag.as_str()), target, Some("virtiofs"), flags, none)?,
            VolumeSource::Uuid(uuid) => {
                let device = wait_for(&format!("ext4 volume {uuid}"), VOLUME_DEADLINE, || {
                    find_ext4(Path::new("/"), uuid)
                })?;
                mount(Some(&device), target, Some("ext4"), flags | MsFlags::MS_NOATIME, none)?;
            }
        }
        Ok(())
    }

    fn keep_in_memory(&self, dir: &Path) -> io::Result<()> {
        Ok(mount(Some("tmpfs"), dir, Some("tmpfs"), IN_MEMORY, Some("mode=0700,size=16m"))?)
    }

    fn close(&self, dir: &Path) -> io::Result<()> {
        let flags = IN_MEMORY | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        Ok(mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)?)
    }

    fn chown(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        Ok(chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    fn power_off(&self) -> io::Result<()> {
        nix::unistd::sync();
        let how = if self.ends_by_reset { RebootMode::RB_AUTOBOOT } else { RebootMode::RB_POWER_OFF };
        match reboot(how)? {}
    }
}

impl Rehearsal {
    fn note(&self, step: String) -> io::Result<()> {
        if let Ok(mut steps) = self.steps.lock() {
            steps.push(step);
        }
        Ok(())
    }
}

impl System for Rehearsal {
    fn set_clock(&self, time_ns: u64) -> io::Result<()> {
        self.note(format!("clock {time_ns}"))
    }
    fn credit_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        self.note(format!("entropy {}", bytes.len()))
    }
    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.note(format!("hostname {name}"))
    }
    fn configure_network(&self, network: Option<&Network>) -> io::Result<()> {
        self.note(format!("network {}", network.map_or("none", |network| &network.address)))
    }
    fn mount(&self, source: &VolumeSource, _: &Path, read_only: bool) -> io::Result<()> {
        self.note(format!("mount {source:?} read_only={read_only}"))
    }
    fn keep_in_memory(&self, _: &Path) -> io::Result<()> {
        self.note("tmpfs".into())
    }
    fn close(&self, _: &Path) -> io::Result<()> {
        self.note("no more writing".into())
    }
    fn chown(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.note(format!("chown {name} {uid}:{gid}"))
    }
    fn power_off(&self) -> io::Result<()> {
        self.note("power off".into())
    }
}

/// The block device under `root` that holds the ext4 file system `uuid`.
pub fn find_ext4(root: &Path, uuid: &str) -> Option<PathBuf> {
    let wanted: String = uuid.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
    std::fs::read_dir(root.join("sys/class/block")).ok()?.flatten().find_map(|entry| {
        let device = root.join("dev").join(entry.file_name());
        (ext4_uuid(&device)? == wanted).then_some(device)
    })
}

fn ext4_uuid(device: &Path) -> Option<String> {
    let mut superblock = [0; 0x78];
    File::open(device).ok()?.read_exact_at(&mut superblock, 1024).ok()?;
    if superblock[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    Some(superblock[0x68..0x78].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Looks for something every few milliseconds until it is there or `limit` has passed.
pub fn wait_for<T>(what: &str, limit: Duration, look: impl Fn() -> Option<T>) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no {what} after {limit:?}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An error about what the host said.
pub fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ext4_volume_is_found_by_its_uuid() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["sys/class/block/vda", "sys/class/block/vdb", "sys/class/block/gone", "dev"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let mut disk = vec![0; 4096];
        std::fs::write(root.path().join("dev/vda"), &disk).unwrap();
        disk[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        disk[1024 + 0x68..1024 + 0x78].copy_from_slice(&[0xAB; 16]);
        std::fs::write(root.path().join("dev/vdb"), &disk).unwrap();
        let uuid = "abababab-abab-abab-abab-ABABABABABAB";
        assert_eq!(find_ext4(root.path(), uuid), Some(root.path().join("dev/vdb")));
        assert_eq!(find_ext4(root.path(), "00000000-0000-0000-0000-000000000000"), None);
    }

    #[test]
    fn what_never_comes_is_an_error_that_names_it() {
        let error = wait_for("moon", Duration::ZERO, || None::<()>).unwrap_err();
        assert!(error.to_string().contains("no moon"));
    }
}
