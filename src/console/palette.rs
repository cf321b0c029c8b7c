//! Commands by name, as far as it was typed.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

use super::command::{COMMANDS, Command};

/// What was typed, split into the command's name and what follows it.
pub fn split(typed: &str) -> (&str, &str) {
    let typed = typed.trim_start();
    typed.split_once(' ').map_or((typed, ""), |(name, rest)| (name, rest.trim()))
}

/// The commands that match, the best first; all of them while nothing was typed.
pub fn matches(typed: &str) -> Vec<&'static Command> {
    let (name, _) = split(typed);
    let pattern = Pattern::parse(name, CaseMatching::Smart, Normalization::Smart);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut buffer = Vec::new();
    let mut score = |text: &str| pattern.score(Utf32Str::new(text, &mut buffer), &mut matcher);
    let mut found: Vec<(u32, &Command)> = COMMANDS
        .iter()
        .filter_map(|command| {
            // The name weighs more than the words about it.
            let whole = u32::from(command.name == name);
            let named = score(command.name).map(|score| score * (4 + whole));
            named.max(score(command.help)).map(|score| (score, command))
        })
        .collect();
    // Stable: among equals the list's own order.
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    found.into_iter().map(|(_, command)| command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_letters_find_the_command() {
        assert_eq!(matches("rdet")[0].name, "run-detached");
        assert_eq!(matches("build /tmp/x")[0].name, "build");
        assert_eq!(matches("").len(), COMMANDS.len());
        assert!(matches("qqqq").is_empty());
    }
}
