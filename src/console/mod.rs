//! The full-screen UI. The live inline view of one-shot commands uses its models and views too.

pub mod log;
pub mod model;
pub mod theme;
pub mod view;
