//! What a derivation is built from, out of its `.drv` file: Nix's log names no edges.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Where derivations lie.
const STORE: &str = "/nix/store/";
/// Bytes read of a file; what a derivation needs stands near its beginning.
const MAX_FILE: u64 = 1024 * 1024;
/// Derivations told of as needed by one.
const MAX_NEEDS: usize = 256;

/// The derivations that `drv` needs, among those that `is_known`. None when the file cannot be read.
pub fn needs(drv: &str, is_known: impl Fn(&str) -> bool) -> Vec<String> {
    let text = read(drv).unwrap_or_default();
    inputs(&text).into_iter().filter(|input| is_known(input)).take(MAX_NEEDS).collect()
}

/// A builder can forge the name of what is built: only files right in the store are read.
fn read(drv: &str) -> Option<Vec<u8>> {
    let name = drv.strip_prefix(STORE)?;
    if name.contains('/') || !name.ends_with(".drv") {
        return None;
    }
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(Path::new(drv)).ok()?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The paths among the input derivations of an ATerm; those before the first fault in it.
pub fn inputs(aterm: &[u8]) -> Vec<String> {
    let mut paths = Vec::new();
    let mut reader = Reader { rest: aterm };
    // Outputs come first; a derivation of a later version says so before them.
    let before = if reader.eat(b"Derive(") {
        1
    } else if reader.eat(b"DrvWithVersion(") {
        2
    } else {
        return paths;
    };
    for _ in 0..before {
        if reader.skip().is_none() || !reader.eat(b",") {
            return paths;
        }
    }
    if reader.eat(b"[") {
        while let Some(path) = reader.input() {
            paths.push(path);
            if !reader.eat(b",") {
                break;
            }
        }
    }
    paths
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn eat(&mut self, word: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// One input: `("path",…)`.
    fn input(&mut self) -> Option<String> {
        if self.rest.first() != Some(&b'(') {
            return None;
        }
        let inside = &self.rest[1..];
        self.skip()?;
        let path = Reader { rest: inside }.string()?;
        String::from_utf8(path.to_vec()).ok()
    }

    /// A string's inside, as it is written: store paths hold nothing that would be escaped.
    fn string(&mut self) -> Option<&'a [u8]> {
        let inside = self.rest.strip_prefix(b"\"")?;
        let mut at = 0;
        while *inside.get(at)? != b'"' {
            at += if inside[at] == b'\\' { 2 } else { 1 };
        }
        self.rest = &inside[at + 1..];
        Some(&inside[..at])
    }

    /// Goes past a string, list or tuple.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.rest.first()? {
                b'"' => {
                    self.string()?;
                }
                b'[' | b'(' => {
                    depth += 1;
                    self.rest = &self.rest[1..];
                }
                b']' | b')' => {
                    depth = depth.checked_sub(1)?;
                    self.rest = &self.rest[1..];
                }
                _ => self.rest = &self.rest[1..],
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &str = r#"Derive([("out","/nix/store/o-top","","")],[("/nix/store/a-x.drv",["out"]),("/nix/store/b-y.drv",["dev","out"])],["/nix/store/s-source"],"x86_64-linux","/bin/sh",[],[("name","to\"p.drv")])"#;

    #[test]
    fn the_derivations_it_needs_are_read_and_nothing_else() {
        assert_eq!(inputs(PLAIN.as_bytes()), ["/nix/store/a-x.drv", "/nix/store/b-y.drv"]);
        let newer = r#"DrvWithVersion("xp-dyn-drv",[("o\"[(ut","p","","")],[("/nix/store/a.drv",(["out"],[("out",["x"])])),("/nix/store/b.drv",["out"])],[],"#;
        assert_eq!(inputs(newer.as_bytes()), ["/nix/store/a.drv", "/nix/store/b.drv"]);
        assert!(inputs(br#"Derive([],[],["/nix/store/s"],"#).is_empty());
    }

    #[test]
    fn a_file_that_ends_too_early_gives_what_came_before() {
        let end = PLAIN.find("),(\"/nix/store/b").unwrap() + 1;
        assert_eq!(inputs(&PLAIN.as_bytes()[..end]), ["/nix/store/a-x.drv"]);
        assert_eq!(inputs(&PLAIN.as_bytes()[..end + 10]), ["/nix/store/a-x.drv"]);
    }

    #[test]
    fn only_files_right_in_the_store_are_opened() {
        for drv in ["/etc/passwd", "/nix/store/../../tmp/x.drv", "/nix/store/x/y.drv", "/nix/store/none.drv"]
        {
            assert!(read(drv).is_none(), "{drv}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(text in r#"(Derive\(|DrvWithVersion\()?[\[\]()",\\a]{0,80}"#) {
            inputs(text.as_bytes());
        }

        #[test]
        fn nor_does_a_true_one_with_a_fault(at in 0..PLAIN.len(), byte in any::<u8>()) {
            let mut text = PLAIN.as_bytes().to_vec();
            text[at] = byte;
            inputs(&text);
        }
    }
}
