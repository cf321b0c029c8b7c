//! The README's picture. `MVM_UPDATE_PICTURE=1 cargo test --test screens picture` draws it anew.

use std::path::Path;

use mvm::console::ui::page::Page;
use mvm::event::Kind;

use super::{Moment, dark, svg};

const SIZE: (u16, u16) = (120, 34);

#[test]
fn the_picture_in_the_readme_is_what_the_console_shows() {
    // A build is well under way, and VMs have run for a while.
    let moment = Moment::after(
        |event| matches!(&event.kind, Kind::Log { text, .. } if text.starts_with("rendered page 12 ")),
    );
    let picture = svg::picture(&moment.draw(Page::Overview, SIZE, &dark()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/console.svg");
    if std::env::var_os("MVM_UPDATE_PICTURE").is_some() {
        std::fs::write(&path, &picture).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(picture == committed, "the console looks otherwise: MVM_UPDATE_PICTURE=1 draws the picture anew");
}
