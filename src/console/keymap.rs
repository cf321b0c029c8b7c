//! Which keys do what: the list's own, or those of the user's file.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::chord::Chord;
use super::command::{COMMANDS, Command};
use super::ui::Ui;

/// The keys of each command.
#[derive(Debug)]
pub struct Keymap {
    /// What begins a command while a program has the keys.
    pub prefix: Chord,
    /// In the order of the list.
    chords: Vec<Vec<Chord>>,
}

impl Default for Keymap {
    fn default() -> Self {
        Self::new(Chord::ctrl('b'), &BTreeMap::new())
    }
}

impl Keymap {
    /// The list's own keys, but for the commands that `own` names.
    pub fn new(prefix: Chord, own: &BTreeMap<String, Vec<Chord>>) -> Self {
        let keys = |command: &Command| match own.get(command.name) {
            Some(chords) => chords.clone(),
            None => command.keys.iter().filter_map(|key| key.parse().ok()).collect(),
        };
        Self { prefix, chords: COMMANDS.iter().map(keys).collect() }
    }

    /// Keys that mean two things in one place: the chord and the two names.
    pub fn clashes(&self) -> Vec<(Chord, &'static str, &'static str)> {
        let mut clashes = Vec::new();
        for (index, (command, chords)) in self.bindings().enumerate() {
            for (earlier, taken) in self.bindings().take(index) {
                if earlier.place == command.place {
                    let both = chords.iter().filter(|chord| taken.contains(chord));
                    clashes.extend(both.map(|chord| (*chord, earlier.name, command.name)));
                }
            }
        }
        clashes
    }

    /// The command that a key calls here; that of the narrower place first.
    pub fn find(&self, chord: Chord, ui: &Ui) -> Option<&'static Command> {
        let bound =
            self.bindings().filter(|(command, chords)| chords.contains(&chord) && command.place.is_here(ui));
        // The first of the narrowest.
        bound.map(|(command, _)| command).min_by_key(|command| Reverse(command.place.narrowness()))
    }

    /// The keys of a command for people, e.g. `↑ k`.
    pub fn shown(&self, command: &Command, ascii: bool) -> String {
        let shown: Vec<String> = self.keys(command).iter().map(|chord| chord.short(ascii)).collect();
        shown.join(" ")
    }

    /// The first key of a command for people.
    pub fn first(&self, command: &Command, ascii: bool) -> String {
        self.keys(command).first().map(|chord| chord.short(ascii)).unwrap_or_default()
    }

    /// The first key of the command of this name for people; the name where it has no key.
    pub fn first_of(&self, name: &str, ascii: bool) -> String {
        let command = COMMANDS.iter().find(|command| command.name == name);
        let key = command.map(|command| self.first(command, ascii)).filter(|key| !key.is_empty());
        key.unwrap_or_else(|| format!(":{name}"))
    }

    /// Whether the first key of a command calls another one here.
    pub fn is_covered(&self, command: &Command, ui: &Ui) -> bool {
        let first = self.keys(command).first();
        first.and_then(|chord| self.find(*chord, ui)).is_some_and(|found| found.name != command.name)
    }

    fn keys(&self, command: &Command) -> &[Chord] {
        let found = self.bindings().find(|(one, _)| one.name == command.name);
        found.map_or(&[], |(_, chords)| chords)
    }

    fn bindings(&self) -> impl Iterator<Item = (&'static Command, &[Chord])> {
        COMMANDS.iter().zip(self.chords.iter().map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::ui::page::Page;
    use crate::console::ui::tabs::{Keys, Program, Tab};

    #[test]
    fn every_key_of_the_list_is_one_and_means_one_thing_in_its_place() {
        let keymap = Keymap::new(Chord::ctrl('b'), &BTreeMap::new());
        for (command, chords) in keymap.bindings() {
            assert_eq!(chords.len(), command.keys.len(), "{}", command.name);
        }
        assert_eq!(keymap.clashes(), []);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }

    #[test]
    fn the_users_keys_take_the_place_of_the_lists_own() {
        let f9: Chord = "f9".parse().unwrap();
        let keymap = Keymap::new(Chord::ctrl('b'), &BTreeMap::from([("quit".into(), vec![f9])]));
        let ui = Ui { page: Page::Overview, ..Ui::default() };
        assert_eq!(keymap.find(f9, &ui).unwrap().name, "quit");
        assert!(keymap.find("q".parse().unwrap(), &ui).is_none());
    }

    #[test]
    fn in_the_scrollback_the_scrollbacks_keys_win() {
        let mut ui = Ui { page: Page::Terminal, ..Ui::default() };
        ui.tabs.open(Tab {
            program: Program::Shell,
            name: "sh".into(),
            session: Err("".into()),
            calls: false,
        });
        let find = |ui: &Ui| Keymap::default().find("n".parse().unwrap(), ui).unwrap().name;
        assert_eq!(find(&ui), "tab-next");
        ui.tabs.keys = Keys::Scrollback;
        assert_eq!(find(&ui), "find-older");
    }

    #[test]
    fn a_command_whose_key_means_another_thing_here_is_covered() {
        let build = COMMANDS.iter().find(|command| command.name == "build").unwrap();
        let covered = |page| Keymap::default().is_covered(build, &Ui { page, ..Ui::default() });
        assert!(covered(Page::Cluster) && !covered(Page::Builds));
    }

    #[test]
    fn the_key_of_a_narrow_place_wins() {
        let keymap =
            Keymap::new(Chord::ctrl('b'), &BTreeMap::from([("ssh".into(), vec!["b".parse().unwrap()])]));
        let find = |page| keymap.find("b".parse().unwrap(), &Ui { page, ..Ui::default() }).unwrap().name;
        assert_eq!((find(Page::Vms), find(Page::Log)), ("ssh", "build"));
    }
}
