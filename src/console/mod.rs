//! The full-screen UI. The live inline view of one-shot commands uses its models and views too.
//!
//! ```text
//! worker thread: source::watch, jobs ──Events──► app ─► model ─┐
//! or a recording ──────────────────────────────┘               │
//! keys, mouse, signals ──► command list ──► act ──► ui ────────┴─► view ─► screen
//!                                            └─ Effect ─► worker, tabs, screen
//! ```

pub mod act;
pub mod action;
pub mod app;
pub mod chord;
pub mod command;
pub mod config;
mod fault;
pub mod keymap;
pub mod log;
pub mod model;
pub mod palette;
pub mod recording;
pub mod screen;
pub mod source;
pub mod surroundings;
pub mod theme;
pub mod ui;
pub mod view;
pub mod work;
