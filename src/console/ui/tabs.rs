//! Sessions in tabs.

/// The terminal page.
#[derive(Debug, Default)]
pub struct Tabs {
    /// Whether the prefix key was pressed, so that the next key is the console's.
    pub prefixed: bool,
}
