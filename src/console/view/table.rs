//! Columns that fit: the least important ones give way where the screen is narrow.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::text::fitted;
use crate::console::theme::Theme;

/// Blank columns between two columns.
const GAP: u16 = 2;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column<C> {
    /// What it shows.
    pub what: C,
    /// Its title.
    pub title: &'static str,
    /// Least width.
    pub least: u16,
    /// Width beyond which more is of no use.
    pub most: u16,
    /// The highest rank gives way first; nought stays.
    pub rank: u8,
}

impl<C> Column<C> {
    /// A column, for tables written as a list.
    pub const fn new(what: C, title: &'static str, least: u16, most: u16, rank: u8) -> Self {
        Self { what, title, least, most, rank }
    }
}

/// A column that is shown, and where.
#[derive(Debug, Clone, Copy)]
pub struct Place<C> {
    /// The column.
    pub column: Column<C>,
    /// Columns from the left edge.
    pub x: u16,
    /// Its width.
    pub width: u16,
}

impl<C> Place<C> {
    /// Its part of a row.
    pub fn of(&self, row: Rect) -> Rect {
        Rect { x: row.x + self.x, width: self.width, ..row }.intersection(row)
    }
}

/// The columns that fit into `width`, in their order. What is left over goes to those of low rank.
pub fn fit<C: Copy>(columns: &[Column<C>], width: u16) -> Vec<Place<C>> {
    let mut shown = columns.to_vec();
    let taken = |shown: &[Column<C>]| -> u16 {
        shown.iter().map(|column| column.least + GAP).sum::<u16>().saturating_sub(GAP)
    };
    while shown.len() > 1 && taken(&shown) > width {
        let least = (0..shown.len()).max_by_key(|at| shown[*at].rank).unwrap_or(0);
        shown.remove(least);
    }
    let mut left = width.saturating_sub(taken(&shown));
    let mut places: Vec<Place<C>> =
        shown.into_iter().map(|column| Place { column, x: 0, width: column.least.min(width) }).collect();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| places[*at].column.rank);
    for at in order {
        let more = (places[at].column.most.saturating_sub(places[at].width)).min(left);
        places[at].width += more;
        left -= more;
    }
    let mut x = 0;
    for place in &mut places {
        place.x = x;
        x += place.width + GAP;
    }
    places
}

/// Writes text into an area, from the left.
pub fn left(theme: &Theme, text: &str, style: Style, area: Rect, buffer: &mut Buffer) {
    if !area.is_empty() {
        let text = fitted(theme, text, area.width);
        buffer.set_stringn(area.x, area.y, text, usize::from(area.width), style);
    }
}

/// The rows to show of `count` so that `selected` is among them, near the middle.
pub fn visible(count: usize, selected: usize, height: u16) -> std::ops::Range<usize> {
    let height = usize::from(height);
    let top = selected.saturating_sub(height / 2).min(count.saturating_sub(height));
    top..count.min(top + height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: [Column<char>; 3] = [
        Column::new('n', "NAME", 8, 12, 0),
        Column::new('c', "CPU", 5, 20, 2),
        Column::new('u', "UP", 4, 4, 1),
    ];

    fn shown(width: u16) -> Vec<(char, u16, u16)> {
        fit(&COLUMNS, width).iter().map(|place| (place.column.what, place.x, place.width)).collect()
    }

    #[test]
    fn the_least_important_column_gives_way_first_and_the_most_important_grows_first() {
        assert_eq!(shown(8), [('n', 0, 8)]);
        assert_eq!(shown(14), [('n', 0, 8), ('u', 10, 4)]);
        assert_eq!(shown(21), [('n', 0, 8), ('c', 10, 5), ('u', 17, 4)]);
        assert_eq!(shown(30), [('n', 0, 12), ('c', 14, 10), ('u', 26, 4)]);
        assert_eq!(shown(3), [('n', 0, 3)]);
    }

    proptest! {
        #[test]
        fn columns_stay_within_the_width_and_the_selection_among_what_is_visible(
            width in 0u16..300, height in 1u16..100, count in 1usize..500, at in 0usize..500,
        ) {
            for place in fit(&COLUMNS, width) {
                prop_assert!(place.x + place.width <= width);
            }
            let at = at.min(count - 1);
            let rows = visible(count, at, height);
            prop_assert!(rows.contains(&at) && rows.end <= count);
            prop_assert!(rows.len() == count.min(usize::from(height)));
        }
    }
}
