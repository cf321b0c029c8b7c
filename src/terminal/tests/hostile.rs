use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{fed, feed, text};
use crate::terminal::Size;
use crate::terminal::screen::{Effects, Screen};

#[test]
fn a_million_marks_on_one_cell_are_eight() {
    let (screen, _) = fed(10, 1, format!("e{}x", "\u{301}".repeat(1_000_000)));
    let grid = screen.grid();
    assert_eq!(grid.row(0).map(|cell| cell.marks.len()).sum::<usize>(), 8);
    assert_eq!(grid.row(0).nth(1).unwrap().c, 'x');
}

#[test]
fn text_cannot_turn_its_direction_around() {
    let (screen, _) = fed(20, 1, "a\u{202e}b\u{2066}c\u{200f}d");
    assert_eq!(text(&screen), "abcd");
}

#[test]
fn titles_and_clipboard_texts_are_of_bounded_length() {
    let (screen, effects) = fed(20, 1, format!("\x1b]0;{}\x07ok", "t".repeat(100_000)));
    assert!(effects.title && screen.title().unwrap().len() == 256);
    assert_eq!(text(&screen), "ok");
    let (screen, effects) = fed(20, 1, format!("\x1b]52;c;{}\x07ok", "YWFh".repeat(1_000_000)));
    assert_eq!((text(&screen).as_str(), effects.clipboard), ("ok", None));
    let (_, effects) = fed(20, 1, format!("\x1b]52;c;{}\x07", "YWFh".repeat(100_000)));
    assert_eq!(effects.clipboard.map(|text| text.len()), Some(300_000));
}

#[test]
fn few_bytes_cannot_ask_for_endless_work() {
    for bytes in ["\x1b[65535b", "\x1b[3g\x1b[999C\x1b[65535Z", "\x1b[65535I", "\x1b[65535S", "\x1b[65535L"] {
        let bytes = format!("x{}", bytes.repeat(4096 / bytes.len()));
        let mut screen = Screen::new(Size::new(120, 40), 10_000);
        let began = Instant::now();
        feed(&mut screen, &bytes);
        // Unguarded, the first two take minutes.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?} for {:?}", began.elapsed(), &bytes[..12]);
    }
}

#[test]
fn invalid_utf8_and_a_long_line_leave_a_sane_screen() {
    let mut line = vec![b'x'; 1 << 20];
    line.extend(b"\r\n\xff\xfe\xc3\x28\xf0\x9f end");
    let (screen, _) = fed(80, 24, &line);
    assert!(text(&screen).ends_with(" end"));
    assert!(!text(&screen).chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn the_emulator_starts_anew_after_a_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| assert!(crate::terminal::screen::is_parsing())));
    let (mut screen, _) = fed(20, 2, "before");
    let mut effects = Effects::default();
    screen.fail(&mut effects);
    std::panic::set_hook(hook);
    assert!(effects.failed && effects.changed && !crate::terminal::screen::is_parsing());
    feed(&mut screen, "after");
    assert_eq!((text(&screen).as_str(), screen.size()), ("after", Size::new(20, 2)));
}

#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>),
    Resize(u16, u16),
    Scroll(i32),
    Select(u16, u16),
    Search(String),
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = ("[ -/]{0,2}[?>=!]?", "[0-9;:]{0,8}", "[ $\"]?", "[@-~]")
        .prop_map(|(a, b, c, d)| format!("\x1b[{a}{b}{c}{d}").into_bytes());
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        sequence,
        "\\PC{0,20}".prop_map(String::into_bytes),
        "\x1b[ -~]{1,3}".prop_map(String::into_bytes),
        "[\r\n\t\x08]{1,5}".prop_map(String::into_bytes),
        "\x1b\\[\\?(1049|2026|6|7|3|1047)[hl]".prop_map(String::into_bytes),
        "[a漢\u{301}\u{200d}]{1,8}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        8 => bytes.prop_map(Step::Bytes),
        1 => (0u16..60, 0u16..30).prop_map(|(columns, rows)| Step::Resize(columns, rows)),
        1 => any::<i32>().prop_map(Step::Scroll),
        1 => (0u16..70, 0u16..70).prop_map(|(column, row)| Step::Select(column, row)),
        1 => "[a漢x ]{0,3}".prop_map(Step::Search),
    ]
}

proptest! {
    #[test]
    fn nothing_a_program_sends_fails_the_emulator(steps in proptest::collection::vec(step(), 1..60)) {
        let mut screen = Screen::new(Size::new(20, 6), 50);
        let mut size = screen.size();
        let mut effects = Effects::default();
        for step in steps {
            match step {
                Step::Bytes(bytes) => screen.feed(&bytes, Instant::now(), &mut effects),
                Step::Resize(columns, rows) => {
                    size = Size::new(columns, rows);
                    screen.resize(size);
                }
                Step::Scroll(lines) => screen.scroll(lines),
                Step::Select(column, row) => {
                    screen.select(crate::terminal::select::Unit::Words, column, row);
                    screen.select_to(row, column);
                }
                Step::Search(text) => {
                    screen.search(&text);
                    screen.search_on(crate::terminal::search::Towards::Older);
                }
            }
            prop_assert!(!effects.failed);
            prop_assert_eq!(screen.size(), size);
            prop_assert!(screen.history() <= 50);
            // Half a wide character is possible, a cell too many is not.
            let grid = screen.grid();
            for row in 0..size.rows() {
                prop_assert_eq!(grid.row(row).count(), usize::from(size.columns()));
            }
            if let Some(cursor) = grid.cursor() {
                prop_assert!(cursor.column < size.columns() && cursor.row < size.rows());
            }
            let _ = screen.selected_text();
        }
    }
}
