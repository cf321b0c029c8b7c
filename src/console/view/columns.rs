//! Text that fits into columns.

use std::borrow::Cow;
use std::time::Duration;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.graphemes(true).map(UnicodeWidthStr::width).sum() }
}

/// How many bytes of `text` fit into `room` columns.
fn fits(text: &str, room: usize) -> usize {
    let mut taken = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        taken += grapheme.width();
        if taken > room {
            return at;
        }
    }
    text.len()
}

/// `text` in at most `room` columns; where it is cut, it ends in the sign `cut`.
pub fn fit<'a>(text: &'a str, room: usize, cut: &str) -> Cow<'a, str> {
    let end = fits(text, room);
    if end == text.len() {
        return Cow::Borrowed(text);
    }
    let sign = width(cut);
    if room < sign {
        return Cow::Borrowed("");
    }
    Cow::Owned(format!("{}{cut}", &text[..fits(text, room - sign)]))
}

/// `text` in exactly `room` columns, to the left.
pub fn left(text: &str, room: usize, cut: &str) -> String {
    let text = fit(text, room, cut);
    let blank = room.saturating_sub(width(&text));
    format!("{text}{:blank$}", "")
}

/// `text` in exactly `room` columns, to the right.
pub fn right(text: &str, room: usize, cut: &str) -> String {
    let text = fit(text, room, cut);
    let blank = room.saturating_sub(width(&text));
    format!("{:blank$}{text}", "")
}

/// `text` as at most `most` rows of at most `room` columns, between words where that can be.
pub fn wrap(text: &str, room: usize, most: usize) -> Vec<&str> {
    let mut rows = Vec::new();
    let mut rest = text;
    while rows.len() < most {
        let end = fits(rest, room);
        if end == rest.len() {
            rows.push(rest);
            break;
        }
        // A character that is wider than the room is left out.
        let Some(first) = rest.graphemes(true).next().filter(|_| room > 0) else { break };
        let end = end.max(first.len());
        let word = if rest[end..].starts_with(' ') { Some(end) } else { rest[..end].rfind(' ') };
        // A word longer than half a row is broken: paths are read better so.
        let end = word.filter(|at| width(&rest[..*at]) > room / 2).unwrap_or(end);
        rows.push(if width(&rest[..end]) > room { "" } else { &rest[..end] });
        rest = rest[end..].strip_prefix(' ').unwrap_or(&rest[end..]);
    }
    rows
}

/// `0.4s`, `12.3s`, `2m05s`, `3h02m`, `4d03h`: at most six columns for a hundred days.
pub fn brief(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// An estimate: `~0.4s`, `~5s`, `~2m05s`.
pub fn about(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("~{}", brief(time)),
        1000..59_500 => format!("~{}s", (time.as_millis() + 500) / 1000),
        _ => format!("~{}", brief(time)),
    }
}

/// A flake's reference without its directories, e.g. `hello#minimal`. What is done comes first where
/// the title tells: `sleep i-0a1b2c3d`.
pub fn short_title(title: &str) -> Cow<'_, str> {
    let done = title.rsplit_once(' ').filter(|(done, _)| !done.contains('/'));
    match done {
        Some((done, of)) => Cow::Owned(format!("{done} {}", short_reference(of))),
        None => Cow::Borrowed(short_reference(title)),
    }
}

/// A flake's reference without its directories.
pub fn short_reference(title: &str) -> &str {
    let end = title.find('#').unwrap_or(title.len());
    // A trailing slash is no name.
    let path = title[..end].trim_end_matches('/');
    match path.rfind('/') {
        Some(at) => &title[at + 1..],
        None => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_title_keeps_what_is_done() {
        for (title, short) in [
            ("nix/examples/hello#minimal", "hello#minimal"),
            ("sleep dev/web/i-00000001", "sleep i-00000001"),
            ("create the tenant dev", "create the tenant dev"),
            ("/home/a b/c", "c"),
        ] {
            assert_eq!(short_title(title), short);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_with_a_sign() {
        assert_eq!(fit("rootfs", 6, "…"), "rootfs");
        assert_eq!(fit("rootfs", 5, "…"), "root…");
        assert_eq!(fit("日本語", 5, "…"), "日本…");
        assert_eq!(fit("日本語", 4, "…"), "日…");
        assert_eq!(fit("ab", 0, "…"), "");
        assert_eq!((left("ab", 4, "…"), right("ab", 4, "…")), ("ab  ".into(), "  ab".into()));
    }

    #[test]
    fn rows_are_broken_between_words_and_long_words_anywhere() {
        assert_eq!(wrap("builder for it failed", 12, 9), ["builder for", "it failed"]);
        assert_eq!(wrap("/nix/store/abc-x.drv is", 10, 9), ["/nix/store", "/abc-x.drv", "is"]);
        assert_eq!(wrap("", 10, 9), [""]);
        assert_eq!(wrap("a b c d", 1, 2), ["a", "b"]);
        assert!(wrap("abc", 0, 9).is_empty());
    }

    #[test]
    fn times_are_short() {
        let seconds = Duration::from_secs_f64;
        assert_eq!([0.45, 59.99, 65.0, 7325.0].map(seconds).map(brief), ["0.4s", "59.9s", "1m05s", "2h02m"]);
        assert_eq!([0.45, 5.4, 59.7, 125.0].map(seconds).map(about), ["~0.4s", "~5s", "~59.7s", "~2m05s"]);
    }

    #[test]
    fn a_title_is_shortened_to_its_last_part_and_attribute() {
        assert_eq!(short_title("/tmp/x/hello#minimal"), "hello#minimal");
        assert_eq!(short_title("github:owner/repo"), "repo");
        assert_eq!(short_title("/tmp/x/"), "x/");
        assert_eq!(short_title(".#a/b"), ".#a/b");
        assert_eq!(short_title("/"), "/");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in "\\PC{0,40}", room in 0_usize..30) {
            prop_assert!(width(&fit(&text, room, "…")) <= room);
            prop_assert_eq!(width(&left(&text, room, "…")), room);
            for row in wrap(&text, room, 100) {
                prop_assert!(width(row) <= room, "{:?}", row);
            }
        }
    }
}
