//! Following, scrolling, searching, filtering, marking, copying.

use super::*;

#[test]
fn a_pane_follows_until_scrolled_up_and_then_keeps_its_place() {
    let mut pane = Pane::new(numbered(100), 40, 5);
    assert_eq!(pane.lines(), [95, 96, 97, 98, 99]);
    pane.push("more");
    assert_eq!(pane.lines(), [96, 97, 98, 99, 100]);
    pane.act(LogAction::ScrollUp(10));
    assert_eq!(pane.lines(), [86, 87, 88, 89, 90]);
    (0..50).for_each(|_| pane.push("more"));
    assert_eq!(pane.lines(), [86, 87, 88, 89, 90]);
    assert!(!pane.state.is_following());
    pane.act(LogAction::Bottom);
    assert_eq!(pane.lines().last(), Some(&150));
}

#[test]
fn the_place_is_kept_while_old_lines_are_dropped_until_it_goes_itself() {
    let mut buffer = LogBuffer::with_limit(8 * 1024);
    (0..1000).for_each(|number| push(&mut buffer, &format!("line {number}")));
    let mut pane = Pane::new(buffer, 40, 5);
    pane.act(LogAction::ScrollUp(5));
    let before = pane.lines();
    let first = pane.buffer.range().start;
    while pane.buffer.range().start == first {
        pane.push("more");
    }
    assert_eq!(pane.lines(), before);
    (0..2000).for_each(|_| pane.push("more"));
    assert_eq!(pane.lines()[0], pane.buffer.range().start);
}

#[test]
fn scrolling_down_to_the_end_follows_again_and_a_short_log_is_always_followed() {
    let mut pane = Pane::new(numbered(100), 40, 5);
    pane.act(LogAction::PageUp);
    pane.act(LogAction::ScrollDown(3));
    assert!(!pane.state.is_following());
    pane.act(LogAction::ScrollDown(1));
    assert!(pane.state.is_following());
    let mut short = Pane::new(numbered(3), 40, 5);
    short.act(LogAction::ScrollUp(1));
    assert!(short.state.is_following());
}

#[test]
fn the_cursor_takes_the_pane_along_and_scrolling_takes_the_cursor_along() {
    let mut pane = Pane::new(numbered(100), 40, 5);
    pane.act(LogAction::CursorUp(6));
    assert_eq!((pane.state.cursor(), pane.lines()[0]), (93, 93));
    pane.act(LogAction::ScrollUp(10));
    assert_eq!((pane.state.cursor(), pane.lines()[0]), (87, 83));
    pane.act(LogAction::Top);
    assert_eq!((pane.state.cursor(), pane.lines()[0]), (0, 0));
    pane.act(LogAction::CursorDown(usize::MAX));
    assert_eq!(pane.state.cursor(), 99);
    assert_eq!(pane.state.line_at(Rect::new(10, 20, 40, 5), 22), Some(97));
    assert_eq!(pane.state.line_at(Rect::new(10, 20, 40, 5), 25), None);
}

#[test]
fn wrapped_rows_are_scrolled_one_by_one() {
    let mut buffer = numbered(1);
    push(&mut buffer, &"x".repeat(95));
    push(&mut buffer, "end");
    let mut pane = Pane::new(buffer, 11, 4);
    let rows =
        |pane: &Pane| pane.state.places.iter().map(|place| (place.line, place.row)).collect::<Vec<_>>();
    assert_eq!(rows(&pane), [(1, 7), (1, 8), (1, 9), (2, 0)]);
    pane.act(LogAction::ScrollUp(2));
    assert_eq!(rows(&pane), [(1, 5), (1, 6), (1, 7), (1, 8)]);
    pane.act(LogAction::ScrollUp(6));
    assert_eq!(rows(&pane), [(0, 0), (1, 0), (1, 1), (1, 2)]);
    pane.act(LogAction::ToggleWrap);
    assert_eq!(rows(&pane), [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn a_search_finds_while_it_is_typed_and_goes_round_with_a_word() {
    let mut pane = Pane::new(numbered(100), 40, 5);
    pane.act(LogAction::Search("line 4".into()));
    assert_eq!(pane.state.cursor(), 49);
    pane.act(LogAction::Search("line 42".into()));
    assert_eq!(pane.state.cursor(), 42);
    pane.act(LogAction::Search("LINE".into()));
    assert_eq!(pane.state.notice(), Some("not found: LINE"));
    assert!(pane.state.is_following());
    pane.act(LogAction::Search("7".into()));
    assert_eq!(pane.state.cursor(), 97);
    assert!(pane.lines().contains(&97));
    pane.act(LogAction::SearchNext);
    assert_eq!((pane.state.cursor(), pane.state.notice()), (7, Some("search went on from the start")));
    assert_eq!(pane.status(), "search went on from the start  line 8/100  search: 7 1/19");
    pane.act(LogAction::SearchNext);
    assert_eq!((pane.state.cursor(), pane.state.notice()), (17, None));
    pane.act(LogAction::SearchPrevious);
    pane.act(LogAction::SearchPrevious);
    assert_eq!((pane.state.cursor(), pane.state.notice()), (97, Some("search went on from the end")));
}

#[test]
fn a_search_given_up_while_typing_goes_back_to_where_it_began() {
    let mut pane = Pane::new(numbered(100), 40, 5);
    pane.act(LogAction::ScrollUp(20));
    let before = pane.lines();
    pane.act(LogAction::Search("line 9".into()));
    assert_ne!(pane.lines(), before);
    pane.act(LogAction::ClearSearch);
    assert_eq!(pane.lines(), before);
    pane.act(LogAction::Search("line 9".into()));
    pane.act(LogAction::SettleSearch);
    let found = pane.lines();
    pane.act(LogAction::ClearSearch);
    assert_eq!(pane.lines(), found);
}

#[test]
fn a_search_in_a_long_log_takes_steps_and_jumps_when_it_can() {
    let mut buffer = numbered(10);
    (0..100_000).for_each(|_| push(&mut buffer, "nothing"));
    let mut pane = Pane::new(buffer, 40, 5);
    pane.state.act(&pane.buffer, LogAction::Search("line 3".into()));
    assert!(pane.state.is_scanning(&pane.buffer));
    assert!(pane.status().contains("search: line 3 0+"), "{}", pane.status());
    pane.layout();
    assert!(pane.state.is_scanning(&pane.buffer) && pane.state.is_following());
    while pane.state.is_scanning(&pane.buffer) {
        pane.layout();
    }
    assert_eq!(pane.state.cursor(), 3);
    assert!(pane.lines().contains(&3));
    assert_eq!(pane.status(), "line 4/100010  search: line 3 1/1");
}

#[test]
fn a_filter_shows_matching_lines_only_and_takes_in_new_ones() {
    let mut pane = Pane::new(numbered(100), 40, 5);
    pane.act(LogAction::Filter("5".into()));
    assert_eq!(pane.lines(), [65, 75, 85, 95].iter().fold(vec![59], |all, line| [all, vec![*line]].concat()));
    pane.push("line 100");
    pane.push("five is 5");
    assert_eq!(pane.lines().last(), Some(&101));
    pane.act(LogAction::ScrollUp(1));
    let before = pane.lines();
    pane.push("5 again");
    assert_eq!(pane.lines(), before);
    assert!(pane.status().ends_with("filter: 5 21"), "{}", pane.status());
    pane.act(LogAction::Filter("nowhere".into()));
    assert!(pane.lines().is_empty());
}

#[test]
fn the_line_one_was_at_stays_in_sight_when_a_filter_comes_and_goes() {
    let mut pane = Pane::new(numbered(50_000), 40, 5);
    pane.act(LogAction::GoTo(1234));
    pane.act(LogAction::Filter("line 1".into()));
    assert_eq!(pane.state.cursor(), 1234);
    assert!(pane.lines().contains(&1234));
    pane.act(LogAction::ClearFilter);
    assert_eq!(pane.state.cursor(), 1234);
    assert!(pane.lines().contains(&1234));
}

#[test]
fn a_filter_by_source_shows_one_derivation_without_its_name() {
    let mut buffer = LogBuffer::default();
    let (initrd, rootfs) = (buffer.add_source("initrd"), buffer.add_source("rootfs"));
    for source in [initrd, rootfs, initrd] {
        buffer.push(Timestamp::UNIX_EPOCH, source, Severity::Plain, "unpacking");
    }
    let mut pane = Pane::new(buffer, 30, 3);
    assert_eq!(text(&pane.draw(&plain())), " initrd> unpacking\n rootfs> unpacking\n initrd> unpacking\n");
    pane.act(LogAction::FilterSource(Some(initrd)));
    assert_eq!(text(&pane.draw(&plain())), " unpacking\n unpacking\n\n");
    assert_eq!(pane.status(), "following  filter: initrd 2");
}

#[test]
fn marks_and_errors_are_gone_to_in_turn() {
    let mut buffer = numbered(50);
    push(&mut buffer, "error: it broke");
    (0..50).for_each(|_| push(&mut buffer, "after"));
    let mut pane = Pane::new(buffer, 40, 5);
    pane.act(LogAction::NextError);
    assert_eq!((pane.state.cursor(), pane.state.notice()), (50, Some("the first error again")));
    pane.act(LogAction::ToggleMark);
    pane.act(LogAction::GoTo(7));
    pane.act(LogAction::ToggleMark);
    pane.act(LogAction::NextMark);
    assert_eq!((pane.state.cursor(), pane.state.notice()), (50, None));
    pane.act(LogAction::NextMark);
    assert_eq!((pane.state.cursor(), pane.state.notice()), (7, Some("the first mark again")));
    pane.act(LogAction::ToggleMark);
    pane.act(LogAction::PreviousMark);
    assert_eq!(pane.state.cursor(), 50);
    pane.act(LogAction::Filter("line".into()));
    pane.act(LogAction::PreviousError);
    assert_eq!(pane.state.notice(), Some("no error"));
}

#[test]
fn what_is_copied_is_the_text_alone() {
    let mut buffer = numbered(3);
    push(&mut buffer, "\x1b[31mred\x1b[0m and a line longer than the pane is wide");
    push(&mut buffer, "last");
    let mut pane = Pane::new(buffer, 20, 10);
    assert_eq!(pane.act(LogAction::Copy), Outcome::Copy("last".into()));
    pane.act(LogAction::StartSelection);
    pane.push("arrived meanwhile");
    pane.act(LogAction::CursorUp(2));
    let copied = "line 2\nred and a line longer than the pane is wide\nlast";
    assert_eq!(pane.act(LogAction::Copy), Outcome::Copy(copied.into()));
    assert_eq!(pane.state.notice(), Some("copied 3 lines"));
}

#[test]
fn a_copy_too_large_for_a_terminal_is_refused_with_a_way_out() {
    let mut buffer = LogBuffer::default();
    (0..2000).for_each(|_| push(&mut buffer, &"x".repeat(1000)));
    let mut pane = Pane::new(buffer, 20, 10);
    pane.act(LogAction::StartSelection);
    pane.act(LogAction::Top);
    assert_eq!(pane.act(LogAction::Copy), Outcome::Changed);
    assert_eq!(pane.state.notice(), Some("too much to copy: export it"));
}
