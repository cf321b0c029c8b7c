//! Operating system commands of bounded length: the parser behind keeps one in memory until it ends.

/// Longest command handed on, in bytes: enough for half a MiB of clipboard in base64.
const MOST: usize = 1 << 20;

/// Where in the stream one is.
#[derive(Debug, Default)]
pub enum Limit {
    /// Not in a command.
    #[default]
    Outside,
    /// Just after an escape.
    Escape,
    /// In a command, so many bytes of it seen.
    Inside(usize),
}

impl Limit {
    /// Hands `bytes` on, in pieces where a command is too long: what exceeds [`MOST`] is left out.
    pub fn pass(&mut self, bytes: &[u8], mut on: impl FnMut(&[u8])) {
        let mut from = 0;
        let mut at = 0;
        while at < bytes.len() {
            match self {
                Self::Outside => match memchr::memchr(0x1b, &bytes[at..]) {
                    Some(next) => {
                        at += next + 1;
                        *self = Self::Escape;
                    }
                    None => at = bytes.len(),
                },
                Self::Escape => {
                    match bytes[at] {
                        b']' => *self = Self::Inside(0),
                        // The parser acts upon these in passing.
                        0x00..=0x17 | 0x19 | 0x1b..=0x1f | 0x7f => {}
                        _ => *self = Self::Outside,
                    }
                    at += 1;
                }
                Self::Inside(seen) => {
                    let rest = &bytes[at..];
                    let end = rest.iter().position(|byte| matches!(byte, 0x07 | 0x18 | 0x1a | 0x1b));
                    let inside = end.unwrap_or(rest.len());
                    let room = MOST.saturating_sub(*seen);
                    *seen += inside;
                    if inside > room {
                        on(&bytes[from..at + room]);
                        from = at + inside;
                    }
                    at += inside;
                    if let Some(end) = end {
                        *self = if rest[end] == 0x1b { Self::Escape } else { Self::Outside };
                        at += 1;
                    }
                }
            }
        }
        on(&bytes[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut limit = Limit::default();
        let mut out = Vec::new();
        for piece in pieces {
            limit.pass(piece, |bytes| out.extend_from_slice(bytes));
        }
        out
    }

    #[test]
    fn an_endless_command_is_cut_and_what_follows_it_is_kept() {
        let endless = vec![b'x'; MOST];
        let out = passed([b"a\x1b]0;".as_slice(), &endless, &endless, b"y\x07b\x1b]0;c\x1b\\d"]);
        assert_eq!(out.len(), 1 + 2 + MOST + 1 + 1 + b"\x1b]0;c\x1b\\d".len());
        assert!(out.ends_with(b"x\x07b\x1b]0;c\x1b\\d"));
    }

    proptest! {
        #[test]
        fn anything_short_passes_unchanged(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b']'), Just(7)], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(passed([&bytes[..cut], &bytes[cut..]]), bytes);
        }
    }
}
