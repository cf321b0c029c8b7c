//! The page and the tile, as they are seen.

use super::super::shot::draw_in;
use super::*;
use crate::console::model::Model;
use crate::console::theme::{Depth, Palette, Theme};
use crate::console::ui::Ui;
use crate::event::{Activity, Event, Kind, Outcome, SCHEMA_VERSION, Source, TaskId, TaskKind};
use jiff::Timestamp;
use proptest::prelude::*;

fn theme() -> Theme {
    Theme::new(&Palette::dark(), Depth::None, false)
}

fn drv(name: &str) -> String {
    format!("/nix/store/00000000000000000000000000000000-{name}.drv")
}

/// A task of another process, as its events come.
struct Teller<'a> {
    model: &'a mut Model,
    task: TaskId,
    next: u64,
}

impl<'a> Teller<'a> {
    fn new(model: &'a mut Model, task: &str, kind: TaskKind, title: &str, second: i64) -> Self {
        let task = serde_json::from_str(&format!("\"{task}\"")).unwrap();
        let mut teller = Self { model, task, next: 1 };
        teller.send(second, Kind::TaskStarted { kind, title: title.into() });
        teller
    }

    fn send(&mut self, second: i64, kind: Kind) {
        let time = Timestamp::from_second(second).unwrap();
        self.model.apply(&Event { v: SCHEMA_VERSION, time, task: self.task.clone(), kind });
    }

    fn phase(&mut self, second: i64, name: &str) {
        self.send(second, Kind::Phase { name: name.into() });
    }

    fn start(&mut self, second: i64, what: Activity) -> u64 {
        self.next += 1;
        self.send(second, Kind::ActivityStarted { id: self.next, parent: None, what });
        self.next
    }

    fn build(&mut self, second: i64, name: &str, host: &str, usual_ms: Option<u64>, needs: &[&str]) -> u64 {
        let needs = needs.iter().map(|need| drv(need)).collect();
        self.start(second, Activity::Build { drv: drv(name), host: host.into(), usual_ms, needs })
    }

    fn built(&mut self, from: i64, to: i64, name: &str, needs: &[&str]) {
        let id = self.build(from, name, "", None, needs);
        self.send(to, Kind::ActivityStopped { id });
    }

    fn progress(&mut self, second: i64, id: u64, [done, expected, running, failed]: [u64; 4]) {
        self.send(second, Kind::Progress { id: Some(id), done, expected, running, failed });
    }

    fn log(&mut self, second: i64, name: &str, text: &str) {
        self.send(second, Kind::Log { source: Source::Build { drv: drv(name) }, text: text.into() });
    }

    fn end(&mut self, second: i64, outcome: Outcome) {
        self.send(second, Kind::TaskEnded { outcome, duration_ms: 0, dropped: 0 });
    }
}

/// A run that is done, a build that failed, and one under way with downloads.
fn busy() -> Model {
    let mut model = Model::default();
    let mut done = Teller::new(&mut model, "r-0-7", TaskKind::Run, "/tmp/x/web#minimal", 0);
    done.phase(0, "build");
    done.built(0, 4, "web-rootfs", &[]);
    done.phase(5, "boot");
    let steps = vec![("spawn".into(), 120), ("boot".into(), 1830)];
    done.send(
        7,
        Kind::VmStarted { vm: "v".into(), name: "web".into(), how: "booted".into(), why: None, steps },
    );
    done.end(7, Outcome::Ok);
    failed(&mut model, 10);
    let mut task = Teller::new(&mut model, "b-2-c3", TaskKind::Build, "/home/me/projects/hello#minimal", 20);
    task.phase(20, "evaluate");
    task.phase(22, "build");
    let builds = task.start(22, Activity::Total { of: "builds".into() });
    let fetch =
        task.start(23, Activity::Download { uri: "https://cache.example.org/nar/1a2b3c.nar.xz".into() });
    task.progress(25, fetch, [3_250_585, 8_388_608, 0, 0]);
    task.built(23, 24, "initrd", &[]);
    task.built(23, 25, "busybox-1.36", &[]);
    let id = task.build(25, "hello-rootfs", "", Some(5200), &["busybox-1.36"]);
    task.send(26, Kind::ActivityPhase { id, phase: "image".into() });
    let id = task.build(26, "linux-6.1-with-a-very-long-name-of-its-own", "ssh://builder-1", None, &[]);
    task.send(27, Kind::ActivityPhase { id, phase: "unpackPhase".into() });
    task.progress(27, builds, [2, 7, 2, 0]);
    task.log(27, "hello-rootfs", "mke2fs 1.47.0 (5-Feb-2023)");
    task.log(27, "hello-rootfs", "Creating filesystem with 10240 4k blocks and 10240 inodes");
    model
}

/// One that saved a VM.
fn saved() -> Model {
    let mut model = Model::default();
    let mut task = Teller::new(&mut model, "n-0-7", TaskKind::Snapshot, "save web", 0);
    task.phase(0, "save");
    let (vm, name) = ("v".into(), "web".into());
    task.send(1, Kind::SnapshotTaken { vm, name, bytes: 84 << 20, paused_ms: 451, ms: 1200 });
    task.end(1, Outcome::Ok);
    model
}

fn failed(model: &mut Model, from: i64) {
    let mut task = Teller::new(model, "b-1-7", TaskKind::Build, "/tmp/x/broken", from);
    task.phase(from, "build");
    task.built(from, from + 1, "part", &[]);
    task.log(from + 1, "bad", "gcc: error: no such file");
    task.built(from, from + 2, "bad", &["part"]);
    let error = format!(
        "cannot build `/tmp/x/broken#packages.x86_64-linux.default`: builder for '{}' failed with exit code 2\nhelp: `nix log {}` shows the whole log",
        drv("bad"),
        drv("bad")
    );
    task.end(from + 2, Outcome::Failed { error, tail: vec![] });
}

/// Sixty derivations, five of which run and two failed.
fn many() -> Model {
    let mut model = Model::default();
    let mut task = Teller::new(&mut model, "b-2-c3", TaskKind::Build, "github:owner/big", 0);
    task.phase(0, "build");
    for count in 0..55 {
        let below = format!("lib-{}", count.max(1) - 1);
        let needs = [below.as_str()];
        let needs = if count % 5 == 4 { &needs[..] } else { &[] };
        task.built(count, count + 1, &format!("lib-{count}"), needs);
    }
    for count in 0..5 {
        task.build(55 + count, &format!("app-{count}"), "", Some(90_000), &["lib-50"]);
    }
    let text = format!("builder for '{}' failed, and for '{}'", drv("lib-10"), drv("lib-20"));
    task.send(60, Kind::Log { source: Source::Nix { level: 0 }, text });
    model
}

fn screen(model: &Model, ui: &mut Ui, second: i64, (width, height): (u16, u16)) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw_in(model, ui, (&theme(), Timestamp::from_second(second).unwrap()), area, &mut buffer);
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_string() + "\n").collect()
}

/// The page below the header and above the footer.
fn page(size: (u16, u16)) -> (u16, u16) {
    (size.0, size.1 - 2)
}

fn ui(part: Part) -> Ui {
    let mut ui = Ui { page: Page::Builds, tile: Page::Builds, ..Ui::default() };
    ui.builds.part = part;
    ui
}

fn overview() -> Ui {
    Ui { page: Page::Overview, ..ui(Part::Tasks) }
}

#[test]
fn a_page_with_a_task_under_way_at_three_sizes() {
    for size in [(80, 24), (120, 40), (200, 50)] {
        let name = format!("busy_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, screen(&busy(), &mut ui(Part::Tasks), 28, page(size)));
    }
}

#[test]
fn a_tile_with_a_task_under_way_at_three_sizes() {
    for size in [(20, 9), (40, 11), (60, 19)] {
        insta::assert_snapshot!(
            format!("tile_{}x{}", size.0, size.1),
            screen(&busy(), &mut overview(), 28, size)
        );
    }
}

#[test]
fn a_vm_that_was_saved_is_told_with_its_size_and_how_long_it_stood_still() {
    insta::assert_snapshot!("saved_80x18", screen(&saved(), &mut ui(Part::Tree), 2, (80, 18)));
}

#[test]
fn a_run_that_is_done_says_how_long_each_step_took() {
    let (mut model, mut ui) = (busy(), ui(Part::Tree));
    ui.builds.select(model.tasks[2].id.clone());
    let mut task = Teller { task: model.tasks[2].id.clone(), model: &mut model, next: 900 };
    let path = "/var/lib/mvm/builds/0123456789abcdfghijklmnpqrsvwxyz".into();
    task.send(4, Kind::ArtifactsReady { build: "b".into(), path, cached: false, how: "built".into() });
    insta::assert_snapshot!("run_60x18", screen(&model, &mut ui, 28, (60, 18)));
}

#[test]
fn a_failed_task_shows_its_whole_error() {
    let (mut model, mut ui) = (Model::default(), ui(Part::Tree));
    failed(&mut model, 0);
    assert!(ui.builds.jump(&model, 1));
    insta::assert_snapshot!("failed_80x24", screen(&model, &mut ui, 28, page((80, 24))));
    insta::assert_snapshot!("failed_tile_40x11", screen(&model, &mut overview(), 28, (40, 11)));
}

#[test]
fn a_long_error_is_scrolled_by_the_cursor() {
    let (mut model, mut ui) = (Model::default(), ui(Part::Tree));
    let mut task = Teller::new(&mut model, "b-1-7", TaskKind::Build, "x", 0);
    task.built(0, 1, "part", &[]);
    let error = (0..30).map(|line| format!("error line {line}")).collect::<Vec<_>>().join("\n");
    task.end(2, Outcome::Failed { error, tail: vec!["the last words".into()] });
    ui.builds.move_by(&model, 5);
    insta::assert_snapshot!("error_80x24", screen(&model, &mut ui, 2, page((80, 24))));
    ui.builds.move_by(&model, 26);
    let end = screen(&model, &mut ui, 2, page((80, 24)));
    assert!(end.contains("the last words") && end.contains("part"), "{end}");
}

#[test]
fn plain_ascii_needs_no_other_sign() {
    let theme = Theme::new(&Palette::dark(), Depth::None, true);
    let area = Rect::new(0, 0, 100, 30);
    let mut buffer = Buffer::empty(area);
    for model in [busy(), many()] {
        let now = Timestamp::from_second(70).unwrap();
        draw_in(&model, &mut ui(Part::Tree), (&theme, now), area, &mut buffer);
        assert!(buffer.content.iter().all(|cell| cell.symbol().is_ascii()));
    }
}

#[test]
fn sixty_derivations_fold_to_what_runs_and_what_failed() {
    insta::assert_snapshot!("many_80x24", screen(&many(), &mut ui(Part::Tree), 65, page((80, 24))));
    insta::assert_snapshot!("many_120x40", screen(&many(), &mut ui(Part::Tree), 65, page((120, 40))));
}

#[test]
fn the_cursor_unfolds_the_tree_around_itself_and_selects_a_log() {
    let (mut model, mut ui) = (many(), ui(Part::Tree));
    ui.builds.move_by(&model, 30);
    let mut task = Teller { task: model.tasks[0].id.clone(), model: &mut model, next: 900 };
    task.log(61, "lib-0", "not this one's");
    task.log(61, "lib-28", "this one's");
    insta::assert_snapshot!("cursor_80x24", screen(&model, &mut ui, 65, page((80, 24))));
}

#[test]
fn where_nothing_was_built_it_says_what_to_press() {
    insta::assert_snapshot!("empty_40x5", screen(&Model::default(), &mut ui(Part::Tasks), 0, (40, 5)));
}

#[test]
fn the_same_derivations_stay_in_their_rows_while_one_ends() {
    let mut model = busy();
    let before = screen(&model, &mut ui(Part::Tree), 28, page((120, 40)));
    let mut task = Teller { task: model.tasks[0].id.clone(), model: &mut model, next: 900 };
    task.send(28, Kind::ActivityStopped { id: 6 });
    let after = screen(&model, &mut ui(Part::Tree), 28, page((120, 40)));
    let names = |text: &str| -> Vec<Option<usize>> {
        ["initrd", "hello-rootfs  ", "busybox", "linux-6.1"].map(|name| text.find(name)).to_vec()
    };
    let rows =
        |text: &str| names(text).iter().map(|at| text[..at.unwrap()].lines().count()).collect::<Vec<_>>();
    assert_eq!(rows(&before), rows(&after));
}

fn arbitrary_kind() -> impl Strategy<Value = Kind> {
    let name = "[a-c]{1,2}|\\PC{0,20}|日本語{1,9}";
    let number = prop_oneof![0_u64..6, Just(u64::MAX)];
    let what = (0_u8..5, name, number.clone()).prop_map(|(kind, name, number)| match kind {
        0 | 1 => {
            Activity::Build { drv: drv(&name), host: name, usual_ms: Some(number), needs: vec![drv("a")] }
        }
        2 => Activity::Download { uri: name },
        3 => Activity::Copy { path: name },
        _ => Activity::Total { of: "builds".into() },
    });
    prop_oneof![
        4 => (number.clone(), what).prop_map(|(id, what)| Kind::ActivityStarted { id, parent: Some(id / 2), what }),
        1 => number.clone().prop_map(|id| Kind::ActivityStopped { id }),
        1 => (number.clone(), name).prop_map(|(id, phase)| Kind::ActivityPhase { id, phase }),
        1 => [number.clone(), number.clone(), number.clone(), number].prop_map(|[id, done, expected, running]| {
            Kind::Progress { id: Some(id), done, expected, running, failed: done }
        }),
        1 => name.prop_map(|text| Kind::Log { source: Source::Build { drv: drv("a") }, text }),
        1 => name.prop_map(|name| Kind::Phase { name }),
        1 => name.prop_map(|title| Kind::TaskStarted { kind: TaskKind::Run, title }),
        1 => (name, 0_u64..9).prop_map(|(name, dropped)| {
            let error = format!("{name}\n{} failed\nhelp: {name}", drv("a"));
            let outcome = Outcome::Failed { error, tail: vec![name; 3] };
            Kind::TaskEnded { outcome, duration_ms: 0, dropped }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_happens_nothing_is_drawn_outside(
        events in proptest::collection::vec((0_i64..100, arbitrary_kind()), 0..80),
        (width, height) in (0_u16..220, 0_u16..60),
        (part, zoomed, is_tile) in (0_usize..3, any::<bool>(), any::<bool>()),
        moves in proptest::collection::vec(-9_isize..9, 0..6),
    ) {
        let (mut model, mut ui) = (Model::default(), if is_tile { overview() } else { ui(Part::ALL[part]) });
        ui.zoomed = zoomed;
        let mut task = Teller::new(&mut model, "b-2-c3", TaskKind::Build, "x", 50);
        events.into_iter().for_each(|(second, kind)| task.send(second, kind));
        ui.builds.part = Part::Tree;
        moves.into_iter().for_each(|by| ui.builds.move_by(&model, by));
        ui.builds.part = Part::ALL[part];
        let whole = Rect::new(0, 0, width + 8, height + 8);
        let area = Rect::new(4, 4, width, height);
        let mut buffer = Buffer::filled(whole, ratatui::buffer::Cell::new("#"));
        let theme = theme();
        draw_in(&model, &mut ui, (&theme, Timestamp::from_second(70).unwrap()), area, &mut buffer);
        for y in 0..whole.height {
            for x in 0..whole.width {
                if !area.contains((x, y).into()) {
                    prop_assert_eq!(buffer[(x, y)].symbol(), "#");
                }
            }
        }
        let builds = model.tasks[0].totals.builds();
        prop_assert!(builds.done <= builds.expected);
    }
}
