//! How many colours a terminal shows, and the nearest of them to any other.

use ratatui::style::{Color, Style};

/// How many colours there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// None: only bold, underlined, reversed.
    None,
    /// The 16 that a user's palette names.
    Ansi,
    /// The 256 of xterm.
    Indexed,
    /// All of them.
    True,
}

/// Levels of each channel in xterm's cube of 6 × 6 × 6 colours.
const CUBE: [u8; 6] = [0, 95, 135, 175, 215, 255];
/// Where the cube begins, and the ramp of greys after it.
const FIRST_OF_CUBE: u8 = 16;
const FIRST_GREY: u8 = 232;
const GREYS: u8 = 24;

/// The style with every colour replaced by the nearest one the terminal shows.
pub fn limit(mut style: Style, depth: Depth) -> Style {
    let nearest = |colour: Option<Color>| colour.and_then(|colour| limit_colour(colour, depth));
    style.fg = nearest(style.fg);
    style.bg = nearest(style.bg);
    style.underline_color = nearest(style.underline_color);
    style
}

fn limit_colour(colour: Color, depth: Depth) -> Option<Color> {
    match (colour, depth) {
        (Color::Reset, Depth::None) => Some(colour),
        (_, Depth::None) => None,
        (_, Depth::True) => Some(colour),
        (Color::Rgb(r, g, b), Depth::Indexed) => Some(Color::Indexed(indexed([r, g, b]))),
        (Color::Rgb(r, g, b), Depth::Ansi) => Some(ansi([r, g, b])),
        (Color::Indexed(index), Depth::Ansi) => {
            Some(NAMES.get(index as usize).copied().unwrap_or_else(|| ansi(rgb(index))))
        }
        (colour, _) => Some(colour),
    }
}

/// The first 16 of 256 colours.
const NAMES: [Color; 16] = [
    Color::Black,
    Color::Red,
    Color::Green,
    Color::Yellow,
    Color::Blue,
    Color::Magenta,
    Color::Cyan,
    Color::Gray,
    Color::DarkGray,
    Color::LightRed,
    Color::LightGreen,
    Color::LightYellow,
    Color::LightBlue,
    Color::LightMagenta,
    Color::LightCyan,
    Color::White,
];

/// What xterm shows for one of the 240 colours after the first 16.
fn rgb(index: u8) -> [u8; 3] {
    if index >= FIRST_GREY {
        return [grey(index - FIRST_GREY); 3];
    }
    let at = index.saturating_sub(FIRST_OF_CUBE) as usize;
    [CUBE[at / 36], CUBE[at / 6 % 6], CUBE[at % 6]]
}

fn grey(step: u8) -> u8 {
    8 + 10 * step
}

/// The nearest of the cube or the greys. The first 16 are the user's own and cannot be compared.
fn indexed(colour: [u8; 3]) -> u8 {
    let level = |value: u8| (0..6u8).min_by_key(|at| CUBE[*at as usize].abs_diff(value)).unwrap_or(0);
    let [r, g, b] = colour.map(level);
    let cube = FIRST_OF_CUBE + 36 * r + 6 * g + b;
    let sum: u32 = colour.iter().map(|value| u32::from(*value)).sum();
    let step = (0..GREYS).min_by_key(|step| (3 * u32::from(grey(*step))).abs_diff(sum)).unwrap_or(0);
    let ramp = FIRST_GREY + step;
    if distance(rgb(ramp), colour) < distance(rgb(cube), colour) { ramp } else { cube }
}

fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

/// The one of 16 with the same hue. Their values are the user's, so the nearest by value would be
/// chance; what a colour means is its hue.
fn ansi(colour: [u8; 3]) -> Color {
    let [r, g, b] = colour;
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most - least < 48 {
        let mean = (u16::from(most) + u16::from(least)) / 2;
        return match mean {
            0..=47 => Color::Black,
            48..=147 => Color::DarkGray,
            148..=219 => Color::Gray,
            _ => Color::White,
        };
    }
    // A channel counts when it is nearer to the strongest than to the weakest.
    let middle = least / 2 + most / 2;
    let bit = |value: u8, bit: usize| if value > middle { bit } else { 0 };
    let bright = if most > 191 { 8 } else { 0 };
    NAMES[bit(r, 1) + bit(g, 2) + bit(b, 4) + bright]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colours_keep_their_hue_with_16_colours() {
        for (colour, name) in [
            (Color::Rgb(255, 128, 120), Color::LightRed),
            (Color::Rgb(193, 18, 31), Color::LightRed),
            (Color::Rgb(128, 0, 0), Color::Red),
            (Color::Rgb(29, 122, 47), Color::Green),
            (Color::Rgb(11, 87, 208), Color::LightBlue),
            (Color::Rgb(0, 106, 128), Color::Cyan),
            (Color::Rgb(230, 193, 92), Color::LightYellow),
            (Color::Rgb(20, 20, 30), Color::Black),
            (Color::Rgb(250, 250, 255), Color::White),
            (Color::Indexed(9), Color::LightRed),
            (Color::Indexed(21), Color::LightBlue),
            (Color::Indexed(244), Color::DarkGray),
            (Color::Yellow, Color::Yellow),
        ] {
            assert_eq!(limit_colour(colour, Depth::Ansi), Some(name), "{colour}");
        }
    }

    #[test]
    fn without_colours_only_the_modifiers_stay() {
        let style = Style::new().fg(Color::Red).bg(Color::Indexed(3)).underline_color(Color::Blue).bold();
        assert_eq!(limit(style, Depth::None), Style::new().bold());
        assert_eq!(limit(style, Depth::True), style);
    }

    #[test]
    fn every_one_of_the_256_colours_is_its_own_nearest() {
        for index in FIRST_OF_CUBE..=255 {
            assert_eq!(rgb(indexed(rgb(index))), rgb(index), "{index}");
        }
    }

    proptest! {
        #[test]
        fn no_other_of_the_256_colours_is_nearer(colour: [u8; 3]) {
            let chosen = distance(rgb(indexed(colour)), colour);
            for index in FIRST_OF_CUBE..=255 {
                prop_assert!(chosen <= distance(rgb(index), colour), "{index} is nearer");
            }
        }

        #[test]
        fn a_limited_style_stays_as_it_is_when_limited_again(r: u8, g: u8, b: u8, index: u8) {
            let style = Style::new().fg(Color::Rgb(r, g, b)).bg(Color::Indexed(index));
            for depth in [Depth::None, Depth::Ansi, Depth::Indexed, Depth::True] {
                let limited = limit(style, depth);
                prop_assert_eq!(limit(limited, depth), limited);
            }
        }
    }
}
