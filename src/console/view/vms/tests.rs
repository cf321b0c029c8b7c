use proptest::prelude::*;

use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::console::ui::vms::Part;
use crate::console::view::shot::{NOW, apply, at, draw, text};
use crate::event::vm::{SnapshotInfo, VmInfo, VmSample};
use crate::event::{Event, Kind, SCHEMA_VERSION, Source, TaskId};

fn info(number: u32, name: &str, state: &str) -> VmInfo {
    VmInfo {
        id: format!("v-{number:08x}"),
        name: name.into(),
        state: state.into(),
        live: !matches!(state, "stopped" | "failed"),
        detail: None,
        flake: Some(format!("/home/dev/{name}#minimal")),
        artifacts: "/var/lib/mvm/dev/builds/0123456789abcdfghijklmnpqrsvwxyz".into(),
        files: vec![("vmlinux".into(), 12 << 20), ("rootfs.ext4".into(), 96 << 20)],
        hypervisor: "qemu/tcg".into(),
        network: "user".into(),
        cpus: 2,
        memory_mib: 256,
        disk_mib: 4096,
        ports: vec!["127.0.0.1:8080:80".into()],
        volumes: vec!["/home/dev/data:/srv/data".into()],
        pid: Some(4242),
        created: at(NOW - 300),
        changed: at(NOW - i64::from(number) * 60),
        started_by: Some("run".into()),
        shares: false,
        removed_at_end: false,
        snapshot: None,
        ready: Some(SnapshotInfo { bytes: 61 << 20, created: at(NOW - 200) }),
    }
}

fn see(model: &mut Model, info: VmInfo) {
    apply(model, Kind::VmSeen { info: Box::new(info) });
}

fn sample(model: &mut Model, number: u32, step: u64) {
    let wave = [1, 3, 5, 8, 5, 3][step as usize % 6];
    let sample = VmSample {
        cpu_permille: wave as u32 * 250,
        memory_kib: 82 * 1024 + step * 4096,
        rx_bps: Some(wave * 1000),
        tx_bps: Some(229),
        read_bps: 0,
        write_bps: wave << 20,
    };
    apply(model, Kind::VmSample { vm: format!("v-{number:08x}"), sample });
}

/// One that runs, one that booted just now, one that failed.
fn three() -> Model {
    let mut model = Model::default();
    let mut failed = info(3, "broken", "failed");
    failed.detail = Some(
        "the guest `broken` did not start its agent within 120 s\n\
         help: `boot_timeout_secs` in mvm.toml (or --boot-timeout) gives it longer"
            .into(),
    );
    see(&mut model, failed);
    see(&mut model, info(2, "web", "booting"));
    let mut hello = info(1, "hello", "running");
    hello.snapshot = Some(SnapshotInfo { bytes: 84 << 20, created: at(NOW - 65) });
    see(&mut model, hello);
    let (vm, name) = ("v-00000001".to_string(), "hello".to_string());
    let (how, why) = ("booted".into(), Some("no ready snapshot yet".into()));
    let steps =
        [("spawn", 120), ("boot", 2100), ("personalise", 80), ("ready", 400)].map(|(s, ms)| (s.into(), ms));
    apply(&mut model, Kind::VmStarted { vm: vm.clone(), name, how, why, steps: steps.to_vec() });
    (0..30).for_each(|step| sample(&mut model, 1, step));
    apply(&mut model, Kind::Forwarded { vm: vm.clone(), map: "127.0.0.1:2201:22".into(), on: true });
    let source = Source::Console { vm };
    apply(&mut model, Kind::Log { source, text: "Welcome to hello".into() });
    model
}

fn page() -> Ui {
    Ui { page: Page::Vms, ..Ui::default() }
}

#[test]
fn the_page_at_80x24_shows_table_detail_and_console() {
    insta::assert_snapshot!(text(&draw(&three(), &mut page(), false, 80, 24)));
}

#[test]
fn the_page_at_120x40_shows_more_columns_and_wide_graphs() {
    insta::assert_snapshot!(text(&draw(&three(), &mut page(), false, 120, 40)));
}

#[test]
fn the_page_at_200x50_has_the_detail_beside_the_table() {
    insta::assert_snapshot!(text(&draw(&three(), &mut page(), false, 200, 50)));
}

#[test]
fn in_plain_ascii_no_other_character_is_drawn() {
    let shown = text(&draw(&three(), &mut page(), true, 80, 24));
    assert!(shown.is_ascii(), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_failed_vm_says_why_in_full() {
    let model = three();
    let mut ui = page();
    ui.vms.select("v-00000003");
    insta::assert_snapshot!(text(&draw(&model, &mut ui, false, 80, 24)));
}

#[test]
fn a_vm_that_went_on_from_a_snapshot_says_in_which_steps() {
    let mut model = Model::default();
    let mut dev = info(1, "dev", "running");
    (dev.started_by, dev.ready) = (Some("dev".into()), None);
    see(&mut model, dev);
    let steps = [("spawn", 60), ("load", 110), ("ready", 140)].map(|(step, ms)| (step.into(), ms)).to_vec();
    let (vm, name, how) = ("v-00000001".into(), "dev".into(), "restored".into());
    apply(&mut model, Kind::VmStarted { vm, name, how, why: None, steps });
    let mut ui = Ui { zoomed: true, ..page() };
    ui.vms.part = Part::Detail;
    insta::assert_snapshot!(text(&draw(&model, &mut ui, false, 80, 24)));
}

#[test]
fn without_a_vm_the_page_says_how_to_start_one() {
    let shown = text(&draw(&Model::default(), &mut page(), false, 80, 24));
    assert!(shown.contains("No VM: `r` builds and boots a flake."), "{shown}");
}

#[test]
fn the_selected_one_of_sixty_is_in_sight_and_stays_selected_when_the_order_changes() {
    let mut model = Model::default();
    (0..60).for_each(|number| see(&mut model, info(number, &format!("vm-{number:02}"), "running")));
    let mut ui = page();
    ui.vms.move_by(&model, 40);
    let chosen = ui.vms.vm(&model).unwrap().id.clone();
    insta::assert_snapshot!(text(&draw(&model, &mut ui, false, 80, 24)));
    ui.vms.next_column();
    ui.vms.reverse = true;
    let name = &model.vm(&chosen).unwrap().name;
    assert_eq!(ui.vms.vm(&model).unwrap().id, chosen);
    assert!(text(&draw(&model, &mut ui, false, 80, 24)).lines().take(7).any(|line| line.contains(name)));
}

#[test]
fn what_was_measured_late_is_not_counted_as_use_of_a_vm_that_is_over() {
    let mut model = three();
    see(&mut model, info(1, "hello", "stopped"));
    sample(&mut model, 1, 1);
    assert!(model.vm("v-00000001").unwrap().samples.is_empty());
}

#[test]
fn a_task_of_long_ago_brings_no_vm_back_and_yet_tells_how_one_came_up() {
    let mut model = Model::default();
    let (vm, name) = ("v-00000001".to_string(), "hello".to_string());
    let event = |task, kind| Event { v: SCHEMA_VERSION, time: at(NOW), task, kind };
    let state = |state: &str| Kind::VmState { vm: vm.clone(), name: name.clone(), state: state.into() };
    let start = Kind::VmStarted {
        vm: vm.clone(),
        name: name.clone(),
        how: "booted".into(),
        why: None,
        steps: vec![],
    };
    model.apply(&event(TaskId::machine(), state("running")));
    model.apply(&event(TaskId::machine(), start));
    assert!(model.vms.is_empty());
    see(&mut model, info(1, "hello", "running"));
    assert!(model.vms[0].start.is_some());

    // One of this console's own is there at once, and gone if it ends before it had a record.
    let mut model = Model::default();
    model.apply(&event(TaskId::new('r'), state("booting")));
    assert_eq!(model.vms.len(), 1);
    model.apply(&event(TaskId::new('r'), state("stopped")));
    assert!(model.vms.is_empty());
}

#[test]
fn a_forward_that_ended_is_not_shown_any_more() {
    let mut model = three();
    let end = Kind::Forwarded { vm: "v-00000001".into(), map: "127.0.0.1:2201:22".into(), on: false };
    assert!(apply(&mut model, end.clone()));
    assert!(!apply(&mut model, end));
    assert!(!text(&draw(&model, &mut page(), false, 80, 24)).contains("2201"));
}

#[test]
fn the_overview_fits_narrow_and_wide_screens() {
    let model = three();
    for (width, height) in [(80, 24), (120, 40), (200, 50)] {
        let shown = text(&draw(&model, &mut Ui::default_overview(), false, width, height));
        insta::assert_snapshot!(format!("overview_{width}x{height}"), shown);
    }
}

impl Ui {
    fn default_overview() -> Self {
        Ui { page: Page::Overview, ..Ui::default() }
    }
}

fn event() -> impl Strategy<Value = Kind> {
    let text = prop_oneof!["[a-z]{1,12}", ".*", Just("\x1b[31m日本\u{202e}\n語\u{200b}".to_string())];
    let state = prop_oneof![Just("running"), Just("failed"), Just("booting"), Just("\u{301}")];
    (0u32..4, text, state, any::<u64>(), 0..6u8).prop_map(|(number, text, state, value, sort)| {
        let vm = format!("v-{number:08x}");
        match sort {
            0 | 1 => {
                let mut info = info(number, &text, state);
                (info.detail, info.flake) = (Some(text.repeat(9)), Some(text));
                (info.cpus, info.memory_mib) = (value as u32, (value >> 32) as u32);
                info.snapshot = Some(SnapshotInfo { bytes: value, created: info.changed });
                Kind::VmSeen { info: Box::new(info) }
            }
            2 => Kind::VmGone { vm },
            3 => Kind::Forwarded { vm, map: text, on: value % 2 == 0 },
            4 => Kind::VmStarted {
                vm,
                name: text.clone(),
                how: text.clone(),
                why: None,
                steps: vec![(text, value >> 8)],
            },
            _ => {
                let (rx_bps, tx_bps) = (Some(value), Some(value).filter(|v| v % 3 > 0));
                let (cpu_permille, memory_kib) = (value as u32, value);
                let sample =
                    VmSample { cpu_permille, memory_kib, rx_bps, tx_bps, read_bps: value, write_bps: value };
                Kind::VmSample { vm, sample }
            }
        }
    })
}

proptest! {
    #[test]
    fn no_events_and_no_size_disturb_the_screen(
        events in proptest::collection::vec(event(), 0..40),
        width in 1u16..220, height in 3u16..70, moves in -5isize..5, part in 0usize..3, zoomed: bool,
    ) {
        let mut model = Model::default();
        let mut ui = Ui { zoomed, ..page() };
        for event in events {
            apply(&mut model, event);
            ui.vms.move_by(&model, moves);
        }
        ui.vms.part = Part::ALL[part];
        ui.vms.move_by(&model, moves);
        for page in [Page::Vms, Page::Overview] {
            ui.page = page;
            let buffer = draw(&model, &mut ui, false, width, height);
            prop_assert!(!text(&buffer).chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
