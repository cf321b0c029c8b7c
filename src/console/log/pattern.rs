//! What a search or a filter looks for.

use std::ops::Range;

use memchr::memchr2_iter;
use memchr::memmem::Finder;

/// Words to look for. Capitals count only if the words have some (smart case).
#[derive(Debug, Clone)]
pub struct Pattern {
    words: String,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// As they stand.
    Exact(Box<Finder<'static>>),
    /// ASCII in any case.
    Ascii,
    /// Any letters in any case: the words in small ones.
    Folded(String),
}

impl Pattern {
    /// A pattern for `words`; `None` when there are none.
    pub fn new(words: &str) -> Option<Self> {
        let way = if words.is_empty() {
            return None;
        } else if words.chars().any(char::is_uppercase) {
            Way::Exact(Box::new(Finder::new(words).into_owned()))
        } else if words.is_ascii() {
            Way::Ascii
        } else {
            Way::Folded(words.to_lowercase())
        };
        Some(Self { words: words.to_string(), way })
    }

    /// The words.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The first place at or after byte `from` where they stand.
    pub fn find(&self, text: &str, from: usize) -> Option<Range<usize>> {
        let rest = text.get(from..)?;
        let found = match &self.way {
            Way::Exact(finder) => finder.find(rest.as_bytes()).map(|at| at..at + self.words.len()),
            Way::Ascii => find_ascii(rest.as_bytes(), self.words.as_bytes()),
            Way::Folded(words) => {
                rest.char_indices().find_map(|(at, _)| Some(at..at + folded_prefix(&rest[at..], words)?))
            }
        };
        found.map(|range| range.start + from..range.end + from)
    }

    /// All places where they stand, from byte `from` on, none within another.
    pub fn find_all<'a>(&'a self, text: &'a str, from: usize) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut next = from;
        std::iter::from_fn(move || {
            let found = self.find(text, next)?;
            next = found.end;
            Some(found)
        })
    }
}

fn find_ascii(text: &[u8], words: &[u8]) -> Option<Range<usize>> {
    let first = *words.first()?;
    let last = text.len().checked_sub(words.len())?;
    memchr2_iter(first, first.to_ascii_uppercase(), &text[..=last])
        .find(|at| text[*at..at + words.len()].eq_ignore_ascii_case(words))
        .map(|at| at..at + words.len())
}

/// How many bytes of `text`, from its start, are `words` in some case.
fn folded_prefix(text: &str, words: &str) -> Option<usize> {
    let mut wanted = words.chars();
    let mut next = wanted.next();
    for (at, c) in text.char_indices() {
        if next.is_none() {
            return Some(at);
        }
        for lower in c.to_lowercase() {
            if next != Some(lower) {
                return None;
            }
            next = wanted.next();
        }
    }
    next.is_none().then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(words: &str, text: &str) -> Vec<Range<usize>> {
        Pattern::new(words).unwrap().find_all(text, 0).collect()
    }

    #[test]
    fn capitals_count_only_when_the_pattern_has_some() {
        assert_eq!(places("foo", "Foo fOO x"), [0..3, 4..7]);
        assert_eq!(places("Foo", "Foo foo"), vec![0..3]);
        assert_eq!(places("straße", "STRAßE"), vec![0..7]);
        assert_eq!(places("ü", "ÜüU"), [0..2, 2..4]);
        assert_eq!(places("aa", "aaaa"), [0..2, 2..4]);
        assert!(Pattern::new("").is_none());
    }

    proptest! {
        #[test]
        fn what_is_found_lies_in_the_text_at_characters(words in ".{1,3}", text in ".{0,30}") {
            let pattern = Pattern::new(&words).unwrap();
            for range in pattern.find_all(&text, 0) {
                prop_assert!(text.get(range.clone()).is_some_and(|found| !found.is_empty()));
            }
            if text.contains(&words) {
                prop_assert!(pattern.find(&text, 0).is_some());
            }
        }
    }
}
