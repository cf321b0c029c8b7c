//! What Nix writes and what a builder could.

use super::*;
use crate::event::TaskId;
use proptest::prelude::*;

/// What a log gives, fed in pieces of `size` bytes.
fn read(log: &[u8], size: usize) -> (Vec<Kind>, Report) {
    let (sink, mut stream) = EventSink::new(TaskId::new('t'));
    let origin = Origin::default();
    let usual = Usual::from([(("bad".into(), String::new()), 4200), (("bad".into(), "far".into()), 1)]);
    let mut reader = NixLog::new(&sink, &origin, &usual, "");
    log.chunks(size).for_each(|piece| reader.feed(piece));
    let report = reader.finish();
    let kinds = std::iter::from_fn(|| stream.try_next()).map(|event| event.kind).collect();
    (kinds, report)
}

/// Nix 2.8.0, word for word, with lines a builder or another version could add.
const LOG: &str = r#"warning: Git tree '/tmp/x' is dirty
@nix {"action":"start","id":1,"level":4,"text":"copying '/tmp/fl/t1'","type":0}
@nix {"action":"stop","id":1}
@nix {"action":"start","id":2,"level":0,"text":"","type":102}
@nix {"action":"start","id":3,"level":0,"text":"","type":104}
@nix {"action":"result","fields":[0,1,0,0],"id":3,"type":105}
@nix {"action":"result","fields":[101,0],"id":2,"type":106}
@nix {"action":"start","id":4,"level":6,"text":"querying info about missing paths","type":0}
@nix {"action":"stop","id":4}
@nix {"action":"start","fields":["/nix/store/00000000000000000000000000000000-bad.drv","",1,1],"id":5,"level":3,"parent":3,"text":"building '/nix/store/00000000000000000000000000000000-bad.drv'","type":105}
@nix {"action":"result","fields":["unpackPhase"],"id":5,"type":104}
@nix {"action":"result","fields":["\u001b[31mred\u001b[2Jx"],"id":5,"type":101}
@nix {"action":"result","fields":[0,0,0,1],"id":3,"type":105}
@nix {"action":"stop","id":5}
@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m builder for '/nix/store/00000000000000000000000000000000-bad.drv' failed","raw_msg":"builder"}
@nix {"action":"what","is":["this"]}
@nix {broken"#;

#[test]
fn a_log_of_nix_becomes_events_however_it_is_cut_into_pieces() {
    let (kinds, report) = read(LOG.as_bytes(), LOG.len());
    let source = || Source::Build { drv: "/nix/store/00000000000000000000000000000000-bad.drv".into() };
    assert!(matches!(&kinds[0], Kind::Log { text, .. } if text.starts_with("warning: Git tree")));
    assert!(kinds.contains(&Kind::ActivityStarted {
        id: 5,
        parent: Some(3),
        what: Activity::Build {
            drv: "/nix/store/00000000000000000000000000000000-bad.drv".into(),
            host: String::new(),
            usual_ms: Some(4200),
            needs: vec![]
        },
    }));
    assert!(kinds.contains(&Kind::Phase { name: "build".into() }));
    assert!(kinds.contains(&Kind::ActivityPhase { id: 5, phase: "unpackPhase".into() }));
    assert!(kinds.contains(&Kind::Log { source: source(), text: "\x1b[31mredx\x1b[0m".into() }));
    assert!(kinds.contains(&Kind::Progress { id: Some(3), done: 0, expected: 1, running: 0, failed: 1 }));
    assert!(kinds.contains(&Kind::ActivityStopped { id: 3 }), "left open by Nix, closed at the end");
    assert_eq!(report.errors.len(), 1);
    let tails: Vec<_> = report.tails.iter().map(|tail| (&*tail.drv, tail.lines.clone())).collect();
    let lines = ["\x1b[31mredx\x1b[0m".to_owned()].into();
    assert_eq!(tails, [("/nix/store/00000000000000000000000000000000-bad.drv", lines)]);
    let times: Vec<_> = report.times.iter().map(|build| (&*build.name, &*build.host)).collect();
    assert_eq!(times, [("bad", "")]);
    for size in [1, 7, 100] {
        assert_eq!(read(LOG.as_bytes(), size).0.len(), kinds.len());
    }
}

/// A builder whose Nix tells of the build again, as `ssh-ng` has it.
const FAR: &str = r#"@nix {"action":"start","id":1,"type":104}
@nix {"action":"start","fields":["/nix/store/00000000000000000000000000000000-bad.drv","ssh-ng://far",1,1],"id":2,"type":105}
@nix {"action":"start","id":3,"type":104}
@nix {"action":"start","fields":["/nix/store/00000000000000000000000000000000-bad.drv","",1,1],"id":4,"type":105}
@nix {"action":"result","fields":["build"],"id":4,"type":104}
@nix {"action":"result","fields":["a line"],"id":4,"type":101}
@nix {"action":"result","fields":[0,7,0,0],"id":3,"type":105}
@nix {"action":"stop","id":4}
@nix {"action":"stop","id":2}
@nix {"action":"start","fields":["/nix/store/00000000000000000000000000000000-bad.drv","",1,1],"id":5,"type":105}"#;

#[test]
fn a_build_that_another_machine_tells_of_again_is_one_build_on_that_machine() {
    let (kinds, report) = read(FAR.as_bytes(), FAR.len());
    let builds: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::ActivityStarted { id, what: Activity::Build { host, .. }, .. } => {
                Some((*id, host.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(builds, [(2, "ssh-ng://far"), (5, "")]);
    assert!(kinds.contains(&Kind::ActivityPhase { id: 2, phase: "build".into() }));
    let said =
        |kind: &Kind| matches!(kind, Kind::Log { source: Source::Build { .. }, text } if text == "a line");
    assert!(kinds.iter().any(said));
    assert!(!kinds.iter().any(|kind| matches!(kind, Kind::Progress { .. })), "what is counted there");
    let times: Vec<_> = report.times.iter().map(|build| &*build.host).collect();
    assert_eq!(times, ["ssh-ng://far"]);
    assert_eq!(report.tails[0].lines, ["a line"]);
}

#[test]
fn a_machine_that_cannot_be_used_is_told_of_once() {
    let line = r#"@nix {"action":"msg","level":0,"msg":"cannot build on 'ssh://far': error: cannot connect to 'far': refused"}"#;
    let (kinds, report) = read(format!("{line}\n{line}\n").as_bytes(), 100);
    assert_eq!(kinds.len(), 1);
    assert!(matches!(&kinds[0], Kind::Log { source: Source::Mvm { .. }, text } if text.contains("`far`")));
    assert_eq!((report.unreached.len(), report.errors.len()), (1, 0));
}

#[test]
fn forged_activities_phases_and_lines_come_to_an_end() {
    let mut log = "x".repeat(2 * MAX_RAW) + "\n";
    for id in 0..MAX_ACTIVITIES + 100 {
        log.push_str(&format!(
            "@nix {{\"action\":\"start\",\"id\":{id},\"type\":105,\"fields\":[\"d{id}\"]}}\n"
        ));
    }
    for phase in 0..1000 {
        log.push_str(&format!(
            "@nix {{\"action\":\"result\",\"id\":1,\"type\":104,\"fields\":[\"p{phase}\"]}}\n"
        ));
    }
    let (kinds, report) = read(log.as_bytes(), 64 * 1024);
    let count = |wanted: fn(&Kind) -> bool| kinds.iter().filter(|kind| wanted(kind)).count();
    assert_eq!(count(|kind| matches!(kind, Kind::ActivityStarted { .. })), MAX_ACTIVITIES);
    assert_eq!(count(|kind| matches!(kind, Kind::ActivityPhase { .. })), usize::from(MAX_PHASES));
    assert_eq!(report.tails.len(), tails::MAX_TAILS);
    assert!(matches!(kinds.iter().find(|kind| matches!(kind, Kind::Log { .. })),
        Some(Kind::Log { text, .. }) if text.len() == crate::event::text::MAX_LINE));
}

#[test]
fn only_the_last_lines_of_a_build_are_kept_for_its_failure() {
    let mut log = String::from("@nix {\"action\":\"start\",\"id\":1,\"type\":105,\"fields\":[\"d\"]}\n");
    for line in 0..100 {
        log.push_str(&format!(
            "@nix {{\"action\":\"result\",\"id\":1,\"type\":101,\"fields\":[\"{line}\"]}}\n"
        ));
    }
    let (_, report) = read(log.as_bytes(), 1000);
    assert_eq!(report.tails[0].lines.len(), tails::TAIL_LINES);
    assert_eq!(report.tails[0].lines.back().unwrap(), "99");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_let_a_control_character_through(
        lines in proptest::collection::vec((any::<bool>(), 0u64..130, 0u64..4, proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
        size in 1usize..200,
    ) {
        let mut log = Vec::new();
        for (json, kind, id, bytes) in lines {
            if json {
                let text = serde_json::to_string(&String::from_utf8_lossy(&bytes)).unwrap();
                let action = ["start", "stop", "result", "msg"][id as usize];
                log.extend(format!("@nix {{\"action\":\"{action}\",\"id\":{id},\"level\":{id},\"type\":{kind},\"text\":{text},\"msg\":{text},\"fields\":[{text},{kind}]}}\n").bytes());
            } else {
                log.extend(bytes);
                log.push(b'\n');
            }
        }
        for kind in read(&log, size).0 {
            let json = serde_json::to_string(&kind).unwrap();
            let texts = match &kind {
                Kind::Log { text, .. } | Kind::ActivityPhase { phase: text, .. } => vec![text.as_str()],
                Kind::ActivityStarted { what: Activity::Build { drv, host, .. }, .. } => vec![drv.as_str(), host.as_str()],
                Kind::ActivityStarted { what: Activity::Other { text } | Activity::Evaluate { text }, .. } => vec![text.as_str()],
                _ => vec![],
            };
            for text in texts {
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\x1b'), "{}", json);
            }
        }
    }
}
