//! Anything that happens, typed and clicked in any order, on a screen of any size.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crossterm::event::KeyModifiers;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::console::theme::{Depth, Palette, Theme};
use crate::console::ui::tabs::{Program, Tab};
use crate::console::view;
use crate::console::work::Job;
use crate::event::cluster::{ClusterInfo, InstanceInfo, NodeInfo, PoolInfo, TenantInfo};
use crate::event::vm::{SnapshotInfo, VmInfo, VmSample};
use crate::event::{Activity, Event, Kind, Level, Outcome, SCHEMA_VERSION, Source, TaskId, TaskKind};

#[derive(Debug, Clone)]
enum Step {
    Happens(Box<Event>),
    Key(KeyEvent),
    Command(usize),
    Palette(String),
    Paste(String),
    Mouse(MouseEventKind, u16, u16),
    Resize(u16, u16),
}

fn text() -> impl Strategy<Value = String> {
    let hostile = "([a-f ]|漢|\u{301}|\u{200b}|\u{200d}|\u{202e}|🇩🇪|👍\u{1f3fd}|\t|\n|\u{9b}|\x1b\\[[0-9;:]{0,8}[mJHA]|\x1b\\]0;){0,20}";
    let long = (0usize..3).prop_map(|which| ["x", "漢", "\x1b[31mé"][which].repeat(3000));
    prop_oneof![4 => hostile, 3 => "[a-f/:. -]{0,40}", 2 => ".{0,20}", 1 => long]
}

fn task() -> impl Strategy<Value = TaskId> {
    let ids = ["machine", "b-1-0", "r-2-0", "b-3-0"];
    let own = prop_oneof![Just(TaskId::new('b'))];
    prop_oneof![4 => select(ids.to_vec()).prop_map(|id| serde_json::from_value(id.into()).unwrap()), 1 => own]
}

fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![
        8 => 1_000_000_000i64..1_000_010_000,
        1 => Just(Timestamp::MIN.as_second()),
        1 => Just(Timestamp::MAX.as_second()),
    ];
    seconds.prop_map(|second| Timestamp::from_second(second).unwrap())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..20, 1 => Just(u64::MAX)]
}

fn vm() -> impl Strategy<Value = String> {
    select(vec!["v-1", "v-2", "v-3"]).prop_map(String::from)
}

fn state() -> impl Strategy<Value = String> {
    let known = select(vec!["booting", "running", "paused", "stopped", "failed"]).prop_map(String::from);
    prop_oneof![4 => known, 1 => text()]
}

fn activity() -> impl Strategy<Value = Activity> {
    // As JSON, so that fields that are added later need no word here.
    (text(), text(), number(), 0..6).prop_map(|(one, other, number, which)| {
        let json = match which {
            0 => serde_json::json!({ "kind": "build", "drv": one, "host": other, "usual_ms": number }),
            1 => serde_json::json!({ "kind": "download", "uri": one }),
            2 => serde_json::json!({ "kind": "copy", "path": one }),
            3 => serde_json::json!({ "kind": "evaluate", "text": one }),
            4 => serde_json::json!({ "kind": "total", "of": "builds" }),
            _ => serde_json::json!({ "kind": "other", "text": one }),
        };
        serde_json::from_value(json).unwrap()
    })
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        text().prop_map(|drv| Source::Build { drv }),
        (0u8..8).prop_map(|level| Source::Nix { level }),
        vm().prop_map(|vm| Source::Console { vm }),
        select(vec![Level::Info, Level::Warning]).prop_map(|level| Source::Mvm { level }),
    ]
}

fn seen() -> impl Strategy<Value = Kind> {
    (vm(), state(), [text(), text(), text(), text()], any::<bool>(), time(), time()).prop_map(
        |(id, state, [name, detail, flake, port], live, created, changed)| Kind::VmSeen {
            info: Box::new(VmInfo {
                id,
                state,
                live,
                artifacts: PathBuf::from(&flake),
                files: vec![(name.clone(), u64::MAX)],
                hypervisor: name.clone(),
                network: detail.clone(),
                name,
                detail: Some(detail),
                flake: Some(flake),
                cpus: u32::MAX,
                memory_mib: u32::MAX,
                disk_mib: u64::MAX,
                volumes: vec![port.clone(); 3],
                ports: vec![port; 3],
                pid: None,
                created,
                changed,
                started_by: None,
                shares: live,
                removed_at_end: !live,
                snapshot: Some(SnapshotInfo { bytes: u64::MAX, created: changed }),
                ready: Some(SnapshotInfo { bytes: 0, created }),
            }),
        },
    )
}

fn sample() -> impl Strategy<Value = Kind> {
    (vm(), number(), number(), any::<u32>()).prop_map(|(vm, one, other, cpu_permille)| {
        let (memory_kib, read_bps, write_bps) = (one, other, one);
        let (rx_bps, tx_bps) = ((one > 3).then_some(other), Some(one));
        let sample = VmSample { cpu_permille, memory_kib, rx_bps, tx_bps, read_bps, write_bps };
        Kind::VmSample { vm, sample }
    })
}

fn cluster() -> impl Strategy<Value = Kind> {
    ([text(), text(), text()], state(), 0..3usize, any::<u32>()).prop_map(
        |([name, address, instance], state, count, desired)| {
            let instance = InstanceInfo { name: instance, state: state.clone(), ..InstanceInfo::default() };
            let (instances, actual) = (vec![instance; count], u32::MAX);
            let pool = PoolInfo { name: name.clone(), desired, actual, instances, ..PoolInfo::default() };
            let tenant = TenantInfo { name: name.clone(), pools: vec![pool; count], ..TenantInfo::default() };
            let (node_address, tenants) = (address.clone(), vec![tenant; count]);
            let (here, error) = (desired % 2 == 0, Some(name.clone()));
            let node = NodeInfo { name, address: node_address, state: state.clone(), tenants, here, error };
            let (nodes, more) = (vec![node; count], ClusterInfo::default());
            Kind::ClusterSeen { cluster: Box::new(ClusterInfo { address, state, nodes, ..more }) }
        },
    )
}

fn fleet() -> impl Strategy<Value = Kind> {
    let name =
        || prop_oneof![4 => select(vec!["dev", "web", "i-00000001"]).prop_map(String::from), 1 => text()];
    let states = vec!["running", "warm", "sleeping", "stopped", "failed", "destroyed"];
    let state = prop_oneof![4 => select(states).prop_map(String::from), 1 => text()];
    ([name(), name(), name()], state, text(), any::<u32>(), time(), 0..4u8).prop_map(
        |([tenant, pool, instance], state, words, number, time, which)| {
            // As JSON, so that fields that are added later need no word here.
            let counts = serde_json::json!({ "running": number, "warm": number, "sleeping": number });
            let json = match which {
                0 => serde_json::json!({ "event": "tenant_seen", "tenant": { "name": tenant, "network": words,
                    "quotas": { "cpus": number, "memory_mib": number, "running": 0, "warm": 1, "pools": 2,
                                "instances": 3, "disk_gib": 4 } } }),
                1 => serde_json::json!({ "event": "pool_seen", "tenant": tenant, "pool": { "name": pool,
                    "desired": number, "counts": counts, "failure": words, "revision": words,
                    "retry": time, "held": time, "revisions": [{ "build": words, "created": time }] } }),
                2 => serde_json::json!({ "event": "instance_seen", "tenant": tenant, "pool": pool, "instance": {
                    "name": instance, "state": state, "detail": words, "since": time, "cpus": number,
                    "memory_mib": number, "vm": "v-1", "endpoint": words, "failures": number,
                    "lease": { "until": time, "from": words }, "retry": time, "held": time } }),
                _ => serde_json::json!({ "event": "fleet_gone", "path": format!("{tenant}/{pool}") }),
            };
            serde_json::from_value(json).unwrap()
        },
    )
}

fn route() -> impl Strategy<Value = Kind> {
    (text(), text(), state(), number(), number()).prop_map(|(listen, pool, state, one, other)| {
        // As JSON, so that fields that are added later need no word here.
        let wake = serde_json::json!({ "ms": one, "steps": [[pool, other], [listen, one]], "waiters": other,
            "instance": pool, "error": (one > other).then_some(&listen) });
        let instance = serde_json::json!({ "name": pool, "state": state, "endpoint": listen, "connections": one,
            "leased": true, "healthy": one > 3 });
        let json = serde_json::json!({ "event": "route_seen", "route": { "listen": listen, "tenant": pool,
            "pool": pool, "state": state, "connections": one, "rx_bytes": other, "tx_bytes": one, "wake": wake,
            "idle_secs": other, "queued": one, "accepted": other, "refused": one, "wakes": one,
            "failed_wakes": other, "instances": [instance], "error": (one < other).then_some(&pool) } });
        serde_json::from_value(json).unwrap()
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Ok),
        Just(Outcome::Cancelled),
        (text(), prop::collection::vec(text(), 0..4))
            .prop_map(|(error, tail)| Outcome::Failed { error, tail }),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let kinds = vec![TaskKind::Build, TaskKind::Run, TaskKind::Setup, TaskKind::Snapshot, TaskKind::Fleet];
    let parent = prop::option::of(number());
    prop_oneof![
        (select(kinds), text()).prop_map(|(kind, title)| Kind::TaskStarted { kind, title }),
        text().prop_map(|name| Kind::Phase { name }),
        (number(), parent, activity()).prop_map(|(id, parent, what)| Kind::ActivityStarted {
            id,
            parent,
            what
        }),
        (number(), text()).prop_map(|(id, phase)| Kind::ActivityPhase { id, phase }),
        number().prop_map(|id| Kind::ActivityStopped { id }),
        (prop::option::of(number()), number(), number(), number()).prop_map(
            |(id, done, expected, failed)| { Kind::Progress { id, done, expected, running: failed, failed } }
        ),
        (source(), text()).prop_map(|(source, text)| Kind::Log { source, text }),
        (text(), any::<bool>()).prop_map(|(build, cached)| Kind::ArtifactsReady {
            path: PathBuf::from(&build),
            how: build.clone(),
            build,
            cached
        }),
        (vm(), text(), state()).prop_map(|(vm, name, state)| Kind::VmState { vm, name, state }),
        (vm(), text(), number()).prop_map(|(vm, name, ms)| Kind::VmStarted {
            vm,
            how: name.clone(),
            why: Some(name.clone()),
            steps: vec![(name.clone(), ms); 3],
            name
        }),
        (vm(), text(), [number(), number(), number()]).prop_map(|(vm, name, [bytes, paused_ms, ms])| {
            Kind::SnapshotTaken { vm, name, bytes, paused_ms, ms }
        }),
        seen(),
        vm().prop_map(|vm| Kind::VmGone { vm }),
        sample(),
        (prop::collection::vec(text(), 0..3), number())
            .prop_map(|(paths, more)| Kind::WatchTriggered { paths, more }),
        (vm(), text(), any::<bool>()).prop_map(|(vm, map, on)| Kind::Forwarded { vm, map, on }),
        (vm(), any::<bool>()).prop_map(|(vm, on)| Kind::VmLeashed { vm, on }),
        text().prop_map(|text| Kind::Machine { text }),
        cluster(),
        fleet(),
        route(),
        Just(Kind::ClusterGone),
        (outcome(), number()).prop_map(|(outcome, duration_ms)| Kind::TaskEnded {
            outcome,
            duration_ms,
            dropped: duration_ms
        }),
    ]
}

fn pressed() -> impl Strategy<Value = KeyEvent> {
    use KeyCode::*;
    let named = vec![Up, Down, Left, Right, Home, End, PageUp, PageDown, Enter, Esc, Tab, BackTab, Backspace];
    let code = prop_oneof![2 => "\\PC".prop_map(|c| Char(c.chars().next().unwrap())), 3 => "[a-zA-Z0-9:/?&\\[]".prop_map(|c| Char(c.chars().next().unwrap())), 3 => select(named)];
    let modifiers = prop_oneof![8 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL), 1 => Just(KeyModifiers::ALT)];
    (code, modifiers).prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

fn step() -> impl Strategy<Value = Step> {
    let mouse = prop_oneof![
        Just(MouseEventKind::Down(MouseButton::Left)),
        Just(MouseEventKind::ScrollUp),
        Just(MouseEventKind::ScrollDown),
    ];
    prop_oneof![
        8 => (time(), task(), kind()).prop_map(|(time, task, kind)| {
            Step::Happens(Box::new(Event { v: SCHEMA_VERSION, time, task, kind }))
        }),
        6 => pressed().prop_map(Step::Key),
        4 => (0..COMMANDS.len()).prop_map(Step::Command),
        1 => (select(COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>()), text())
            .prop_map(|(name, rest)| Step::Palette(format!("{name} {rest}"))),
        1 => text().prop_map(Step::Paste),
        2 => (mouse, 0u16..300, 0u16..100).prop_map(|(kind, x, y)| Step::Mouse(kind, x, y)),
        2 => (1u16..=300, 1u16..=100).prop_map(|(width, height)| Step::Resize(width, height)),
        1 => (1u16..=90, 1u16..=30).prop_map(|(width, height)| Step::Resize(width, height)),
    ]
}

/// A console whose effects nobody performs.
struct Stage {
    model: Model,
    ui: Ui,
    keymap: Keymap,
    theme: Theme,
    spots: Spots,
    size: (u16, u16),
}

impl Stage {
    fn take(&mut self, step: Step) {
        let Self { model, ui, keymap, spots, .. } = self;
        match step {
            Step::Happens(event) => drop(model.apply(&event)),
            Step::Key(pressed) => drop(key(pressed, keymap, model, ui)),
            Step::Command(index) => drop(call(&COMMANDS[index], model, ui)),
            Step::Palette(typed) => drop(chosen(&typed, 0, model, ui)),
            Step::Paste(text) => paste(&text, model, ui),
            Step::Mouse(kind, column, row) => {
                let modifiers = KeyModifiers::NONE;
                drop(mouse(MouseEvent { kind, column, row, modifiers }, spots, model, ui));
            }
            Step::Resize(width, height) => self.size = (width, height),
        }
    }

    /// Draws into a part of a larger screen and looks at every cell.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let (width, height) = self.size;
        let whole = Rect::new(0, 0, width + 4, height + 2);
        let area = Rect::new(2, 1, width, height);
        let mut screen = Buffer::filled(whole, Cell::new("#"));
        screen.set_style(area, ratatui::style::Style::reset());
        for place in area.positions() {
            screen[place].reset();
        }
        let Self { model, ui, keymap, theme, .. } = self;
        let now = Timestamp::from_second(1_000_005_000).unwrap();
        self.spots = view::show((model, ui), (keymap, theme), now, area, &mut screen);
        let outside = Cell::new("#");
        for place in whole.positions() {
            let cell = &screen[place];
            if !area.contains(place) {
                prop_assert_eq!(cell, &outside, "something was drawn at {} outside of {}", place, area);
                continue;
            }
            let symbol = cell.symbol();
            prop_assert!(!symbol.chars().any(char::is_control), "{:?} at {}", symbol, place);
            // What follows a wide one is its other half.
            let rest = (1..symbol.width()).map(|by| place.x + by as u16);
            for x in rest {
                let free = x < area.right() && screen[(x, place.y)].symbol().trim_start().width() == 0;
                let row: Vec<&str> = (area.x..area.right()).map(|x| screen[(x, place.y)].symbol()).collect();
                prop_assert!(free, "{:?} at {} has no room: {:?}", symbol, place, row);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_cell_of_the_screen_is_sound(
        steps in prop::collection::vec(step(), 1..40),
        words in [text(), text()],
        depth in select(vec![Depth::True, Depth::Ansi, Depth::None]),
        ascii in any::<bool>(),
    ) {
        let mut ui = Ui::default();
        let [name, error] = words;
        let program = Program::Ssh("v-1".into());
        ui.tabs.open(Tab { program, name, session: Err(error), calls: false });
        let mut stage = Stage {
            model: Model::default(),
            ui,
            keymap: Keymap::new(Chord::ctrl('b'), &BTreeMap::new()),
            theme: Theme::new(&Palette::dark(), depth, ascii),
            spots: Spots::default(),
            size: (80, 24),
        };
        for step in steps {
            stage.take(step);
            stage.check()?;
        }
    }
}

fn press(code: KeyCode, ui: &mut Ui) -> Option<Effect> {
    key(KeyEvent::new(code, KeyModifiers::NONE), &Keymap::default(), &Model::new(1 << 20), ui)
}

#[test]
fn what_follows_a_build_command_is_built_whatever_was_built_before() {
    let mut ui = Ui { flake: Some("/old".into()), ..Ui::default() };
    press(KeyCode::Char(':'), &mut ui);
    paste("build /new", &Model::new(1 << 20), &mut ui);
    match press(KeyCode::Enter, &mut ui) {
        Some(Effect::Work(Job::Build(wish))) => assert_eq!(wish.flake, "/new"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ui.flake.as_deref(), Some("/new"));
}

#[test]
fn a_command_of_another_page_is_done_there() {
    let mut ui = Ui { page: Page::Vms, ..Ui::default() };
    press(KeyCode::Char(':'), &mut ui);
    paste("failed", &Model::new(1 << 20), &mut ui);
    press(KeyCode::Enter, &mut ui);
    assert_eq!(ui.page, Page::Builds);
    assert_eq!(ui.word.as_deref(), Some("nothing failed in this task"));
}

#[test]
fn a_megabyte_pasted_where_a_line_is_typed_is_cut() {
    let mut ui = Ui { page: Page::Builds, ..Ui::default() };
    press(KeyCode::Char('b'), &mut ui);
    press(KeyCode::Char('x'), &mut ui);
    press(KeyCode::Left, &mut ui);
    paste(&"é\n".repeat(1 << 20), &Model::new(1 << 20), &mut ui);
    press(KeyCode::Char('y'), &mut ui);
    let Some(Dialog::Prompt { input, .. }) = &ui.dialog else { panic!("{:?}", ui.dialog) };
    assert_eq!(input.value(), "é".repeat(MOST_PASTED) + "yx");
}

#[test]
fn what_is_pasted_into_the_terminals_search_is_searched_for() {
    let mut ui = Ui { page: Page::Terminal, ..Ui::default() };
    ui.tabs.keys = Keys::Search(Line::default());
    paste("needle", &Model::new(1 << 20), &mut ui);
    let Keys::Search(input) = &ui.tabs.keys else { panic!("{:?}", ui.tabs.keys) };
    assert_eq!(input.value(), "needle");
}
