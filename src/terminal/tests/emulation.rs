use std::time::{Duration, Instant};

use super::{fed, feed, text};
use crate::terminal::grid::{Colour, Cursor, Shape, Width};
use crate::terminal::screen::{Effects, Screen};
use crate::terminal::search::Towards;
use crate::terminal::select::Unit;
use crate::terminal::{Modes, MouseMode, Size};

fn replies(bytes: &str) -> String {
    String::from_utf8(fed(80, 24, bytes).1.replies).unwrap()
}

#[test]
fn questions_are_answered() {
    let table = [
        ("\x1b[c", "\x1b[?6c"),
        ("\x1b[>c", "\x1b[>0;2600;1c"),
        ("\x1b[5n", "\x1b[0n"),
        ("ab\r\ncd\x1b[6n", "\x1b[2;3R"),
        ("\x1b[?25$p", "\x1b[?25;1$y"),
        ("\x1b[?1006$p", "\x1b[?1006;2$y"),
        // Synchronised output is known; in-band resize reports are not.
        ("\x1b[?2026$p", "\x1b[?2026;2$y"),
        ("\x1b[?2048h\x1b[?2048$p", "\x1b[?2048;0$y"),
        ("\x1b[4$p", "\x1b[4;2$y"),
        ("\x1b[18t", "\x1b[8;24;80t"),
        ("\x1b[14t", "\x1b[4;384;640t"),
        ("\x1b]10;?\x07", "\x1b]10;rgb:e0e0/e0e0/e0e0\x07"),
        ("\x1b]11;?\x1b\\", "\x1b]11;rgb:0000/0000/0000\x1b\\"),
        ("\x1b]11;#123456\x07\x1b]11;?\x07", "\x1b]11;rgb:1212/3434/5656\x07"),
        ("\x1b]4;196;?\x07", "\x1b]4;196;rgb:ffff/0000/0000\x07"),
        ("\x1b]4;9;?\x07", "\x1b]4;9;rgb:ffff/0000/0000\x07"),
        ("\x1b]4;255;?\x07", "\x1b]4;255;rgb:eeee/eeee/eeee\x07"),
        // The kitty keyboard protocol is not there, and the clipboard not to be read.
        ("\x1b[?u\x1b[>1u\x1b[?u", ""),
        ("\x1b]52;c;?\x07", ""),
    ];
    for (question, answer) in table {
        assert_eq!(replies(question), answer, "{question:?}");
    }
}

#[test]
fn the_default_colours_told_are_those_set() {
    let mut screen = Screen::new(Size::new(80, 24), 0);
    screen.set_default_colours((1, 2, 3), (255, 254, 253));
    let effects = feed(&mut screen, "\x1b]10;?\x07\x1b]11;?\x07");
    let expected = b"\x1b]10;rgb:0101/0202/0303\x07\x1b]11;rgb:ffff/fefe/fdfd\x07";
    assert_eq!(effects.replies, expected);
}

#[test]
fn only_what_can_be_seen_changes_the_revision() {
    let (mut screen, _) = fed(20, 3, "a");
    for unseen in ["\x1b[c", "\x1b[?2026$p", "\x07", "\x1b]0;title\x07", "\x1b[31m", "\x1b7"] {
        let before = screen.revision();
        assert!(!feed(&mut screen, unseen).changed, "{unseen:?}");
        assert_eq!(screen.revision(), before, "{unseen:?}");
    }
    for seen in ["a", "\u{301}", "\r", "\x1b[?25l", "\x1b[2J", "\x1b[4 q"] {
        let before = screen.revision();
        assert!(feed(&mut screen, seen).changed, "{seen:?}");
        assert_ne!(screen.revision(), before, "{seen:?}");
    }
}

#[test]
fn bell_title_and_clipboard_are_handed_over() {
    let (mut screen, effects) = fed(20, 3, "\x07\x1b]2;a\u{202e}\u{9b}31mtitle\x07\x1b]52;c;aGVsbG8=\x07");
    assert!(effects.bell && effects.title);
    assert_eq!(effects.clipboard.as_deref(), Some("hello"));
    let title = screen.title().unwrap();
    assert!(
        title.ends_with("title") && !title.chars().any(|c| c.is_control() || c == '\u{202e}'),
        "{title:?}"
    );
    assert!(feed(&mut screen, "\x1bc\x1b[22t\x1b[23t").title);
    assert_eq!(screen.title(), None);
}

#[test]
fn cells_tell_their_colours_and_widths() {
    let (screen, _) =
        fed(10, 2, "\x1b[1;31mr\x1b[0;38;5;200;48;2;1;2;3mx\x1b[0;7m漢e\u{301}\x1b[0m\x1b[4:3;9;2;3mz\ty");
    let grid = screen.grid();
    let cells: Vec<_> = grid.row(0).collect();
    assert_eq!((cells[0].c, cells[0].style.foreground, cells[0].style.bold), ('r', Colour::Indexed(1), true));
    assert_eq!(cells[1].style.foreground, Colour::Indexed(200));
    assert_eq!(cells[1].style.background, Colour::Rgb(1, 2, 3));
    assert_eq!((cells[2].c, cells[2].width, cells[2].style.reverse), ('漢', Width::Wide, true));
    assert_eq!(cells[3].width, Width::Spacer);
    assert_eq!((cells[4].c, cells[4].marks), ('e', ['\u{301}'].as_slice()));
    let z = cells[5].style;
    assert!(z.underline && z.strike && z.dim && z.italic && !z.bold);
    assert_eq!(cells[6].c, ' ', "a tab is no character");
    assert_eq!(grid.row(2).count(), 0);
}

#[test]
fn marks_that_would_widen_a_cell_are_not_drawn() {
    let (screen, _) = fed(10, 1, "\u{2764}\u{fe0f}e\u{301}漢");
    assert_eq!(text(&screen), "\u{2764}e\u{301}漢");
}

#[test]
fn what_would_join_a_cell_to_the_next_is_not_drawn() {
    let (screen, _) = fed(10, 1, "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}|");
    assert_eq!(text(&screen), "\u{1f468}\u{1f469}\u{1f467}|");
}

#[test]
fn a_palette_that_was_changed_shows() {
    let (screen, _) = fed(10, 1, "\x1b]4;1;rgb:11/22/33\x07\x1b[31ma");
    assert_eq!(screen.grid().row(0).next().unwrap().style.foreground, Colour::Rgb(0x11, 0x22, 0x33));
}

#[test]
fn erasing_keeps_the_background() {
    let (screen, _) = fed(10, 2, "\x1b[44m\x1b[2J\x1b[0m");
    assert!(screen.grid().row(1).all(|cell| cell.style.background == Colour::Indexed(4)));
}

#[test]
fn the_cursor_has_the_shape_asked_for() {
    let at = |bytes: &str| fed(10, 3, bytes).0.grid().cursor();
    let cursor = |shape, blinking| Some(Cursor { column: 1, row: 0, shape, blinking });
    assert_eq!(at("a"), cursor(Shape::Block, false));
    assert_eq!(at("a\x1b[5 q"), cursor(Shape::Bar, true));
    assert_eq!(at("a\x1b[4 q"), cursor(Shape::Underline, false));
    assert_eq!(at("a\x1b[?25l"), None);
}

#[test]
fn modes_are_told() {
    let (mut screen, _) = fed(10, 3, "");
    assert_eq!(screen.modes(), Modes { alternate_scroll: true, ..Modes::default() });
    feed(&mut screen, "\x1b[?1h\x1b[?2004h\x1b[?1002h\x1b[?1006h\x1b[?1049h\x1b[?1007l\x1b[?1004h\x1b[20h");
    let all = Modes {
        app_cursor: true,
        newline: true,
        bracketed_paste: true,
        mouse: MouseMode::Drags,
        sgr_mouse: true,
        alternate_screen: true,
        alternate_scroll: false,
        focus: true,
    };
    assert_eq!(screen.modes(), all);
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("line {n}\r\n")).collect()
}

#[test]
fn the_view_keeps_its_place_in_the_scrollback() {
    let (mut screen, _) = fed(20, 4, lines(0..50));
    assert_eq!((screen.history(), screen.scrolled()), (47, 0));
    screen.scroll(10);
    assert_eq!(text(&screen), "line 37\nline 38\nline 39\nline 40");
    assert_eq!(screen.grid().cursor(), None);
    feed(&mut screen, lines(50..60));
    assert_eq!(text(&screen), "line 37\nline 38\nline 39\nline 40");
    screen.page_up();
    assert_eq!(text(&screen), "line 33\nline 34\nline 35\nline 36");
    screen.page_down();
    screen.scroll_to_top();
    assert!(text(&screen).starts_with("line 0\n"));
    screen.scroll(i32::MAX);
    screen.scroll(i32::MIN);
    assert_eq!(screen.scrolled(), 0);
    screen.scroll(1);
    screen.scroll_to_bottom();
    assert!(text(&screen).ends_with("line 59"));
}

#[test]
fn a_view_at_the_oldest_line_stays_there_when_lines_are_deleted() {
    let (mut screen, _) = fed(20, 4, lines(0..6));
    screen.scroll_to_top();
    feed(&mut screen, "\x1b[2;1H\x1b[M\x1b[M");
    assert_eq!(screen.scrolled(), screen.history());
    assert!(text(&screen).starts_with("line 0\n"));
}

#[test]
fn characters_words_and_lines_can_be_selected() {
    let (mut screen, _) = fed(12, 4, "one two-2 three four\r\nnext 漢字");
    assert_eq!(text(&screen), "one two-2 th\nree four\nnext 漢字");
    screen.select(Unit::Characters, 4, 0);
    assert_eq!(screen.selected_text(), None);
    screen.select_to(2, 1);
    assert_eq!(screen.selected_text().unwrap(), "two-2 three");
    screen.select_to(0, 0);
    assert_eq!(screen.selected_text().unwrap(), "one t");
    assert_eq!(screen.grid().row(0).filter(|cell| cell.selected).count(), 5);
    screen.select(Unit::Words, 11, 0);
    assert_eq!(screen.selected_text().unwrap(), "three");
    screen.select(Unit::Lines, 2, 1);
    assert_eq!(screen.selected_text().unwrap(), "one two-2 three four\n");
    screen.select(Unit::Characters, 5, 2);
    screen.select_to(u16::MAX, u16::MAX);
    assert_eq!(screen.selected_text().unwrap(), "漢字\n");
    screen.clear_selection();
    assert_eq!(screen.selected_text(), None);
}

#[test]
fn what_is_in_view_is_text_too() {
    let (mut screen, _) = fed(12, 3, "gone\r\none two-2 three\r\n\r\n");
    assert_eq!(screen.visible_text(), "ree");
    screen.scroll_to_top();
    assert_eq!(screen.visible_text(), "gone\none two-2 three");
}

#[test]
fn a_wide_character_that_was_wrapped_is_selected_once() {
    let (mut screen, _) = fed(5, 3, "abcd漢x");
    screen.select(Unit::Characters, 0, 0);
    screen.select_to(4, 0);
    assert_eq!(screen.selected_text().unwrap(), "abcd");
    screen.select_to(0, 1);
    assert_eq!(screen.selected_text().unwrap(), "abcd漢");
}

#[test]
fn a_selection_follows_its_text() {
    let (mut screen, _) = fed(20, 4, "find me\r\n");
    screen.select(Unit::Lines, 0, 0);
    feed(&mut screen, lines(0..20));
    assert_eq!(screen.selected_text().unwrap(), "find me\n");
}

#[test]
fn a_search_goes_through_screen_and_scrollback() {
    let (mut screen, _) = fed(12, 4, format!("A Needle here\r\n{}needle [x] 漢字\r\n", lines(0..30)));
    screen.search("needle");
    let mut found = Vec::new();
    for towards in [Towards::Older, Towards::Older, Towards::Older, Towards::Newer] {
        assert!(screen.search_on(towards));
        // It is brought into view.
        assert_eq!(
            (0..4).map(|row| screen.grid().row(row).filter(|cell| cell.selected).count()).sum::<usize>(),
            6
        );
        found.push(screen.selected_text().unwrap());
    }
    assert_eq!(found, ["needle", "Needle", "needle", "Needle"]);

    screen.search("Needle");
    assert!(screen.search_on(Towards::Newer) && screen.selected_text().unwrap() == "Needle");
    // Plain text, across the end of a wrapped line, and as many cells as wide characters take.
    screen.search("[x] 漢字");
    assert!(screen.search_on(Towards::Older));
    assert_eq!(screen.selected_text().unwrap(), "[x] 漢字");
    let found: usize = (0..4).map(|row| screen.grid().row(row).filter(|cell| cell.found).count()).sum();
    assert_eq!(found, 9, "with the cell left free at the end of the line");
    screen.search("nowhere");
    assert!(!screen.search_on(Towards::Older));
    screen.search("");
    assert!(!screen.search_on(Towards::Newer));
    assert!(screen.grid().row(0).all(|cell| !cell.found));
}

#[test]
fn matches_cut_off_by_the_view_are_marked_as_far_as_they_are_seen() {
    let (mut screen, _) = fed(4, 2, "xxab\r\nx\r\nx");
    feed(&mut screen, "\x1b[2J\x1b[Habcdefgh\r\nz");
    screen.search("cdef");
    let marked = |screen: &Screen| -> String {
        let grid = screen.grid();
        (0..2)
            .flat_map(|row| grid.row(row).filter(|cell| cell.found).map(|cell| cell.c).collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(marked(&screen), "ef");
    screen.scroll(1);
    assert_eq!(marked(&screen), "cdef");
    screen.scroll(1);
    assert_eq!(marked(&screen), "cd");
}

#[test]
fn a_synchronised_update_is_shown_whole_or_when_its_time_is_over() {
    let (mut screen, effects) = fed(10, 1, "old\x1b[?2026h\rnew");
    assert!(effects.changed);
    assert_eq!(text(&screen), "old");
    assert!(!feed(&mut screen, "er").changed);
    assert!(feed(&mut screen, "\x1b[?2026l").changed);
    assert_eq!((text(&screen).as_str(), screen.sync_deadline()), ("newer", None));

    feed(&mut screen, "\x1b[?2026h\rlate!");
    let deadline = screen.sync_deadline().unwrap();
    let mut effects = Effects::default();
    screen.tick(deadline - Duration::from_millis(1), &mut effects);
    assert_eq!((text(&screen).as_str(), effects.changed), ("newer", false));
    screen.tick(deadline, &mut effects);
    assert_eq!((text(&screen).as_str(), effects.changed), ("late!", true));
}

#[test]
fn a_synchronised_update_cannot_be_renewed_for_ever() {
    let mut screen = Screen::new(Size::new(10, 1), 0);
    let began = Instant::now();
    let mut effects = Effects::default();
    for tenths in 0..50 {
        screen.feed(b"\x1b[?2026hx", began + Duration::from_millis(tenths * 100), &mut effects);
    }
    assert!(screen.sync_deadline().unwrap() <= began + Duration::from_secs(1));
    for _ in 0..300 {
        screen.feed(&[b'y'; 1024], began, &mut effects);
    }
    assert_eq!(screen.sync_deadline(), None, "held back more than its share");
}

#[test]
fn lines_are_wrapped_anew_when_the_width_changes() {
    let (mut screen, _) = fed(20, 4, "a long line that wraps around\r\n$ ");
    screen.resize(Size::new(40, 4));
    assert_eq!(text(&screen), "a long line that wraps around\n$");
    screen.resize(Size::new(10, 4));
    assert_eq!(screen.size(), Size::new(10, 4));
    screen.scroll_to_top();
    assert_eq!(text(&screen), "a long lin\ne that wra\nps around\n$");
    screen.resize(Size::new(0, 0));
    assert_eq!(screen.size(), Size::new(2, 1));
}
