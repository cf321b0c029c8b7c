//! What each part of the screen looks like, by its role.

mod depth;
mod palette;

use ratatui::style::Style;

pub use depth::{Depth, limit};
pub use palette::Palette;

/// What a piece of text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Plain text.
    Text,
    /// Text of lesser weight.
    Dim,
    /// A pane's title.
    Title,
    /// A pane's border.
    Border,
    /// The border of the pane that has the keys.
    Focus,
    /// Names and numbers that matter.
    Accent,
    /// Done as wished.
    Ok,
    /// Under way.
    Busy,
    /// Something to know.
    Warning,
    /// Something to mend.
    Error,
    /// The line under the cursor.
    Selected,
    /// What a search found.
    Match,
    /// The match the search is at.
    CurrentMatch,
    /// A key in the footer or in the help.
    Key,
    /// A graph.
    Graph,
}

/// Signs, each with a plain ASCII stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Under way.
    Busy,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Cancelled or stopped.
    Ended,
    /// Alive.
    Alive,
    /// A branch of a tree with more below.
    Branch,
    /// The last branch of a tree.
    LastBranch,
    /// A trunk that goes on below.
    Trunk,
    /// Something was cut off here.
    Cut,
    /// A marked line.
    Mark,
}

/// Every role and its name in a theme's file, in the order of the type.
const ROLES: [(Role, &str); 15] = [
    (Role::Text, "text"),
    (Role::Dim, "dim"),
    (Role::Title, "title"),
    (Role::Border, "border"),
    (Role::Focus, "focus"),
    (Role::Accent, "accent"),
    (Role::Ok, "ok"),
    (Role::Busy, "busy"),
    (Role::Warning, "warning"),
    (Role::Error, "error"),
    (Role::Selected, "selected"),
    (Role::Match, "match"),
    (Role::CurrentMatch, "current-match"),
    (Role::Key, "key"),
    (Role::Graph, "graph"),
];

/// Colours and signs for one terminal.
#[derive(Debug, Clone)]
pub struct Theme {
    /// How many colours there are.
    pub depth: Depth,
    /// Whether signs are plain ASCII.
    pub ascii: bool,
    styles: [Style; ROLES.len()],
}

impl Theme {
    /// A palette as a terminal shows it. Without colours all palettes look the same.
    pub fn new(palette: &Palette, depth: Depth, ascii: bool) -> Self {
        let plain = (depth == Depth::None).then(Palette::plain);
        let palette = plain.as_ref().unwrap_or(palette);
        Self { depth, ascii, styles: ROLES.map(|(role, _)| palette.style(role, depth)) }
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.styles[role as usize]
    }

    /// A sign.
    pub fn sign(&self, sign: Sign) -> &'static str {
        let (sign, ascii) = match sign {
            Sign::Busy => ("⏵", ">"),
            Sign::Done => ("✔", "+"),
            Sign::Failed => ("✘", "x"),
            Sign::Ended => ("■", "-"),
            Sign::Alive => ("●", "*"),
            Sign::Branch => ("├", "|"),
            Sign::LastBranch => ("└", "`"),
            Sign::Trunk => ("│", "|"),
            Sign::Cut => ("…", "~"),
            Sign::Mark => ("▸", ">"),
        };
        if self.ascii { ascii } else { sign }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_stands_at_its_place_in_the_table() {
        for (index, (role, name)) in ROLES.iter().enumerate() {
            assert_eq!(*role as usize, index, "{name}");
        }
        assert_eq!(Role::Graph as usize + 1, ROLES.len());
    }

    #[test]
    fn signs_are_one_column_wide() {
        use unicode_width::UnicodeWidthStr;
        for sign in [Sign::Busy, Sign::Done, Sign::Failed, Sign::Ended, Sign::Alive, Sign::Cut, Sign::Mark] {
            for ascii in [true, false] {
                let sign = Theme::new(&Palette::dark(), Depth::True, ascii).sign(sign);
                assert_eq!(sign.width(), 1, "{sign}");
                assert!(!ascii || sign.is_ascii(), "{sign}");
            }
        }
    }

    #[test]
    fn the_themes_at_every_depth() {
        let mut table = String::new();
        for (name, palette) in [("dark", Palette::dark()), ("light", Palette::light())] {
            for depth in [Depth::True, Depth::Indexed, Depth::Ansi, Depth::None] {
                table += &format!("{name}, {depth:?}\n");
                let theme = Theme::new(&palette, depth, false);
                for (role, name) in ROLES {
                    let style = theme.style(role);
                    let colour = |colour: Option<_>| {
                        colour.map_or("-".into(), |c: ratatui::style::Color| c.to_string())
                    };
                    let (fg, bg) = (colour(style.fg), colour(style.bg));
                    let line = format!("  {name:13}  {fg:12}  {bg:12}  {:?}", style.add_modifier);
                    table += &format!("{}\n", line.trim_end());
                }
            }
        }
        insta::assert_snapshot!(table);
    }
}
