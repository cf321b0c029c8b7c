use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

/// A program that stands for mvm: all there is to know of it is its mark.
const PROGRAM: &[u8] = b"\x7fELF program mvm's launcher mark: an app has\0 and its end";
const ROOTFS: usize = 3 * 1024 * 1024 + 17;

/// What is changed in a manifest.
type Change = dyn Fn(&mut serde_json::Value);

struct Bakery {
    dir: TempDir,
}

impl Bakery {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mvm"), PROGRAM).unwrap();
        fs::write(dir.path().join("vmlinux"), b"\x7fELF kernel").unwrap();
        let mut rootfs = vec![0; ROOTFS];
        rootfs[2 * 1024 * 1024] = 7;
        fs::write(dir.path().join("rootfs.ext4"), rootfs).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bake(&self) -> Result<Manifest, BakeError> {
        let recipe = Recipe {
            name: "web".into(),
            base: "debian:bookworm".into(),
            key: "key".into(),
            settings: Settings { memory: Some("256M".into()), ..Settings::default() },
            image: ImageInfo { contract: 2, ports: vec![22, 80], ..ImageInfo::default() },
            launcher: self.path("mvm"),
            files: ["vmlinux", "rootfs.ext4"].map(|name| (name, self.path(name))).into(),
        };
        let output = Output::take(&self.path("web.elf"))?;
        run(bake(recipe, output, &CancellationToken::new()))
    }

    fn app(&self) -> Vec<u8> {
        self.bake().unwrap();
        fs::read(self.path("web.elf")).unwrap()
    }

    /// What a file of these bytes is refused with; none when it is taken.
    fn refused(&self, bytes: &[u8]) -> Option<String> {
        let path = self.path("other.elf");
        fs::write(&path, bytes).unwrap();
        let cancel = CancellationToken::new();
        let opened = App::open(&path).and_then(|app| run(app.verify(&cancel)));
        opened.err().map(|error| error.to_string())
    }

    /// What is said of the app with another manifest, whose digest fits.
    fn with_manifest(&self, change: impl FnOnce(&mut serde_json::Value)) -> Option<String> {
        let mut bytes = self.app();
        let end = bytes.len() - TRAILER as usize;
        let trailer = Trailer::parse(bytes[end..].try_into().unwrap()).unwrap();
        let at = trailer.offset as usize;
        let mut json = serde_json::from_slice(&bytes[at..][..trailer.length as usize]).unwrap();
        change(&mut json);
        let json = serde_json::to_vec(&json).unwrap();
        bytes.truncate(at);
        bytes.extend(&json);
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
        let sha256 = Sha256::digest(&json).into();
        bytes.extend(Trailer { offset: trailer.offset, length: json.len() as u64, sha256 }.bytes());
        self.refused(&bytes)
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_app_unpacks_to_what_went_in_and_only_once() {
    let bakery = Bakery::new();
    let manifest = bakery.bake().unwrap();
    assert!(manifest.parts.iter().all(|part| part.offset % PAGE == 0), "{:?}", manifest.parts);
    let app = App::open(&bakery.path("web.elf")).unwrap();
    assert_eq!(app.manifest, manifest);
    let (builds, cancel) = (bakery.path("builds"), CancellationToken::new());
    run(app.verify(&cancel)).unwrap();
    let (artifacts, known) = run(app.unpack(&builds, &cancel)).unwrap();
    assert!(!known);
    for (name, file) in [("vmlinux", &artifacts.kernel), ("rootfs.ext4", &artifacts.rootfs)] {
        assert!(fs::read(file).unwrap() == fs::read(bakery.path(name)).unwrap(), "{name}");
    }
    assert_eq!((artifacts.manifest.image.contract, artifacts.initrd), (2, None));
    assert!(run(app.unpack(&builds, &cancel)).unwrap().1);
    assert_eq!(names(&builds), [artifacts.manifest.build]);
}

#[test]
fn the_launcher_is_the_program_but_for_its_mark() {
    let app = Bakery::new().app();
    let differ: Vec<usize> = (0..PROGRAM.len()).filter(|at| app[*at] != PROGRAM[*at]).collect();
    assert_eq!(differ.len(), 1);
}

#[test]
fn what_a_killed_build_left_is_written_over_and_one_at_work_is_not() {
    let bakery = Bakery::new();
    let beside = bakery.path(".web.elf.part");
    fs::write(&beside, vec![9; 1 << 20]).unwrap();
    let app = bakery.app();
    assert_eq!(bakery.refused(&app), None);
    assert!(!beside.exists());
    let _at_work = crate::host::files::Lock::try_take(&beside).unwrap().unwrap();
    let error = bakery.bake().unwrap_err().to_string();
    assert!(error.contains("another build is writing"), "{error}");
}

#[test]
fn a_build_that_fails_or_is_cancelled_leaves_the_old_app() {
    let bakery = Bakery::new();
    let app = bakery.app();
    fs::remove_file(bakery.path("rootfs.ext4")).unwrap();
    assert!(bakery.bake().is_err());
    assert!(fs::read(bakery.path("web.elf")).unwrap() == app);
    assert_eq!(names(bakery.dir.path()), ["mvm", "vmlinux", "web.elf"]);
}

#[test]
fn nothing_but_an_app_is_written_over_and_a_link_stays_one() {
    let bakery = Bakery::new();
    let output = bakery.path("web.elf");
    fs::write(&output, "a text of somebody's").unwrap();
    let error = bakery.bake().unwrap_err().to_string();
    assert!(error.contains("is there, and is no app\nhelp: "), "{error}");
    fs::remove_file(&output).unwrap();
    nix::unistd::mkfifo(&output, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(bakery.bake(), Err(BakeError::InTheWay { .. })));
    assert!(matches!(App::open(&output), Err(BakeError::NoApp { .. })));
    fs::remove_file(&output).unwrap();
    let real = bakery.path("real.elf");
    fs::write(&real, b"\x7fELF, a program of somebody's").unwrap();
    std::os::unix::fs::symlink(&real, &output).unwrap();
    assert!(matches!(bakery.bake(), Err(BakeError::InTheWay { .. })));
    fs::remove_file(&output).unwrap();
    let app = bakery.app();
    fs::remove_file(&output).unwrap();
    fs::write(&real, &app[..app.len() / 2]).unwrap();
    std::os::unix::fs::symlink(&real, &output).unwrap();
    bakery.bake().unwrap();
    assert!(output.is_symlink() && App::open(&real).is_ok());
}

#[test]
fn files_that_are_no_apps_are_told_from_damaged_ones() {
    let bakery = Bakery::new();
    for bytes in [&b""[..], b"short", PROGRAM, &[0; 8192]] {
        let error = bakery.refused(bytes).unwrap();
        assert!(error.contains("is no app of mvm's"), "{error}");
    }
    let mut app = bakery.app();
    let at = app.len() / 2;
    app.remove(at);
    let error = bakery.refused(&app).unwrap();
    assert!(error.contains("is damaged: its trailer does not fit"), "{error}");
}

#[test]
fn manifests_that_ask_for_what_cannot_be_are_refused() {
    let bakery = Bakery::new();
    let refused = |change: &Change| bakery.with_manifest(change).unwrap();
    assert_eq!(bakery.with_manifest(|_| {}), None);
    let cases: [(&str, &Change); 9] = [
        ("`../../etc/passwd` is out of place", &|json| json["parts"][1]["name"] = "../../etc/passwd".into()),
        ("is out of place", &|json| json["parts"][1]["offset"] = 0.into()),
        ("is out of place", &|json| json["parts"][2]["length"] = u64::MAX.into()),
        ("is out of place", &|json| json["parts"][2]["name"] = "vmlinux".into()),
        ("it has no rootfs.ext4", &|json| json["parts"][2]["name"] = "initrd".into()),
        ("made by a newer mvm", &|json| json["v"] = 2.into()),
        ("is for riscv64", &|json| json["arch"] = "riscv64".into()),
        ("its manifest: ", &|json| json["parts"] = 7.into()),
        ("digest of its part `vmlinux`", &|json| json["parts"][1]["sha256"] = "00".into()),
    ];
    for (said, change) in cases {
        let error = refused(change);
        assert!(error.contains(said) && error.contains("\nhelp: "), "{error}");
    }
}

#[test]
fn a_part_that_unpacks_to_more_or_else_than_it_says_gives_no_build() {
    let bakery = Bakery::new();
    for change in [
        (|json: &mut serde_json::Value| json["parts"][2]["size"] = 1024.into()) as fn(&mut serde_json::Value),
        |json| json["parts"][2]["content_sha256"] = "00".into(),
    ] {
        assert_eq!(bakery.with_manifest(change), None);
        let app = App::open(&bakery.path("other.elf")).unwrap();
        let builds = bakery.path("builds");
        let error = run(app.unpack(&builds, &CancellationToken::new())).unwrap_err().to_string();
        assert!(error.contains("does not unpack to what it should"), "{error}");
        assert!(names(&builds).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_changed_byte_and_no_cut_goes_unseen(at: prop::sample::Index, bit in 0_u8..8, cut: bool) {
        let bakery = Bakery::new();
        let mut app = bakery.app();
        let at = at.index(app.len());
        if cut {
            app.truncate(at);
        } else {
            app[at] ^= 1 << bit;
        }
        prop_assert!(bakery.refused(&app).is_some(), "at {at}");
    }
}
