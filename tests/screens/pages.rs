//! Every page at three sizes, in two themes and without colours.

use std::fmt::Write;

use mvm::console::theme::Theme;
use mvm::console::ui::page::Page;
use ratatui::buffer::{Buffer, Cell};

use super::*;

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 50)];
/// The size at which colours are compared as well.
const COLOURED: (u16, u16) = (120, 40);

#[test]
fn every_page_at_the_end_of_the_demo() {
    let end = Moment::end();
    for page in Page::ALL {
        for size in SIZES {
            let drawn = end.draw(page, size, &dark());
            let text = text(&drawn);
            for theme in [light(), colourless()] {
                assert_eq!(
                    text,
                    super::text(&end.draw(page, size, &theme)),
                    "a theme changes what stands there"
                );
            }
            let name = format!("{}_{}x{}", page.title().to_lowercase(), size.0, size.1);
            insta::assert_snapshot!(name, text);
        }
    }
}

#[test]
fn every_page_in_the_colours_of_each_theme() {
    let end = Moment::end();
    for page in Page::ALL {
        let themes: [(&str, Theme); 3] =
            [("dark", dark()), ("light", light()), ("without colours", colourless())];
        let maps =
            themes.map(|(name, theme)| format!("{name}\n{}", styles(&end.draw(page, COLOURED, &theme))));
        insta::assert_snapshot!(format!("{}_colours", page.title().to_lowercase()), maps.join("\n"));
    }
}

/// The styles by letters, then each row as runs of them. Rows that look alike stand together.
fn styles(buffer: &Buffer) -> String {
    let area = buffer.area();
    let mut known: Vec<String> = Vec::new();
    let mut letter = |cell: &Cell| {
        let style = format!("{} on {} {:?}", cell.fg, cell.bg, cell.modifier);
        let at = known.iter().position(|one| *one == style).unwrap_or_else(|| {
            known.push(style);
            known.len() - 1
        });
        char::from(b'a' + at as u8)
    };
    let mut rows: Vec<(String, u16)> = Vec::new();
    for y in 0..area.height {
        let letters: Vec<char> = (0..area.width).map(|x| letter(&buffer[(x, y)])).collect();
        let runs = letters.chunk_by(|a, b| a == b).map(|run| format!("{}{}", run[0], run.len()));
        let row = runs.collect::<Vec<_>>().join(" ");
        match rows.last_mut() {
            Some((last, count)) if *last == row => *count += 1,
            _ => rows.push((row, 1)),
        }
    }
    let mut out = String::new();
    for (at, style) in known.iter().enumerate() {
        writeln!(out, "  {}  {style}", char::from(b'a' + at as u8)).unwrap();
    }
    for (row, count) in rows {
        writeln!(out, "{count:>4} × {row}").unwrap();
    }
    out
}
