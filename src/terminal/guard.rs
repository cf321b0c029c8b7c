//! What stands between the parser and the emulator: it notes whether anything seen may have changed, and
//! keeps a hostile program from making a few bytes cost much memory or time.

use alacritty_terminal::Term;
use alacritty_terminal::event::EventListener;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::term::cell::Flags;
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, LineClearMode, Mode,
    NamedPrivateMode, PrivateMode, Rgb, StandardCharset, TabulationClearMode,
};
use unicode_width::UnicodeWidthChar;

use super::Size;

/// Most combining marks kept in one cell.
const MOST_MARKS: usize = 8;
/// Longest title, in characters.
const MOST_TITLE: usize = 256;
/// Characters a feed may type beyond its own bytes: one repetition (`CSI b`) of the greatest count.
const REPEATED: usize = u16::MAX as usize;

/// The emulator, guarded for one feed of bytes.
pub struct Guard<'a, T> {
    term: &'a mut Term<T>,
    /// Characters that may still be typed.
    left: usize,
    /// Something seen may have changed.
    pub changed: bool,
}

impl<'a, T: EventListener> Guard<'a, T> {
    /// Guards `term` while it is fed at most `bytes` bytes.
    pub fn new(term: &'a mut Term<T>, bytes: usize) -> Self {
        Self { term, left: bytes + REPEATED, changed: false }
    }

    /// Gives the emulator another size.
    pub fn resize(&mut self, size: Size) {
        self.changed = true;
        self.term.resize(size);
    }

    /// Whether a character beyond ASCII may be typed: no mark too many, nothing that turns the
    /// direction of the text around.
    fn may_type(&self, c: char) -> bool {
        if matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            return false;
        }
        if c.width() != Some(0) {
            return true;
        }
        // The cell the mark will go to.
        let grid = self.term.grid();
        let point = grid.cursor.point;
        let line = &grid[point.line];
        let mut column = point.column;
        if !grid.cursor.input_needs_wrap {
            column.0 = column.0.saturating_sub(1);
        }
        if line[column].flags.contains(Flags::WIDE_CHAR_SPACER) {
            column.0 = column.0.saturating_sub(1);
        }
        line[column].zerowidth().is_none_or(|marks| marks.len() < MOST_MARKS)
    }
}

/// Hands calls on as they are.
macro_rules! forward {
    (seen: $($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $name(&mut self, $($argument: $type),*) {
            self.changed = true;
            Handler::$name(self.term, $($argument),*);
        }
    )*};
    (unseen: $($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $name(&mut self, $($argument: $type),*) {
            Handler::$name(self.term, $($argument),*);
        }
    )*};
}

// What is missing here is meant to be: hyperlinks, which would cost memory in every cell and cannot be
// shown, the kitty keyboard protocol, and whatever the emulator does not know either.
impl<T: EventListener> Handler for Guard<'_, T> {
    #[inline]
    fn input(&mut self, c: char) {
        if self.left == 0 || c >= '\u{300}' && !self.may_type(c) {
            return;
        }
        self.left -= 1;
        self.changed = true;
        Handler::input(self.term, c);
    }

    fn move_backward_tabs(&mut self, count: u16) {
        self.changed = true;
        // Without tab stops each step walks the whole line.
        let most = self.term.columns() as u16;
        Handler::move_backward_tabs(self.term, count.min(most));
    }

    fn set_title(&mut self, title: Option<String>) {
        let title = title.map(|title| title.chars().take(MOST_TITLE).collect());
        Handler::set_title(self.term, title);
    }

    fn set_hyperlink(&mut self, _: Option<Hyperlink>) {}

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        // The end of a synchronised update is no change in itself.
        self.changed |= mode != PrivateMode::Named(NamedPrivateMode::SyncUpdate);
        Handler::unset_private_mode(self.term, mode);
    }

    forward! { seen:
        set_cursor_style(style: Option<CursorStyle>);
        set_cursor_shape(shape: CursorShape);
        goto(line: i32, column: usize);
        goto_line(line: i32);
        goto_col(column: usize);
        insert_blank(count: usize);
        move_up(lines: usize);
        move_down(lines: usize);
        move_forward(columns: usize);
        move_backward(columns: usize);
        move_down_and_cr(lines: usize);
        move_up_and_cr(lines: usize);
        put_tab(count: u16);
        backspace();
        carriage_return();
        linefeed();
        substitute();
        newline();
        scroll_up(lines: usize);
        scroll_down(lines: usize);
        insert_blank_lines(lines: usize);
        delete_lines(lines: usize);
        erase_chars(count: usize);
        delete_chars(count: usize);
        move_forward_tabs(count: u16);
        restore_cursor_position();
        clear_line(mode: LineClearMode);
        clear_screen(mode: ClearMode);
        reset_state();
        reverse_index();
        set_private_mode(mode: PrivateMode);
        set_scrolling_region(top: usize, bottom: Option<usize>);
        set_color(index: usize, colour: Rgb);
        reset_color(index: usize);
        decaln();
    }

    forward! { unseen:
        identify_terminal(intermediate: Option<char>);
        device_status(what: usize);
        bell();
        set_horizontal_tabstop();
        save_cursor_position();
        clear_tabs(mode: TabulationClearMode);
        set_tabs(interval: u16);
        terminal_attribute(attribute: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        report_mode(mode: Mode);
        report_private_mode(mode: PrivateMode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        set_active_charset(index: CharsetIndex);
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        dynamic_color_sequence(prefix: String, index: usize, terminator: &str);
        clipboard_store(clipboard: u8, base64: &[u8]);
        push_title();
        pop_title();
        text_area_size_pixels();
        text_area_size_chars();
    }
}
