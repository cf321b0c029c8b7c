//! One frame of a full console.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use mvm::console::keymap::Keymap;
use mvm::console::model::Model;
use mvm::console::theme::{Depth, Palette, Theme};
use mvm::console::ui::Ui;
use mvm::console::ui::page::Page;
use mvm::console::view;
use mvm::event::vm::{SnapshotInfo, VmInfo, VmSample};
use mvm::event::{Activity, Event, Kind, SCHEMA_VERSION, Source, TaskId, TaskKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::claim::{Claim, Limit, stated};
use crate::place::Place;

const AREA: Rect = Rect { x: 0, y: 0, width: 200, height: 60 };
const VMS: usize = 100;
const SAMPLES: usize = 120;
const DERIVATIONS: u64 = 200;
const LINES: u64 = 10_000;
const FRAMES: usize = 301;
const PAGES: [Page; 3] = [Page::Overview, Page::Builds, Page::Vms];

/// Building a frame and comparing it with the one before; the page that takes longest counts.
pub fn measure(_: &Place) -> Result<Claim> {
    let mut pages = Vec::new();
    for page in PAGES {
        let mut samples = draw(page)?;
        let what = format!("{}, 200x60", page.title());
        let line = stated(&what, &samples);
        samples.sort();
        pages.push((samples[samples.len() / 2], samples, line));
    }
    let stated = pages.iter().map(|(.., line)| line.clone()).collect();
    let worst = pages.into_iter().max_by_key(|(median, ..)| *median).context("there are pages")?;
    Ok(Claim {
        what: "a frame: 100 VMs, 200 derivations, 10 000 lines",
        ours: worst.1,
        limit: Limit::Absolute(Duration::from_millis(4)),
        stated,
    })
}

/// Draws a page again and again, while something new has come each time.
fn draw(page: Page) -> Result<Vec<Duration>> {
    let task = TaskId::new('b');
    let mut model = Model::default();
    fill(&mut model, &task)?;
    let mut ui = Ui { page, ..Ui::default() };
    let (keymap, theme) = (Keymap::default(), Theme::new(&Palette::dark(), Depth::True, false));
    let (mut last, mut next) = (Buffer::empty(AREA), Buffer::empty(AREA));
    let mut samples = Vec::new();
    for frame in 0..FRAMES {
        log(&mut model, &task, LINES + frame as u64);
        (0..VMS).for_each(|number| sample(&mut model, number, SAMPLES + frame));
        let since = Instant::now();
        next.reset();
        view::show((&model, &mut ui), (&keymap, &theme), Timestamp::now(), AREA, &mut next);
        let changed = last.diff(&next).len();
        samples.push(since.elapsed());
        ensure!(changed > 0, "a frame was like the one before");
        std::mem::swap(&mut last, &mut next);
    }
    Ok(samples)
}

fn apply(model: &mut Model, task: &TaskId, kind: Kind) {
    model.apply(&Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: task.clone(), kind });
}

fn drv(number: u64) -> String {
    format!("/nix/store/{number:032}-package-{number}.drv")
}

fn fill(model: &mut Model, task: &TaskId) -> Result<()> {
    for number in 0..VMS {
        apply(model, &TaskId::machine(), Kind::VmSeen { info: Box::new(vm(number)) });
        for second in 0..SAMPLES {
            sample(model, number, second);
        }
    }
    apply(
        model,
        task,
        Kind::TaskStarted { kind: TaskKind::Build, title: "nix/examples/hello#minimal".into() },
    );
    apply(model, task, Kind::Phase { name: "build".into() });
    for id in 0..DERIVATIONS {
        // Each needs one or two that were begun before it.
        let needs = [id / 2, id.saturating_sub(1)].into_iter().filter(|needed| *needed < id).map(drv);
        let (host, needs) = (String::new(), needs.collect());
        let what = Activity::Build { drv: drv(id), host, usual_ms: Some(60_000), needs };
        apply(model, task, Kind::ActivityStarted { id, parent: None, what });
        if id % 4 > 0 {
            apply(model, task, Kind::ActivityStopped { id });
        }
    }
    (0..LINES).for_each(|line| log(model, task, line));
    let built = model.task(task).context("the task is not known")?;
    ensure!(built.log.range() == (0..LINES), "the log is not whole");
    ensure!(model.vms.len() == VMS && built.tree.len() as u64 == DERIVATIONS, "the model is not full");
    Ok(())
}

fn log(model: &mut Model, task: &TaskId, line: u64) {
    let source = Source::Build { drv: drv(line % DERIVATIONS) };
    let text = match line % 4 {
        0 => format!("\x1b[32mok\x1b[0m some/path/to/file_{line}.rs \x1b[2m({line} ms)\x1b[0m"),
        1 => format!("{line} 漢字かな交じり文 ünïcödé"),
        2 => format!("{line} {}", "a line that is wrapped ".repeat(8)),
        _ => format!("  CC [M]  drivers/net/ethernet/vendor/module_{line}.o"),
    };
    apply(model, task, Kind::Log { source, text });
}

fn sample(model: &mut Model, number: usize, second: usize) {
    let noise = (number * 7919 + second * 104_729) as u64;
    let sample = VmSample {
        cpu_permille: (noise % 1000) as u32,
        memory_kib: 65_536 + noise % 65_536,
        rx_bps: Some(noise % 10_000_000),
        tx_bps: Some(noise % 1_000_000),
        read_bps: noise % 100_000,
        write_bps: noise % 10_000,
    };
    apply(model, &TaskId::machine(), Kind::VmSample { vm: id(number), sample });
}

fn id(number: usize) -> String {
    format!("v-{number:08x}")
}

fn vm(number: usize) -> VmInfo {
    let now = Timestamp::now();
    VmInfo {
        id: id(number),
        name: format!("vm-{number}"),
        state: "running".into(),
        live: true,
        detail: None,
        flake: Some("nix/examples/hello".into()),
        artifacts: "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello".into(),
        files: vec![("vmlinux".into(), 20 << 20), ("rootfs.squashfs".into(), 80 << 20)],
        hypervisor: "qemu/kvm".into(),
        network: "user".into(),
        cpus: 1,
        memory_mib: 256,
        disk_mib: 1024,
        ports: vec![format!("127.0.0.1:{}:22", 20_000 + number)],
        volumes: Vec::new(),
        pid: Some(1000 + number as u32),
        created: now,
        changed: now,
        started_by: Some("run".into()),
        shares: false,
        removed_at_end: false,
        snapshot: Some(SnapshotInfo { bytes: 84 << 20, created: now }),
        ready: None,
    }
}
