//! The full-screen UI. The live inline view of one-shot commands uses its models and views too.

pub mod chord;
pub mod config;
pub mod model;
pub mod screen;
pub mod surroundings;
pub mod theme;
pub mod view;
