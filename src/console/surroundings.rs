//! What the terminal around mvm can do, from the environment alone: asking the terminal would cost
//! the first frame a round trip.

use std::io::{self, IsTerminal};

use supports_color::Stream;

use super::theme::Depth;

/// What the terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// How many colours it shows, and is wished to show.
    pub depth: Depth,
    /// Whether only ASCII is sure to be shown.
    pub ascii: bool,
    /// Whether its background is light, where that is known.
    pub light: Option<bool>,
}

/// Why the full screen is not for this terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Standard input or output is a file or a pipe.
    #[error("{0} is not a terminal")]
    NoTerminal(&'static str),
    /// The terminal cannot move its cursor, or does not say what it is.
    #[error("the terminal cannot show a full screen (TERM is {0})")]
    Dumb(String),
    /// A terminal that nobody sits at.
    #[error("this is a CI job (CI is set)")]
    Ci,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Result<Self, Unfit> {
        let depth = match supports_color::on(Stream::Stdout) {
            Some(level) if level.has_16m => Depth::True,
            Some(level) if level.has_256 => Depth::Indexed,
            Some(_) => Depth::Ansi,
            None => Depth::None,
        };
        let terminals = (io::stdin().is_terminal(), io::stdout().is_terminal());
        Self::of(|name| std::env::var(name).ok(), terminals, depth)
    }

    /// Those of an environment, with whether standard input and output are terminals, and the colours
    /// the terminal is known to have.
    fn of(
        env: impl Fn(&str) -> Option<String>,
        (input, output): (bool, bool),
        depth: Depth,
    ) -> Result<Self, Unfit> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        if !input {
            return Err(Unfit::NoTerminal("standard input"));
        }
        if !output {
            return Err(Unfit::NoTerminal("standard output"));
        }
        let term = env("TERM").ok_or_else(|| Unfit::Dumb("not set".into()))?;
        if term == "dumb" {
            return Err(Unfit::Dumb(term));
        }
        if env("CI").is_some_and(|value| value != "false" && value != "0") {
            return Err(Unfit::Ci);
        }
        // The wish is older than the crate's reading of it: any value but none counts.
        let depth = if env("NO_COLOR").is_some() { Depth::None } else { depth };
        let light = env("COLORFGBG").as_deref().and_then(is_light);
        let asked = env("MVM_ASCII").is_some_and(|value| value != "0");
        // The kernel's own console has line drawing, but hardly any sign.
        let ascii = asked || term == "linux" || !is_utf8(env);
        Ok(Self { depth, ascii, light })
    }
}

/// Whether the locale speaks UTF-8. One that says nothing does not tell: containers have none, and
/// their terminals are elsewhere.
fn is_utf8(env: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(env);
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// `COLORFGBG` is `15;0` or `15;default;0`: the last is the background, one of the 16 colours.
fn is_light(value: &str) -> Option<bool> {
    let background: u8 = value.rsplit(';').next()?.parse().ok()?;
    (background < 16).then_some(background == 7 || background > 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(&str, &str)]) -> Result<Surroundings, Unfit> {
        let env = |name: &str| {
            let found = values.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string()).or_else(|| (name == "TERM").then(|| "xterm".into()))
        };
        Surroundings::of(env, (true, true), Depth::True)
    }

    #[test]
    fn without_a_terminal_on_both_sides_there_is_no_full_screen() {
        let env = |_: &str| Some("xterm".to_string());
        let unfit = |sides| Surroundings::of(env, sides, Depth::True).unwrap_err().to_string();
        assert_eq!(unfit((false, true)), "standard input is not a terminal");
        assert_eq!(unfit((true, false)), "standard output is not a terminal");
        let dumb = with(&[("TERM", "dumb")]).unwrap_err().to_string();
        assert_eq!(dumb, "the terminal cannot show a full screen (TERM is dumb)");
        let unset = with(&[("TERM", "")]).unwrap_err().to_string();
        assert_eq!(unset, "the terminal cannot show a full screen (TERM is not set)");
    }

    #[test]
    fn a_terminal_of_a_ci_job_gets_no_full_screen() {
        assert_eq!(with(&[("CI", "true")]), Err(Unfit::Ci));
        assert!(with(&[("CI", "false")]).is_ok() && with(&[("CI", "")]).is_ok());
    }

    #[test]
    fn no_color_is_heard_when_it_says_anything() {
        assert_eq!(with(&[("NO_COLOR", "1")]).unwrap().depth, Depth::None);
        assert_eq!(with(&[("NO_COLOR", "0")]).unwrap().depth, Depth::None);
        assert_eq!(with(&[("NO_COLOR", "")]).unwrap().depth, Depth::True);
    }

    #[test]
    fn a_locale_that_is_not_utf8_gets_ascii() {
        let ascii = |values: &[(&str, &str)]| with(values).unwrap().ascii;
        assert!(!ascii(&[]));
        assert!(!ascii(&[("LANG", "de_DE.UTF-8")]));
        assert!(!ascii(&[("LANG", "C.utf8")]));
        assert!(ascii(&[("LANG", "C")]));
        assert!(ascii(&[("LC_ALL", "POSIX"), ("LANG", "en_GB.UTF-8")]));
        assert!(!ascii(&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")]));
        assert!(ascii(&[("LANG", "C.UTF-8"), ("MVM_ASCII", "1")]));
        assert!(!ascii(&[("LANG", "C.UTF-8"), ("MVM_ASCII", "0")]));
        assert!(ascii(&[("TERM", "linux")]));
    }

    #[test]
    fn the_background_is_light_only_where_the_terminal_says_so() {
        let light = |value: &str| with(&[("COLORFGBG", value)]).unwrap().light;
        assert_eq!(light("15;0"), Some(false));
        assert_eq!(light("0;15"), Some(true));
        assert_eq!(light("0;default;7"), Some(true));
        assert_eq!(light("7;8"), Some(false));
        for unclear in ["", "15;default", "0;200", ";"] {
            assert_eq!(light(unclear), None, "{unclear}");
        }
    }
}
