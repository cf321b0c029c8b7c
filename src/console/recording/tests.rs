use super::*;
use crate::event::{Activity, Outcome, TaskId};

fn parse(text: &str) -> Result<Recording, String> {
    Recording::parse("x.jsonl", text.as_bytes()).map_err(|error| error.to_string())
}

fn line(second: i64, rest: &str) -> String {
    let time = Timestamp::from_second(second).unwrap();
    format!(r#"{{"v":1,"time":"{time}","task":"b-1-0",{rest}}}"#) + "\n"
}

fn phase(second: i64) -> String {
    line(second, r#""event":"phase","name":"boot""#)
}

#[test]
fn the_built_in_recording_has_all_there_is_to_show() {
    let recording = Recording::built_in().unwrap();
    assert_eq!(recording.unknown, 0);
    assert!(BUILT_IN.len() < 200_000);
    for trace in ["/tmp/", "/root/", "/home/", "\"pid\""] {
        assert!(!BUILT_IN.contains(trace), "{trace}");
    }
    let count = |what: fn(&Kind) -> bool| recording.events.iter().filter(|event| what(&event.kind)).count();
    let built = count(|kind| matches!(kind, Kind::ActivityStarted { what: Activity::Build { .. }, .. }));
    assert!(built >= 12, "{built}");
    assert!(count(|kind| matches!(kind, Kind::VmSample { .. })) >= 120);
    assert!(count(|kind| matches!(kind, Kind::VmStarted { .. })) >= 3);
    assert!(count(|kind| matches!(kind, Kind::VmSeen { info } if info.state == "failed")) >= 1);
    assert!(
        count(|kind| matches!(kind, Kind::InstanceSeen { instance, .. } if instance.state == "sleeping"))
            >= 1
    );
    assert!(count(|kind| matches!(kind, Kind::PoolSeen { pool, .. } if pool.failure.is_some())) >= 1);
    let ended = |outcome: fn(&Outcome) -> bool| {
        let kinds = recording.events.iter().map(|event| &event.kind);
        kinds.filter(|kind| matches!(kind, Kind::TaskEnded { outcome: how, .. } if outcome(how))).count()
    };
    assert!(ended(|how| *how == Outcome::Ok) >= 3);
    assert!(ended(|how| matches!(how, Outcome::Failed { .. })) >= 2);
}

#[test]
fn what_only_a_newer_mvm_knows_is_counted_and_a_line_cut_short_at_the_end_is_left_out() {
    let newer = r#"{"v":9,"time":"2026-01-01T00:00:00Z","task":"b-1-0","event":"moon_phase"}"#;
    let recording = parse(&format!("{}{newer}\n\n{}{{\"v\":1,\"ti", phase(1), phase(2))).unwrap();
    assert_eq!((recording.events.len(), recording.unknown), (2, 1));
}

#[test]
fn a_file_that_is_no_recording_is_named_with_its_line() {
    let error = parse(&format!("{}oops\n{}", phase(1), phase(2))).unwrap_err();
    assert!(error.starts_with("line 2 of `x.jsonl` is no event: expected value at line 1"), "{error}");
    assert!(error.contains("\nhelp: "), "{error}");
    assert!(parse("oops").unwrap_err().starts_with("line 1 of"), "not even its first line");
    assert!(parse("\n").unwrap_err().starts_with("the recording `x.jsonl` has no event"));
    let error = Recording::open(Path::new("/nonexistent/x.jsonl")).unwrap_err().to_string();
    assert!(
        error.starts_with("the recording `/nonexistent/x.jsonl` cannot be read: No such file"),
        "{error}"
    );
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    let error = Recording::open(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(error.contains("it is larger than 64 MiB"), "{error}");
}

#[test]
fn log_lines_of_a_file_are_made_harmless() {
    let text = r#""event":"log","source":{"from":"nix","level":3},"text":"a\u001b[2Jb\u0007""#;
    let recording = parse(&line(1, text)).unwrap();
    assert!(matches!(&recording.events[0].kind, Kind::Log { text, .. } if text == "ab"));
}

#[test]
fn a_recording_keeps_its_pace_but_for_long_pauses() {
    // The fourth is told of later than it happened.
    let recording = parse(&[phase(10), phase(11), phase(1000), phase(7), phase(1001)].concat()).unwrap();
    let (pauses, seen): (Vec<_>, Vec<_>) =
        paced(recording.events).map(|(pause, seen, _)| (pause.as_millis(), seen.as_second())).unzip();
    assert_eq!(pauses, [0, 1000, 1500, 0, 1000]);
    assert_eq!(seen, [10, 11, 1000, 1000, 1001]);
}

#[test]
fn a_recording_says_what_was_left_out_and_when_it_is_over() {
    let mut recording = parse(&phase(1)).unwrap();
    recording.unknown = 3;
    let (sink, mut stream) = EventSink::new(TaskId::machine());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(recording.play(sink));
    let told = std::iter::from_fn(|| stream.try_next()).map(|event| match event.kind {
        Kind::Log { text, .. } => text,
        Kind::Phase { name } => name,
        kind => panic!("{kind:?}"),
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, ["3 events that only a newer mvm knows were left out", "boot", "the recording is over"]);
}

#[test]
fn times_are_moved_to_now_and_keep_their_distance() {
    let event = Recording::built_in().unwrap().events.into_iter().find_map(|event| match &event.kind {
        Kind::VmSeen { info } => Some((event.clone(), info.created)),
        _ => None,
    });
    let (event, created) = event.unwrap();
    let (time, now) = (event.time, Timestamp::from_second(4_000_000_000).unwrap());
    let moved = moved(event, time, now);
    assert_eq!(moved.time, now);
    let Kind::VmSeen { info } = moved.kind else { panic!("another kind") };
    assert_eq!(info.created.duration_until(now), created.duration_until(time));
}

#[test]
fn times_of_a_fleet_move_with_the_rest() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let text = line(
        100,
        r#""event":"instance_seen","tenant":"a","pool":"b","instance":{"name":"i","state":"warm",
        "since":"1970-01-01T00:00:50Z","lease":{"until":"1970-01-01T00:01:50Z","from":"sleeping"}}"#
            .replace('\n', "")
            .as_str(),
    );
    let event = parse(&text).unwrap().events.remove(0);
    let Kind::InstanceSeen { instance, .. } = moved(event, at(100), at(1100)).kind else { panic!() };
    assert_eq!((instance.since, instance.created), (Some(at(1050)), None));
    assert_eq!(instance.lease.unwrap().until, at(1110));
}

#[test]
fn a_cluster_of_an_earlier_recording_is_still_read() {
    let rest = r#""event":"cluster_seen","cluster":{"address":"a","state":"running","nodes":[{"name":"n",
        "address":"b","state":"connected","tenants":[{"name":"dev","pools":[{"name":"web","desired":1,
        "actual":1,"instances":[{"name":"web-1","state":"running"}]}]}]}]}"#
        .replace('\n', "");
    let recording = parse(&line(1, &rest)).unwrap();
    assert_eq!((recording.events.len(), recording.unknown), (1, 0));
    let mut model = crate::console::model::Model::default();
    model.apply(&recording.events[0]);
    assert!(model.cluster.nodes[0].find("@/n/dev/web/web-1").is_some());
}
