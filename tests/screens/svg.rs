//! A screen as a picture.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// A cell, in the picture's units. Most fonts' letters are 0.6 of their size wide.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 17.0;
const FONT: f32 = 14.0;
/// Room round the screen.
const EDGE: f32 = 12.0;
const TEXT: &str = "#d4d8e0";
const GROUND: &str = "#15181e";

/// Draws every cell, with the colours of a dark terminal where the screen leaves that to it.
pub fn picture(buffer: &Buffer) -> String {
    let area = buffer.area();
    let (width, height) = (f32::from(area.width) * WIDTH, f32::from(area.height) * HEIGHT);
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0} {:.0}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}">
<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>
"##,
        width + 2.0 * EDGE,
        height + 2.0 * EDGE,
    );
    for y in 0..area.height {
        let row: Vec<(u16, &Cell)> = (0..area.width).map(|x| (x, &buffer[(x, y)])).collect();
        for run in row.chunk_by(|(_, a), (_, b)| look(a) == look(b)) {
            put(&mut out, run, y);
        }
    }
    out + "</svg>\n"
}

/// Cells side by side that look alike.
fn put(out: &mut String, run: &[(u16, &Cell)], y: u16) {
    let (first, cell) = run[0];
    let [fg, bg] = colours(cell);
    let (left, top) = (EDGE + f32::from(first) * WIDTH, EDGE + f32::from(y) * HEIGHT);
    if bg != GROUND {
        let width = run.len() as f32 * WIDTH;
        writeln!(
            out,
            r#"<rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{HEIGHT}" fill="{bg}"/>"#
        )
        .unwrap();
    }
    let (mut lines, mut solids) = (String::new(), String::new());
    for (x, cell) in run {
        line(&mut lines, cell.symbol(), EDGE + f32::from(*x) * WIDTH, top);
        solid(&mut solids, cell.symbol(), EDGE + f32::from(*x) * WIDTH, top);
    }
    if !lines.is_empty() {
        writeln!(out, r#"<path d="{lines}" stroke="{fg}"/>"#).unwrap();
    }
    if !solids.is_empty() {
        writeln!(out, r#"<path d="{solids}" fill="{fg}"/>"#).unwrap();
    }
    // Words by themselves, each where it belongs: fonts differ in how wide a space is.
    let apart = |cell: &Cell| cell.symbol() == " " || is_drawn(cell.symbol());
    for word in run.split(|(_, cell)| apart(cell)).filter(|word| !word.is_empty()) {
        let (mut text, mut columns) = (String::new(), 0);
        for (_, cell) in word {
            if columns < word.len() {
                columns += cell.symbol().width().max(1);
                text += cell.symbol();
            }
        }
        let x = EDGE + f32::from(word[0].0) * WIDTH;
        let (y, width) = (top + 0.76 * HEIGHT, columns as f32 * WIDTH);
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let weight = if cell.modifier.contains(Modifier::BOLD) { r#" font-weight="bold""# } else { "" };
        writeln!(
            out,
            r#"<text x="{x:.1}" y="{y:.1}" textLength="{width:.1}" fill="{fg}"{weight}>{text}</text>"#
        )
        .unwrap();
    }
}

/// Whether a sign is drawn: in fonts lines have gaps, and triangles are often missing.
fn is_drawn(symbol: &str) -> bool {
    arms(symbol).is_some() || symbol == "⏵" || eighths(symbol).is_some()
}

/// Where a line goes from the middle of its cell: left, right, up, down.
fn arms(symbol: &str) -> Option<[bool; 4]> {
    let arms = match symbol {
        "─" => "lr",
        "│" => "ud",
        "┌" => "rd",
        "┐" => "ld",
        "└" => "ru",
        "┘" => "lu",
        "├" => "rud",
        "┤" => "lud",
        "┬" => "lrd",
        "┴" => "lru",
        "┼" => "lrud",
        _ => return None,
    };
    Some(['l', 'r', 'u', 'd'].map(|arm| arms.contains(arm)))
}

/// How many eighths of its cell a bar is high.
fn eighths(symbol: &str) -> Option<u32> {
    let c = symbol.chars().next()? as u32;
    (0x2581..=0x2588).contains(&c).then(|| c - 0x2580)
}

fn line(path: &mut String, symbol: &str, x: f32, y: f32) {
    let Some(arms) = arms(symbol) else { return };
    let (cx, cy) = (x + WIDTH / 2.0, y + HEIGHT / 2.0);
    let ends = [(x, cy), (x + WIDTH, cy), (cx, y), (cx, y + HEIGHT)];
    for ((x, y), _) in ends.into_iter().zip(arms).filter(|(_, there)| *there) {
        write!(path, "M{cx:.1} {cy:.1}L{x:.1} {y:.1}").unwrap();
    }
}

fn solid(path: &mut String, symbol: &str, x: f32, y: f32) {
    if symbol == "⏵" {
        let (top, bottom, middle) = (y + 0.25 * HEIGHT, y + 0.75 * HEIGHT, y + HEIGHT / 2.0);
        write!(
            path,
            "M{:.1} {top:.1}L{:.1} {middle:.1}L{:.1} {bottom:.1}Z",
            x + 1.0,
            x + WIDTH - 1.0,
            x + 1.0
        )
        .unwrap();
    }
    if let Some(eighths) = eighths(symbol) {
        let (bottom, top) = (y + HEIGHT, y + HEIGHT * (1.0 - eighths as f32 / 8.0));
        write!(path, "M{x:.1} {bottom:.1}V{top:.1}H{:.1}V{bottom:.1}Z", x + WIDTH).unwrap();
    }
}

fn look(cell: &Cell) -> ([String; 2], Modifier) {
    (colours(cell), cell.modifier)
}

/// Of the letters and of the ground.
fn colours(cell: &Cell) -> [String; 2] {
    let mut colours = [colour(cell.fg, TEXT), colour(cell.bg, GROUND)];
    if cell.modifier.contains(Modifier::REVERSED) {
        colours.reverse();
    }
    if cell.modifier.contains(Modifier::DIM) {
        colours[0] = "#8b93a1".into();
    }
    colours
}

fn colour(colour: Color, default: &str) -> String {
    match colour {
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        // The console's own colours are all of the kind above; these are of logs and the inline view.
        Color::Red | Color::LightRed => "#ff8078".into(),
        Color::Green | Color::LightGreen => "#8bd17c".into(),
        Color::Yellow | Color::LightYellow => "#e6c15c".into(),
        Color::Blue | Color::LightBlue => "#6cb6ff".into(),
        Color::Magenta | Color::LightMagenta => "#c8b6ff".into(),
        Color::Cyan | Color::LightCyan => "#79d4e8".into(),
        _ => default.into(),
    }
}
