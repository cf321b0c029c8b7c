//! SGR colours as ratatui styles.

use ratatui::style::{Color, Modifier, Style};
use vte::Params;

/// The style after an SGR sequence. What hides or blinks is left out: a log is for reading.
pub fn apply(mut style: Style, params: &Params) -> Style {
    let mut params = params.iter();
    while let Some(param) = params.next() {
        style = match param[0] {
            0 => Style::new(),
            1 => style.add_modifier(Modifier::BOLD),
            2 => style.add_modifier(Modifier::DIM),
            3 => style.add_modifier(Modifier::ITALIC),
            4 if param.get(1) == Some(&0) => off(style, Modifier::UNDERLINED),
            4 | 21 => style.add_modifier(Modifier::UNDERLINED),
            7 => style.add_modifier(Modifier::REVERSED),
            9 => style.add_modifier(Modifier::CROSSED_OUT),
            22 => off(style, Modifier::BOLD | Modifier::DIM),
            23 => off(style, Modifier::ITALIC),
            24 => off(style, Modifier::UNDERLINED),
            27 => off(style, Modifier::REVERSED),
            29 => off(style, Modifier::CROSSED_OUT),
            code @ (30..=37 | 90..=97) => style.fg(named(code % 10, code >= 90)),
            code @ (40..=47 | 100..=107) => style.bg(named(code % 10, code >= 100)),
            38 => Style { fg: extended(param, &mut params).or(style.fg), ..style },
            48 => Style { bg: extended(param, &mut params).or(style.bg), ..style },
            // The underline's colour has values that must not be taken for codes.
            58 => {
                extended(param, &mut params);
                style
            }
            39 => Style { fg: None, ..style },
            49 => Style { bg: None, ..style },
            _ => style,
        };
    }
    style
}

/// Without the modifier, as if it had never been there.
fn off(mut style: Style, modifier: Modifier) -> Style {
    style.add_modifier.remove(modifier);
    style
}

fn named(index: u16, bright: bool) -> Color {
    Color::Indexed(index as u8 + if bright { 8 } else { 0 })
}

/// The colour of `38`, `48` and `58`, in the form with colons or the one with semicolons.
fn extended<'a>(param: &'a [u16], rest: &mut impl Iterator<Item = &'a [u16]>) -> Option<Color> {
    let byte = |value: u16| u8::try_from(value).ok();
    if let [_, values @ ..] = param
        && !values.is_empty()
    {
        return match values {
            [5, index, ..] => Some(Color::Indexed(byte(*index)?)),
            // A colour space may stand before the three.
            [2, red, green, blue] | [2, _, red, green, blue, ..] => {
                Some(Color::Rgb(byte(*red)?, byte(*green)?, byte(*blue)?))
            }
            _ => None,
        };
    }
    let mut value = || rest.next().map(|param| param[0]);
    match value()? {
        5 => Some(Color::Indexed(byte(value()?)?)),
        2 => {
            let (red, green, blue) = (value()?, value()?, value()?);
            Some(Color::Rgb(byte(red)?, byte(green)?, byte(blue)?))
        }
        _ => None,
    }
}
