//! Anything done in any order to a log of anything.

use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::event::text::clean;

#[derive(Debug, Clone)]
enum Step {
    Push(String, Severity),
    PushMany(u16),
    Act(LogAction),
    Resize(u16, u16),
    Layout,
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof!["[a-f]{0,2}", "\\PC{0,3}", ".{0,3}"]
}

fn line() -> impl Strategy<Value = String> {
    let hostile =
        "([a-f ]|漢|\u{301}|\u{200d}|\u{202e}|🇩🇪|👍\u{1f3fd}|\t|\u{9b}|\x1b\\[[0-9;:]{0,8}m|\x1b\\]0;){0,30}";
    let long = (0usize..3).prop_map(|which| ["x", "漢", "\x1b[31mé"][which].repeat(2000));
    prop_oneof![4 => hostile, 3 => "[a-f ]{0,60}", 2 => ".{0,40}", 1 => long, 1 => Just("error: no".to_string())]
}

fn action() -> impl Strategy<Value = LogAction> {
    use LogAction::*;
    let amount = || prop_oneof![0usize..30, Just(usize::MAX)];
    prop_oneof![
        amount().prop_map(ScrollUp),
        amount().prop_map(ScrollDown),
        amount().prop_map(ScrollLeft),
        amount().prop_map(ScrollRight),
        amount().prop_map(CursorUp),
        amount().prop_map(CursorDown),
        any::<u64>().prop_map(GoTo),
        (0u64..300).prop_map(GoTo),
        words().prop_map(Search),
        words().prop_map(Filter),
        (0u32..4).prop_map(|id| FilterSource((id < 3).then_some(SourceId(id)))),
        proptest::sample::select(vec![
            PageUp,
            PageDown,
            Top,
            Bottom,
            ToggleFollow,
            ToggleWrap,
            ToggleTimestamps,
            SettleSearch,
            SearchNext,
            SearchPrevious,
            ClearSearch,
            ClearFilter,
            ToggleMark,
            NextMark,
            PreviousMark,
            NextError,
            PreviousError,
            StartSelection,
            ClearSelection,
            Copy,
        ]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let severity = proptest::sample::select(vec![Severity::Plain, Severity::Warning, Severity::Error]);
    prop_oneof![
        4 => (line(), severity).prop_map(|(text, severity)| Step::Push(text, severity)),
        1 => (0u16..400).prop_map(Step::PushMany),
        6 => action().prop_map(Step::Act),
        1 => (0u16..60, 0u16..12).prop_map(|(width, height)| Step::Resize(width, height)),
        1 => Just(Step::Layout),
    ]
}

/// Draws into a part of a larger screen and looks at every cell.
fn check(pane: &Pane, theme: &Theme) -> Result<(), TestCaseError> {
    let whole = Rect::new(0, 0, pane.width + 4, pane.height + 2);
    let area = Rect::new(2, 1, pane.width, pane.height);
    let mut screen = Buffer::filled(whole, ratatui::buffer::Cell::new("#"));
    view::draw(&pane.buffer, &pane.state, theme, area, &mut screen);
    for y in 0..whole.height {
        for x in 0..whole.width {
            let symbol = screen[(x, y)].symbol();
            if area.contains((x, y).into()) {
                prop_assert!(!symbol.chars().any(char::is_control), "{symbol:?}");
                prop_assert!(x + symbol.width() as u16 <= area.right(), "{symbol:?} at {x}");
                prop_assert!(symbol.width() >= 1, "{symbol:?}");
            } else {
                prop_assert_eq!(symbol, "#", "outside the pane at {},{}", x, y);
            }
        }
    }
    Ok(())
}

fn check_state(pane: &Pane) -> Result<(), TestCaseError> {
    let range = pane.buffer.range();
    let state = &pane.state;
    prop_assert!(range.is_empty() || range.contains(&state.cursor()));
    prop_assert!(state.places.len() <= usize::from(pane.height));
    prop_assert!(state.places.is_sorted() && state.places.iter().all(|place| range.contains(&place.line)));
    prop_assert!(pane.buffer.bytes() <= 64 * 1024);
    let passing = |place: &super::super::place::Place| {
        pane.buffer.line(place.line).is_some_and(|line| state.filter.passes(&line))
    };
    prop_assert!(state.places.iter().all(passing));
    for width in [0, 10, 80] {
        prop_assert!(state.status(&pane.buffer, &colour(), width).width() <= usize::from(width));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_done_to_a_pane_breaks_it(steps in proptest::collection::vec(step(), 1..60), cleaned in any::<bool>()) {
        let mut buffer = LogBuffer::with_limit(64 * 1024);
        let named = buffer.add_source("na\u{202e}me漢");
        let mut pane = Pane::new(buffer, 30, 6);
        for step in steps {
            let follows = pane.state.is_following();
            let top = pane.state.places.first().copied();
            let scanning = pane.state.is_scanning(&pane.buffer);
            let pushed = matches!(step, Step::Push(..) | Step::PushMany(_));
            match step {
                Step::Push(text, severity) => {
                    let text = if cleaned { clean(&text).into_owned() } else { text };
                    let source = if text.len() % 2 == 0 { named } else { SourceId::UNNAMED };
                    pane.buffer.push(Timestamp::UNIX_EPOCH, source, severity, &text);
                }
                Step::PushMany(count) => (0..count).for_each(|_| push(&mut pane.buffer, "abc def")),
                Step::Act(action) => { pane.state.act(&pane.buffer, action); }
                Step::Resize(width, height) => (pane.width, pane.height) = (width, height),
                Step::Layout => {}
            }
            // Between an action and the next layout the screen may be asked for all the same.
            check(&pane, &colour())?;
            pane.status();
            pane.layout();
            check(&pane, &colour())?;
            check(&pane, &plain())?;
            check_state(&pane)?;
            if let Some(top) = top
                && pushed && !follows && !scanning
                && pane.buffer.range().contains(&top.line)
                && pane.height > 0
                && pane.state.places.len() == usize::from(pane.height)
            {
                prop_assert_eq!(pane.state.places.first(), Some(&top), "the place is kept");
            }
        }
    }
}
