//! Which style each role has: a table, read from a file.

use std::path::Path;
use std::str::FromStr;

use ratatui::style::{Color, Modifier, Style};

use super::{Depth, ROLES, Role, limit};
use crate::console::config::reader::{Entry, Problem, Reader, entries};

const DARK: &str = include_str!("../../../assets/themes/dark.toml");
const LIGHT: &str = include_str!("../../../assets/themes/light.toml");
const PLAIN: &str = include_str!("../../../assets/themes/plain.toml");

const MODIFIERS: [(&str, Modifier); 5] = [
    ("bold", Modifier::BOLD),
    ("dim", Modifier::DIM),
    ("italic", Modifier::ITALIC),
    ("underline", Modifier::UNDERLINED),
    ("reverse", Modifier::REVERSED),
];

/// The style of every role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Palette {
    roles: [Look; ROLES.len()],
}

/// How a role looks, and how with 16 colours where the nearest of them are not right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Look {
    style: Style,
    ansi: Option<Style>,
}

impl Palette {
    /// For a dark background.
    pub fn dark() -> Self {
        Self::built_in("dark.toml", DARK).0
    }

    /// For a light background.
    pub fn light() -> Self {
        Self::built_in("light.toml", LIGHT).0
    }

    /// Without colours.
    pub(super) fn plain() -> Self {
        Self::built_in("plain.toml", PLAIN).0
    }

    fn built_in(name: &str, text: &str) -> (Self, Vec<Problem>) {
        let mut reader = Reader::new(Path::new(name), text);
        let table = reader.parse().unwrap_or_default();
        let mut palette = Self::default();
        for entry in entries("", &table) {
            palette.set(&entry, &mut reader);
        }
        (palette, reader.finish())
    }

    /// Takes over one role from a file. It replaces all that the role was.
    pub fn set(&mut self, entry: &Entry, reader: &mut Reader) {
        match ROLES.iter().find(|(_, name)| *name == entry.name) {
            Some((role, _)) => self.roles[*role as usize] = look(entry, reader),
            None => reader.unknown(entry, "role", ROLES.iter().map(|(_, name)| *name)),
        }
    }

    pub(super) fn style(&self, role: Role, depth: Depth) -> Style {
        let look = self.roles[role as usize];
        match look.ansi {
            Some(style) if depth == Depth::Ansi => style,
            _ => limit(look.style, depth),
        }
    }
}

fn look(entry: &Entry, reader: &mut Reader) -> Look {
    let mut look = Look::default();
    for part in reader.table(entry) {
        if part.name == "ansi" {
            let mut style = Style::new();
            for part in reader.table(&part) {
                paint(&mut style, &part, reader);
            }
            look.ansi = Some(limit(style, Depth::Ansi));
        } else {
            paint(&mut look.style, &part, reader);
        }
    }
    look
}

fn paint(style: &mut Style, part: &Entry, reader: &mut Reader) {
    if let Some((_, modifier)) = MODIFIERS.iter().find(|(name, _)| *name == part.name) {
        if reader.boolean(part) == Some(true) {
            *style = style.add_modifier(*modifier);
        }
        return;
    }
    match part.name {
        "fg" => style.fg = colour(part, reader),
        "bg" => style.bg = colour(part, reader),
        _ => reader.unknown(
            part,
            "part of a style",
            ["fg", "bg", "ansi"].into_iter().chain(MODIFIERS.map(|(name, _)| name)),
        ),
    }
}

fn colour(part: &Entry, reader: &mut Reader) -> Option<Color> {
    let text = reader.string(part)?;
    let colour = Color::from_str(text).ok();
    if colour.is_none() {
        let help = "write `#rrggbb`, a name like `light-red`, or a number from `0` to `255` in quotes";
        reader.problem(part, &format!("`{text}` is no colour"), help);
    }
    colour
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance and contrast as the Web Content Accessibility Guidelines define them.
    fn luminance(colour: Color) -> f64 {
        let Color::Rgb(r, g, b) = colour else { panic!("{colour} has no fixed value") };
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    }

    fn contrast(a: Color, b: Color) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn the_built_in_themes_have_no_problem() {
        for (name, text) in [("dark", DARK), ("light", LIGHT), ("plain", PLAIN)] {
            assert_eq!(Palette::built_in(name, text).1, [], "{name}");
        }
    }

    #[test]
    fn text_can_be_read_on_every_usual_background() {
        let dark = [Color::Rgb(0, 0, 0), Color::Rgb(30, 30, 46)];
        let light = [Color::Rgb(255, 255, 255), Color::Rgb(245, 245, 240)];
        for (palette, backgrounds) in [(Palette::dark(), dark), (Palette::light(), light)] {
            for (role, name) in ROLES {
                let style = palette.style(role, Depth::True);
                let Some(fg) = style.fg else { continue };
                let least = if matches!(role, Role::Border | Role::Graph) { 3.0 } else { 4.5 };
                for background in backgrounds {
                    let ratio = contrast(fg, style.bg.unwrap_or(background));
                    assert!(ratio >= least, "{name} on {background}: {ratio:.2}");
                }
            }
        }
    }

    #[test]
    fn without_colours_what_matters_is_still_told_apart() {
        let plain = Palette::plain();
        let roles = [
            Role::Text,
            Role::Dim,
            Role::Selected,
            Role::Match,
            Role::CurrentMatch,
            Role::Error,
            Role::Focus,
        ];
        let styles = roles.map(|role| plain.style(role, Depth::True));
        for (index, style) in styles.iter().enumerate() {
            assert_eq!((style.fg, style.bg), (None, None));
            assert!(!styles[..index].contains(style), "{:?} looks like another", roles[index]);
        }
    }
}
