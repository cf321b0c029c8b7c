//! The full-screen UI. The live inline view of one-shot commands uses its models and views too.

pub mod model;
pub mod source;
pub mod theme;
pub mod view;
