//! What a pane looks like.

use ratatui::style::{Color, Modifier};

use super::*;
use crate::console::theme::Role;

/// A bit of everything.
fn motley() -> LogBuffer {
    let mut buffer = LogBuffer::default();
    let rootfs = buffer.add_source("rootfs");
    push(&mut buffer, "these 3 derivations will be built:");
    push(&mut buffer, "\x1b[31;1merror:\x1b[0m attribute 'packages' missing at /code/flake.nix:12:3");
    let time = Timestamp::from_second(86_399).unwrap();
    buffer.push(
        time,
        rootfs,
        Severity::Plain,
        "漢字漢字漢字 e\u{301}t\u{e9} 👩\u{200d}👧 \u{202e}evil\u{200b}",
    );
    buffer.push(time, rootfs, Severity::Warning, "tab\there and \x1b[2J\x1b]0;title\x07 nothing else");
    push(&mut buffer, "");
    push(&mut buffer, "done");
    buffer
}

#[test]
fn lines_are_wrapped_at_the_edge_of_the_pane() {
    insta::assert_snapshot!(text(&Pane::new(motley(), 24, 12).draw(&colour())));
}

#[test]
fn lines_that_are_not_wrapped_say_where_they_were_cut() {
    let mut pane = Pane::new(motley(), 24, 6);
    pane.act(LogAction::ToggleWrap);
    let left = text(&pane.draw(&colour()));
    pane.act(LogAction::ScrollRight(9));
    insta::assert_snapshot!(format!("{left}--- 9 to the right\n{}", text(&pane.draw(&colour()))));
}

#[test]
fn a_wide_character_cut_in_half_at_either_edge_is_not_shown() {
    let mut buffer = LogBuffer::default();
    push(&mut buffer, "ab漢字漢字漢字");
    let mut pane = Pane::new(buffer, 7, 1);
    pane.act(LogAction::ToggleWrap);
    assert_eq!(text(&pane.draw(&plain())), " ab漢 ~\n");
    pane.act(LogAction::ScrollRight(2));
    assert_eq!(text(&pane.draw(&plain())), " ~ 字 ~\n");
    pane.act(LogAction::ScrollRight(1));
    assert_eq!(text(&pane.draw(&plain())), " ~字漢~\n");
}

#[test]
fn a_cut_line_full_of_marks_or_colours_still_shows_that_it_goes_on() {
    let mut buffer = LogBuffer::default();
    push(&mut buffer, &format!("\x1b[31m{}\x1b[32m end", "e\u{301}\u{302}\u{303}".repeat(8)));
    push(&mut buffer, &"\x1b[31mab\x1b[0mcd".repeat(100));
    let mut pane = Pane::new(buffer, 11, 2);
    pane.act(LogAction::ToggleWrap);
    let screen = text(&pane.draw(&plain()));
    assert!(screen.lines().all(|line| line.ends_with('~')), "{screen}");
    assert!(screen.ends_with(" abcdabcda~\n"), "{screen}");
}

#[test]
fn a_wide_pane_shows_timestamps_and_marks() {
    let mut pane = Pane::new(motley(), 60, 7);
    pane.act(LogAction::ToggleTimestamps);
    pane.act(LogAction::ToggleMark);
    pane.act(LogAction::GoTo(1));
    pane.act(LogAction::ToggleMark);
    let signs = text(&pane.draw(&colour()));
    insta::assert_snapshot!(format!("{signs}--- ASCII\n{}", text(&pane.draw(&plain()))));
}

#[test]
fn a_pane_of_one_column_shows_what_it_can() {
    let mut pane = Pane::new(LogBuffer::default(), 1, 3);
    pane.push("a漢b");
    assert_eq!(text(&pane.draw(&plain())), "a\n?\nb\n");
}

#[test]
fn colours_of_a_line_show_unless_there_are_none() {
    let mut pane = Pane::new(LogBuffer::default(), 20, 1);
    pane.push("\x1b[1;31mred\x1b[0m not");
    let cell = |theme: Theme| pane.draw(&theme)[(1, 0)].clone();
    assert_eq!(cell(colour()).fg, Color::Indexed(1));
    assert_eq!(cell(plain()).fg, Color::Reset);
    assert!(cell(plain()).modifier.contains(Modifier::BOLD));
    assert_eq!(pane.draw(&colour())[(5, 0)].fg, Color::Reset);
}

#[test]
fn what_a_search_finds_stands_out_and_most_where_the_cursor_is() {
    let mut pane = Pane::new(LogBuffer::default(), 20, 2);
    pane.push("a needle, a Needle");
    pane.push("needle");
    pane.act(LogAction::Search("needle".into()));
    let screen = pane.draw(&colour());
    let looks = |x, y, role: Role| {
        let mut cell = ratatui::buffer::Cell::default();
        cell.set_style(colour().style(Role::Text));
        if y == 1 {
            cell.set_style(colour().style(Role::Selected));
        }
        cell.set_style(colour().style(role));
        screen[(x, y)].style() == cell.style()
    };
    assert!((3..9).all(|x| looks(x, 0, Role::Match)) && (13..19).all(|x| looks(x, 0, Role::Match)));
    assert!(looks(2, 0, Role::Text) && looks(9, 0, Role::Text));
    assert!((1..7).all(|x| looks(x, 1, Role::CurrentMatch)));
    let selected = colour().style(Role::Selected);
    assert_eq!(screen[(10, 1)].bg, selected.bg.unwrap(), "the cursor's line reaches to the edge");
}

#[test]
fn a_match_outside_the_pane_is_scrolled_to() {
    let mut buffer = LogBuffer::default();
    push(&mut buffer, &format!("{}needle{}", "x".repeat(5000), "y".repeat(5000)));
    let mut pane = Pane::new(buffer, 30, 4);
    pane.act(LogAction::Search("needle".into()));
    assert!(text(&pane.draw(&plain())).contains("needle"));
    pane.act(LogAction::ClearSearch);
    pane.act(LogAction::ToggleWrap);
    pane.act(LogAction::Search("needle".into()));
    assert!(text(&pane.draw(&plain())).contains("needle"));
}

#[test]
fn the_status_leaves_out_what_does_not_fit() {
    let mut buffer = LogBuffer::with_limit(4096);
    (0..1_234_567).for_each(|_| push(&mut buffer, "x"));
    let mut pane = Pane::new(buffer, 30, 4);
    assert!(pane.status().ends_with("1.2M lines dropped"));
    pane.act(LogAction::Filter("a very long filter with \x1b[31m escapes".into()));
    assert_eq!(pane.status(), "following  filter: a very long filter ~ 0  1.2M lines dropped");
    assert_eq!(pane.state.status(&pane.buffer, &plain(), 30), "following  1.2M lines dropped");
    assert_eq!(pane.state.status(&pane.buffer, &plain(), 5), "");
}
